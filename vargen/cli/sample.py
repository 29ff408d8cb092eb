"""`vargen sample`: pictures from a trained model."""

from __future__ import annotations

import argparse
import math
from typing import TYPE_CHECKING

from vargen.cli import common, flags
from vargen.errors import UserError

if TYPE_CHECKING:
    from vargen.conditioning import CaptionEmbedding, Captions
    from vargen.model import Model
    from vargen.paths import Path

SUMMARY = "draw images from a trained or imported model"
DESCRIPTION = """
Draws images of the classes (or captions) asked for and writes each as a PNG, a choice of them in grid.png,
and in steps.png how the first ones of some classes came about, step by step.
"""
EXAMPLES = """\
  vargen sample --workdir runs/quickstart
  vargen sample --workdir runs/quickstart --classes 3,5-7 --count 16 --guidance 2 --seed 1
  vargen sample --workdir models/var_d16 --preset paper --out samples
  vargen sample --workdir models/llamagen_text --captions captions.npz
  vargen sample --workdir models/var_d16 --codes tokens.npy
  vargen sample --workdir hf://OWNER/REPO --out samples
"""
# What fits on a sheet.
GRID_ROWS, GRID_COLUMNS, STEPS_ROWS = 20, 16, 8
MANY_CLASSES = 100
MOST = 10**7  # images of one call
MOST_NUMBERS = 2**32  # in one array of captions


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the flags."""
    flags.add_config(parser, required=False, reads=True)
    parser.add_argument("--classes", metavar="LIST", help="numbers, ranges or names: 0,3-5,cat (every class)")
    parser.add_argument(
        "--captions",
        metavar="FILE",
        help="for models of text: an .npz of `embedding` [B, T, E], the text encoder's states, and `mask` [B, T]",
    )
    parser.add_argument(
        "--codes",
        metavar="FILE",
        help="an .npy of codes or latents [B, N]: decode these instead of drawing any",
    )
    parser.add_argument(
        "--count",
        type=flags.number(int, 1, 10**6),
        metavar="N",
        help="images of each class (the preset's, or 8)",
    )
    parser.add_argument("--out", metavar="DIR", help="where to write (WORKDIR/samples)")
    parser.add_argument(
        "--batch-size",
        type=flags.number(int, 1, 10**6),
        default=64,
        metavar="B",
        help="images drawn at once (64)",
    )
    flags.add_sampling(parser)


def run(args: argparse.Namespace) -> None:
    """Draws and writes the images."""
    out = common.out_directory(args, "samples")
    model = common.load_model(args)
    preset = common.preset(model.config, args.preset)
    if args.codes is not None:
        for flag, found in (
            ("--classes", args.classes),
            ("--captions", args.captions),
            ("--count", args.count),
        ):
            if found is not None:
                raise UserError(f"sample: expected --codes or {flag}, found both")
        decode(model, args.codes, out, args.batch_size, preset["resize"])
    else:
        draw(model, args, out, args.count or preset["count"] or 8, preset["resize"])


def draw(model: Model, args: argparse.Namespace, out: Path, count: int, resize: int) -> None:
    """Draws `count` images of each class or caption into `out`, scaled to `resize` pixels where not 0."""
    import jax
    import numpy as np

    from vargen import paths, pictures
    from vargen.conditioning import CaptionEmbedding

    names = common.class_names(model.config, args.workdir)
    condition = model.needs_generator().condition
    of_text = isinstance(condition, CaptionEmbedding)
    if of_text != (args.captions is not None):
        expected, found = ("--captions", "none") if of_text else ("--classes", "--captions")
        raise UserError(f"{model.config.name}: expected {expected}, found {found}")
    if args.captions is not None:
        if args.classes is not None:
            raise UserError("sample: expected --captions or --classes, found both")
        captions, names = read_captions(args.captions, condition)
        wanted = list(range(len(names)))
    else:
        if not args.classes and len(names) > MANY_CLASSES and not args.preset:
            raise UserError(
                f"classes: the model has {len(names)}, expected --classes (all of them: all), found none"
            )
        wanted = list(dict.fromkeys(common.parse_classes(paths.text(args.classes or ""), names)))
    if (total := len(wanted) * count) > MOST:
        raise UserError(f"--count: expected at most {MOST} images in all, found {len(wanted)} x {count}")
    if args.captions is None:
        labels = np.repeat(np.asarray(wanted, np.int32), count)
    else:
        labels = jax.tree.map(lambda x: np.repeat(x, count, axis=0), captions)
    options = flags.sampling_options(args)
    columns = common.step_names(model, steps=args.steps)
    batch_size = min(args.batch_size, total)

    grown = {}

    def grow(content, order):
        """The first image of each class in the first batch; one large image takes as long as many small ones."""
        most = max(1, STEPS_ROWS * 64 // max(model.config.data.image_size, 64))
        chosen = np.arange(0, batch_size, count)[:most]
        steps = np.asarray(model.growth(content, order, chosen=chosen), np.float32)
        grown.update(zip((wanted[i // count] for i in chosen), np.clip(steps, -1, 1).swapaxes(0, 1)))

    on_content = grow if len(columns) > 1 else None
    drawn = common.sample_batches(model, labels, args.seed or 0, batch_size, resize, on_content, **options)
    kept: dict[int, list] = {c: [] for c in wanted[:GRID_ROWS]}
    done = 0
    for images in common.progress(drawn, total, "sampling"):
        for image in pictures.to_uint8(images):
            label, number = wanted[done // count], done % count
            pictures.save(image, out / f"{label:04d}-{number:03d}.png")
            if label in kept and number < GRID_COLUMNS:
                kept[label].append(image)
            done += 1
    rows = np.stack([np.stack(images) for images in kept.values()])
    pictures.save(pictures.grid(rows, row_labels=[names[c] for c in kept]), out / "grid.png")

    if grown:
        sheet = pictures.grid(
            np.stack(list(grown.values())), row_labels=[names[c] for c in grown], column_labels=columns
        )
        pictures.save(sheet, out / "steps.png")
    print(f"{total} images in {out}; look at {out / 'grid.png'}")


def decode(model: Model, path: str, out: Path, batch_size: int, resize: int) -> None:
    """Writes the images of given contents, scaled to `resize` pixels where not 0.

    Raises:
      UserError: not an .npy of the tokenizer's slots.
    """
    import numpy as np

    from vargen import array_files, inputs, pictures

    tokenizer = model.tokenizer
    slots, expected = inputs.slots(tokenizer)

    def check(dtype, shape) -> None:
        inputs.dtype(dtype, tokenizer, "array")
        if shape[1:] != slots or not shape[0]:
            raise UserError(f"expected an array {expected}, found one of shape {list(shape)}")

    content = np.asarray(
        inputs.content(array_files.read(path, "--codes", check), tokenizer, f"--codes {path}")
    )
    for start in range(0, len(content), batch_size):
        images = common.decoded(
            model, content[start : start + batch_size], min(batch_size, len(content)), resize
        )
        for i, image in enumerate(pictures.to_uint8(images)):
            pictures.save(image, out / f"{start + i:06d}.png")
    print(f"{len(content)} images in {out}")


def read_captions(path: str, condition: CaptionEmbedding) -> tuple[Captions, list[str]]:
    """Captions as a model of text takes them, and names for them.

    Raises:
      UserError: not an .npz with `embedding` and `mask`, or of another shape than the model's.
    """
    from vargen import array_files

    def numbers(dtype, shape) -> None:
        if dtype.kind not in "biuf" or math.prod(shape) > MOST_NUMBERS:
            raise UserError(
                f"expected numbers, at most {MOST_NUMBERS} of them, found {dtype} of shape {list(shape)}"
            )

    def text(dtype, shape) -> None:
        if dtype.kind != "U" or len(shape) > 1:
            raise UserError(f"expected a list of texts, found {dtype} of shape {list(shape)}")

    found = array_files.read_many(path, "--captions", dict(embedding=numbers, mask=numbers, text=text))
    for name in ("embedding", "mask"):
        if name not in found:
            raise UserError(f"--captions {path}: expected an .npz of embedding and mask, found no {name}")
    try:
        captions = condition.parse((found["embedding"], found["mask"]))
    except ValueError as error:
        raise UserError(f"--captions {path}: {error}") from error
    count = len(found["embedding"])
    names = [str(x) for x in found["text"].reshape(-1)] if "text" in found else [str(i) for i in range(count)]
    if len(names) != count:
        raise UserError(
            f"--captions {path}: expected a text for each of {count} embeddings, found {len(names)}"
        )
    return captions, names
