"""`vargen complete`: parts of pictures drawn anew."""

from __future__ import annotations

import argparse
import os
from typing import TYPE_CHECKING, NamedTuple

from vargen.cli import common, flags, masks, reconstruct, sample_files
from vargen.errors import UserError
from vargen.spelling import counted

if TYPE_CHECKING:
    import numpy as np

    from vargen.model import Model

SUMMARY = "draw parts of pictures anew (in- and outpainting)"
DESCRIPTION = """
Keeps a part of each picture and draws the rest anew, writes each as a PNG into a folder that has nothing
else in it, and beside it as a page, DIR.html, and as a picture, DIR_sheet.png, each as it was before, what
is kept, and what came after. Codes inside of what is kept stay, to the bit: those of the picture with the
rest in grey, of which nothing is promised and nothing looked at. Models whose order is random keep any part,
and so do those of levels; where levels add up (VAR, HMAR) what is kept comes out only as near as the
coarsest levels, which lie across it and are drawn, let it. A raster order begins at the top. Models of
levels keep the coarsest, too: the rest is drawn anew. Each picture stays of its class: a held-out one of
the data set's, one of --input of the folder's that has the name of a class; --classes draws it as another's.
"""
EXAMPLES = """\
  vargen complete --workdir models/randar_l --input photo.jpg --keep border --classes 207 --count 8
  vargen complete --workdir models/llamagen_b --input ~/pictures --keep top
  vargen complete --workdir models/arpg_l --input photo.jpg --keep mask.png
  vargen complete --workdir models/flexvar_d24 --input photo.jpg --keep 6
"""
AT_ONCE = 64  # completions of a picture, which are drawn together


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the flags."""
    flags.add_config(parser, required=False, reads=True)
    parser.add_argument(
        "--input", nargs="+", metavar="PATH", help="image files, or folders of them (held-out images)"
    )
    parser.add_argument(
        "--keep",
        required=True,
        metavar="PART",
        help=f"{', '.join(masks.PARTS[:-1])}: that half; border: all but the middle; a picture of the proportions of "
        "--input's, white where these stay (one with transparent parts: opaque where they stay, whatever its colours); "
        "or of models of levels how many of them, the coarsest",
    )
    parser.add_argument(
        "--classes",
        metavar="NAME",
        help="the class of all pictures, by number or name (each its own; where that isn't known, none)",
    )
    parser.add_argument(
        "--count", type=flags.number(int, 1, AT_ONCE), default=4, metavar="N", help="completions of each (4)"
    )
    parser.add_argument(
        "--pictures", type=flags.number(int, 1, 10**4), default=8, metavar="N", help="pictures at most (8)"
    )
    parser.add_argument("--out", metavar="DIR", help="where to write (WORKDIR/completions)")
    flags.add_overwrite(parser)
    flags.add_sampling(parser)


def run(args: argparse.Namespace) -> None:
    """Completes and writes the pictures."""
    import jax
    import numpy as np

    from vargen import data, progress, seeds
    from vargen.report import completions as completions_page
    from vargen.report import pictures

    folder = sample_files.folder(common.out_directory(args, "completions"), ["sheet"], args.overwrite)
    page = folder.sheets["sheet"].with_name(f"{folder.sheets['sheet'].name.removesuffix('_sheet.png')}.html")
    model = common.load_model(args)
    common.preset(model.config, args.preset)
    if model.needs_generator().condition.takes != "classes":
        raise UserError(f"complete: expected a model of classes, found {model.config.name}, of captions")
    common.check_size(model)
    common.check_pictures(model, "complete")
    options = flags.sampling_options(args)
    model.sampling(**options)
    originals, labels, shapes = chosen(args, model)
    kept = masks.read(args.keep, model.tokenizer.image_size, shapes)
    stays, _, _ = model.kept(kept, f"--keep {args.keep}", **options)
    floats = data.to_float(originals)

    def draw(i: int):
        """The completions of one picture, each by a seed of its own."""
        images = np.repeat(floats[i : i + 1], args.count, axis=0)
        key = jax.random.fold_in(seeds.key(args.seed or 0), i)
        drawn = model.complete(images, kept, [labels[i]] * args.count, key, **options)
        return pictures.to_uint8(np.asarray(drawn))

    made_by = sample_files.common_settings(model, args.workdir, completed=len(originals), keep=args.keep)
    rows = []
    for i in progress.each(range(len(originals)), len(originals), "completing", size=lambda _: 1):
        completions = draw(i)
        if not i:
            folder.clear()
        for number, image in enumerate(completions):
            label = labels[i]
            own = {"picture": i, "completion": number}
            own["class"] = None if label is None else model.classes[label]
            pictures.save(image, folder.out / f"{i:04d}-{number:03d}.png", made_by | own)
        shown = np.where(stays[..., None], originals[i], 127).astype(np.uint8)
        name = f"{i:04d}" + (f", {own['class']}" if own["class"] is not None else "")
        rows.append((name, np.stack([originals[i], shown, *completions[:8]])))
    sheet = pictures.grid(
        np.stack([images for _, images in rows[:20]]),
        column_labels=["before", "kept", *["after"] * min(args.count, 8)],
    )
    pictures.save(sheet, folder.sheets["sheet"], made_by)
    given = {k: v for k, v in options.items() if v is not None}
    lead = (
        "Grey in the second of each row is what is drawn." if np.ndim(kept) else f"Levels that stay: {kept}."
    )
    completions_page.write(page, f"{model.config.name}: completions", lead, rows[:20], made_by | given)
    done = counted(args.count * len(originals), "completion")
    print(f"{done} of {counted(len(originals), 'picture')} in {folder.out}; look at {page}")


class Chosen(NamedTuple):
    """What is drawn anew in part.

    Attributes:
      images: uint8 [M, S, S, C].
      labels: the number of each one's class: that of --classes, else its own, else None.
      shapes: by the pictures' names, height and width of each, as it was before it was cut.
    """

    images: np.ndarray
    labels: list[int | None]
    shapes: dict[str, tuple[int, int]]


def chosen(args: argparse.Namespace, model: Model) -> Chosen:
    """The pictures of --input, or held-out ones.

    Raises:
      UserError: no such class or picture; a class that isn't known, of a model that has learnt none without.
    """
    from vargen import classes, data, paths, spelling
    from vargen.data import image_file

    label = None
    if args.classes is not None:
        wanted = classes.parse(paths.text(args.classes), model.classes)
        if len(wanted) != 1:
            raise UserError(f"--classes: expected one class for all pictures, found {len(wanted)}")
        label = wanted[0]
    if args.input:
        images, files = reconstruct.read_images(args.input, args.pictures, model.config.data)
        folders = [*files.values()]
        shapes = {paths.text(os.fspath(file)): image_file.size_of(file) for file in files}
    else:
        source = data.load(model.config.data, "test")
        images, theirs = data.arrays(source, args.pictures)
        shapes = {"the held-out pictures": images.shape[1:3]}
        # Without names numbers are the same, as in evaluation.
        alike = classes.stored(args.workdir) is None and len(source.classes) == len(model.classes)
        names = model.classes if alike else source.classes
        folders = [[names[i]] for i in theirs]
    if label is not None:
        return Chosen(images, [label] * len(images), shapes)
    places = [spelling.places(names, model.classes) for names in folders]
    found = [next((place for place in some if place >= 0), None) for some in places]
    if None in found:
        try:
            model.needs_generator().condition.parse([None])
        except UserError as error:
            raise UserError(
                f"--classes: expected the class of picture {found.index(None)}, which isn't known, as "
                f"{model.config.name} has learnt no pictures without a class; found none"
            ) from error
    return Chosen(images, found, shapes)
