"""`vargen sample`: pictures from a trained model."""

from __future__ import annotations

import argparse
import pathlib

from vargen.cli import common

SUMMARY = "draw images from a trained model"
DESCRIPTION = """
Draws images of the classes asked for and writes each as a PNG, all of them in grid.png, and in steps.png how
the first of each class came about, step by step.
"""
EXAMPLES = """\
  vargen sample --workdir runs/quickstart
  vargen sample --workdir runs/quickstart --classes 3,5-7 --count 16 --guidance 2 --seed 1
  vargen sample --workdir runs/mar --steps 16 --temperature 0.95 --out pictures
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the flags."""
    common.add_config(parser, required=False)
    parser.add_argument(
        "--classes", default="", metavar="LIST", help="numbers, ranges or names: 0,3-5,cat (every class)"
    )
    parser.add_argument(
        "--count", type=common.number(int, 1), default=8, metavar="N", help="images of each class (8)"
    )
    parser.add_argument("--out", metavar="DIR", help="where to write (WORKDIR/samples)")
    parser.add_argument(
        "--batch-size", type=common.number(int, 1), default=64, metavar="B", help="images drawn at once (64)"
    )
    common.add_sampling(parser)


def run(args: argparse.Namespace) -> None:
    """Draws and writes the images."""
    import numpy as np

    from vargen import pictures

    model = common.load_model(args)
    names = common.class_names(model.config, args.workdir)
    classes = common.parse_classes(args.classes, names)
    labels = np.repeat(classes, args.count)
    options = common.sampling_options(args)
    captions = common.step_names(model, steps=args.steps)
    out = pathlib.Path(args.out or pathlib.Path(args.workdir) / "samples")
    out.mkdir(parents=True, exist_ok=True)

    drawn = common.sample_batches(model, labels, args.seed, args.batch_size, **options)
    images = np.concatenate(list(common.progress(drawn, len(labels), "sampling")))
    images = pictures.to_uint8(images)
    for i, (image, label) in enumerate(zip(images, labels, strict=True)):
        pictures.to_pil(image).save(out / f"{label:04d}-{i % args.count:03d}.png")
    rows = images.reshape(len(classes), args.count, *images.shape[1:])
    pictures.grid(rows, row_labels=[names[c] for c in classes]).save(out / "grid.png")

    first = classes[:8]
    size = min(args.batch_size, len(labels))
    steps = common.sample_steps(model, first, args.seed, size, **options)
    if len(captions) > 1:
        row_labels = [names[c] for c in first[: steps.shape[1]]]
        sheet = pictures.grid(steps.swapaxes(0, 1), row_labels=row_labels, column_labels=captions)
        sheet.save(out / "steps.png")
    print(f"{len(images)} images in {out}; all of them in {out / 'grid.png'}")
