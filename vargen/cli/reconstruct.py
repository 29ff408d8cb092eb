"""`vargen reconstruct`: images through the tokenizer and back."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from vargen.cli import common, flags, sample_files
from vargen.errors import UserError
from vargen.spelling import counted

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np

    from vargen.model import Model
    from vargen.paths import Path

SUMMARY = "put images through the tokenizer and back"
DESCRIPTION = """
Encodes images, decodes them again, writes each as a PNG into a folder that has nothing else in it, originals
above reconstructions beside it as DIR_sheet.png, and prints how close they are. Takes the held-out images of
the data set, or yours.

Pictures are scaled and cut to the square that the model was trained on. With --whole they keep their size,
whose sides the downsampling must divide (encoders of convolutions take any). With --tile N they go through in
overlapping tiles of N pixels, blended where they meet, as memory or an encoder of one size asks.
"""
EXAMPLES = """\
  vargen reconstruct --workdir runs/quickstart
  vargen reconstruct --workdir runs/quickstart --input photo.jpg ~/pictures --out runs/pictures
  vargen reconstruct --workdir runs/mine --input panorama.png --tile 256
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
    parser.add_argument(
        "--whole", action="store_true", help="pictures at their own size, not cut to the model's"
    )
    parser.add_argument(
        "--tile",
        type=flags.number(int, 1, 65_535),
        metavar="N",
        help="pictures at their own size, in overlapping tiles of N pixels",
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
    if args.input or args.whole or args.tile:
        common.check_pictures(model, "--input" if args.input else "--tile" if args.tile else "--whole")
    if args.whole or args.tile:
        _whole(args, model, folder)
        return
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
    print(f"{counted(len(originals), 'image')}, PSNR {psnr:.2f} dB; see {folder.sheets['sheet']}")


def _whole(args: argparse.Namespace, model: Model, folder: sample_files.Folder) -> None:
    """Pictures at their own sizes, each by itself."""
    import numpy as np

    from vargen import data, tiles
    from vargen.data import image_file
    from vargen.evaluation import metrics
    from vargen.report import pictures

    if not args.input:
        option = "--tile" if args.tile else "--whole"
        raise UserError(
            f"{option}: expected --input beside it, whose pictures have sizes of their own, found none"
        )
    files = list(listed(args.input))[: args.count]
    originals = [image_file.read_image(file, model.config.data.channels) for file in files]
    through = {
        image.shape[:2]: _at(model, image.shape[:2], args.tile, file) for file, image in zip(files, originals)
    }
    made_by = sample_files.common_settings(model, args.workdir, reconstructed=len(originals))
    decoded, psnr, shown = [], [], []
    for image in originals:
        floats = data.to_float(image[None])
        found = np.asarray(through[image.shape[:2]](floats))
        decoded.append(pictures.to_uint8(found[0]))
        psnr.append(metrics.psnr(floats, found)[0])
        if args.tile:
            shown.append(tiles.seams(floats[0], found[0], (args.tile,) * 2))
    folder.clear()
    for i, image in enumerate(decoded):
        pictures.save(image, folder.out / f"{i:04d}.png", made_by | dict(row=i))
    most = np.max([image.shape[:2] for image in originals], axis=0)
    pictures.save(beside(canvases(originals, most), canvases(decoded, most)), folder.sheets["sheet"], made_by)
    seen = f", seams {np.mean(shown):.2f} (1: errors jump no more where tiles meet)" if shown else ""
    print(
        f"{counted(len(originals), 'image')}, PSNR {float(np.mean(psnr)):.2f} dB{seen}; see {folder.sheets['sheet']}"
    )


def _at(
    model: Model, size: tuple[int, int], tile: int | None, file: Path
) -> Callable[[np.ndarray], np.ndarray]:
    """What puts images of a size through the model, whole or in tiles.

    Raises:
      UserError: it can't, naming the file that has the size; or tiles that the model can't take.
    """
    if tile is None:
        try:
            return model.sized(*size).reconstruct
        except UserError as error:
            raise UserError(f"{file}: {str(error).removeprefix('images: ')}") from error
    if min(size) < tile:
        raise UserError(f"{file}: expected sides of at least --tile {tile} pixels, found {size[0]}x{size[1]}")
    try:
        return model.sized(tile, tile).tiled
    except UserError as error:
        raise UserError(f"--tile: {str(error).removeprefix('images: ')}") from error


def canvases(images: list[np.ndarray], size: np.ndarray) -> np.ndarray:
    """uint8 [M, *size, C]: pictures of any sizes on white."""
    import numpy as np

    return np.stack(
        [
            np.pad(x, [*((0, s - n) for s, n in zip(size, x.shape)), (0, 0)], constant_values=255)
            for x in images
        ]
    )


def beside(originals: np.ndarray, decoded: np.ndarray, columns: int = 8):
    """Originals [M, H, W, C], or clips, in rows, each row followed by its reconstructions, as one picture (PIL)."""
    import numpy as np

    from vargen.report import pictures

    columns = min(columns, len(originals))
    rows = []
    for start in range(0, len(originals), columns):
        for images in (originals, decoded):
            row = images[start : start + columns]
            blank = [(0, columns - len(row)), *[(0, 0)] * (row.ndim - 1)]
            rows.append(np.pad(row, blank, constant_values=255))
    return pictures.grid(np.stack(rows), row_labels=["original", "decoded"] * (len(rows) // 2))


def read_images(names: list[str], most: int, settings) -> tuple[np.ndarray, dict[Path, list[str]]]:
    """The first `most` images of files and folders, in natural order within each.

    Returns:
      uint8 [M, S, S, C]; and by the file of each the names of the folders that it lies in, the nearest first, up to the
      one that was named.

    Raises:
      UserError: nothing there, or a broken image.
    """
    import numpy as np

    from vargen.data import image_file, transforms

    files = listed(names)
    size, chosen = settings.image_size, list(files)[:most]
    images = (image_file.read_image(file, settings.channels, size) for file in chosen)
    return np.stack([transforms.fit(image, size) for image in images]), {file: files[file] for file in chosen}


def listed(names: list[str]) -> dict[Path, list[str]]:
    """The picture files that files and folders stand for, in natural order within each; and of each, its folders.

    Raises:
      UserError: nothing there.
    """
    from vargen import paths
    from vargen.data import listing

    files: dict[Path, list[str]] = {}
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
    return files
