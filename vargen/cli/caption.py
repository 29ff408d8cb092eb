"""`vargen caption`: pictures in words, by a model that writes both."""

from __future__ import annotations

import argparse

from vargen.cli import common, flags, reconstruct

SUMMARY = "say in words what pictures show"
DESCRIPTION = """
Says what each picture shows, a line each, by a model of words and pictures in one sequence. Takes the
held-out images of the data set, beside whose own captions it puts the model's, or yours.
"""
EXAMPLES = """\
  vargen caption --workdir runs/orthus
  vargen caption --workdir runs/orthus --input picture.png ~/pictures
"""
BATCH = 64


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the flags."""
    flags.add_config(parser, required=False, reads=True)
    flags.add_weights(parser)
    parser.add_argument(
        "--input", nargs="+", metavar="PATH", help="image files, or folders of them (the held-out images)"
    )
    parser.add_argument(
        "--count",
        type=flags.number(int, 1, 10**6),
        default=32,
        metavar="N",
        help="how many images at most (32)",
    )


def run(args: argparse.Namespace) -> None:
    """Prints the captions."""
    from vargen import data

    model = common.load_model(args)
    model.needs_words()
    common.check_size(model)
    theirs: list[str] | None = None
    if args.input:
        images, _ = reconstruct.read_images(args.input, args.count, model.config.data)
    else:
        source = data.load(model.config.data, "test")
        images, _ = data.arrays(source, args.count)
        if source.captions is not None:
            theirs = [source.captions[i] for i in data.evenly(source, args.count)]
    for i, text in enumerate(common.described(model, data.to_float(images), BATCH)):
        beside = "" if theirs is None else f"  (its caption: {theirs[i]})"
        print(f"{i:04d}  {text}{beside}")
