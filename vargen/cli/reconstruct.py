"""`vargen reconstruct`: images through the tokenizer and back."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from vargen.cli import common, flags, sample_files

if TYPE_CHECKING:
    import numpy as np

SUMMARY = "put images through the tokenizer and back"
DESCRIPTION = """
Encodes images, decodes them again, writes each as a PNG into a folder that has nothing else in it, originals
above reconstructions beside it as DIR_sheet.png, and prints how close they are. Takes the held-out images of
the data set, or yours.
"""
EXAMPLES = """\
  vargen reconstruct --workdir runs/quickstart
  vargen reconstruct --workdir runs/quickstart --input photo.jpg ~/pictures --out runs/pictures
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the flags."""
    flags.add_config(parser, required=False, reads=True)
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
    parser.add_argument("--out", metavar="DIR", help="where to write (WORKDIR/reconstructions)")
    flags.add_overwrite(parser)


def run(args: argparse.Namespace) -> None:
    """Reconstructs and writes the images."""
    import numpy as np

    from vargen import data
    from vargen.evaluation import metrics
    from vargen.report import pictures

    folder = sample_files.folder(common.out_directory(args, "reconstructions"), ["sheet"], args.overwrite)
    model = common.load_model(args)
    common.check_size(model)
    if args.input:
        originals, _ = read_images(args.input, args.count, model.config.data)
    else:
        originals, _ = data.arrays(data.load(model.config.data, "test"), args.count)
    floats = data.to_float(originals)
    decoded = data.in_batches(model.reconstruct, floats, 64)
    made_by = sample_files.common_settings(model, args.workdir, reconstructed=len(originals))
    folder.clear()
    for i, image in enumerate(decoded):
        pictures.save(image, folder.out / f"{i:04d}.png", made_by | dict(row=i))
    pictures.save(beside(originals, pictures.to_uint8(decoded)), folder.sheets["sheet"], made_by)
    psnr = float(np.mean(metrics.psnr(floats, decoded)))
    print(f"{len(originals)} images, PSNR {psnr:.2f} dB; see {folder.sheets['sheet']}")


def beside(originals: np.ndarray, decoded: np.ndarray, columns: int = 8):
    """Originals [M, H, W, C] in rows, each row followed by its reconstructions, as one picture (PIL)."""
    import numpy as np

    from vargen.report import pictures

    columns = min(columns, len(originals))
    rows = []
    for start in range(0, len(originals), columns):
        for images in (originals, decoded):
            row = images[start : start + columns]
            blank = [(0, columns - len(row)), (0, 0), (0, 0), (0, 0)]
            rows.append(np.pad(row, blank, constant_values=255))
    return pictures.grid(np.stack(rows), row_labels=["original", "decoded"] * (len(rows) // 2))


def read_images(names: list[str], most: int, settings) -> tuple[np.ndarray, list[list[str]]]:
    """The first `most` images of files and folders, in natural order within each.

    Returns:
      uint8 [M, S, S, C]; and of each the names of the folders that it lies in, the nearest first, up to the one that
      was named.

    Raises:
      UserError: nothing there, or a broken image.
    """
    import numpy as np

    from vargen import paths
    from vargen.data import image_file, listing, transforms

    files: dict[paths.Path, list[str]] = {}
    for path in (paths.path(p, "--input") for p in names):
        passed_over = listing.PassedOver()
        inside = listing.pictures_in(path, passed_over) if path.is_dir() else [path]
        if not inside:
            raise listing.no_pictures(path, passed_over)
        passed_over.say(path)
        named = paths.absolute(path)
        for file in inside:
            below = () if file == path else file.relative_to(path).parts[:-1]
            nearest = named.parent.name if file == path else named.name
            files.setdefault(file, [paths.text(name) for name in (*below[::-1], nearest)])
    size, chosen = settings.image_size, list(files)[:most]
    images = (image_file.read_image(file, settings.channels, size) for file in chosen)
    return np.stack([transforms.fit(image, size) for image in images]), [files[file] for file in chosen]
