"""`vargen sample`: pictures from a trained model."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from vargen.cli import caption_files, common, flags, sample_files
from vargen.errors import UserError
from vargen.spelling import counted

if TYPE_CHECKING:
    import numpy as np

    from vargen.model import Model
    from vargen.paths import Path

SUMMARY = "draw images from a trained or imported model"
DESCRIPTION = """
Draws images of the classes (or captions) asked for and writes each as a PNG into a folder that has
nothing else in it, and next to it the file that it was decoded from, where codes are bytes of files.
Clips are animated PNGs, on sheets their frames lie side by side.
Beside the folder lie DIR_grid.png, a choice of them, and DIR_steps.png, how the first ones of some classes
came about, step by step. Every PNG carries its settings: --like PICTURE draws it again. --fid-samples
writes one file for evaluators of FID instead, on all devices, the same file on any number of them; a run that
was stopped goes on with the same command.
"""
EXAMPLES = """\
  vargen sample --workdir runs/quickstart
  vargen sample --workdir runs/quickstart --classes 3,5-7 --count 16 --guidance 2 --seed 1
  vargen sample --workdir models/var_d16 --preset paper --out samples
  vargen sample --workdir models/var_d16 --preset paper --fid-samples 50000 --out samples.npz
  vargen sample --workdir models/llamagen_text --captions captions.npz
  vargen sample --workdir runs/orthus --captions "a red circle at the top left"
  vargen sample --workdir models/var_d16 --codes tokens.npy
  vargen sample --like samples/7-003.png --guidance 3 --out other
  vargen sample --workdir hf://OWNER/REPO --out samples
"""
# What fits on a sheet.
GRID_ROWS, GRID_COLUMNS, STEPS_ROWS = 20, 16, 8
MANY_CLASSES = 100
BATCH = 64  # images drawn at once
MOST = 10**7  # images of one call


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the flags."""
    flags.add_config(parser, required=False, workdir=False, reads=True)
    parser.add_argument("--classes", metavar="LIST", help="numbers, ranges or names: 0,3-5,cat (every class)")
    parser.add_argument(
        "--captions",
        metavar="TEXT",
        help="for models of words: a caption, a file.txt of one a line, or a file.npy of their numbers; for those of a "
        "text encoder: a file.npz of its states, `embedding` [B, T, E], and `mask` [B, T]",
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
    parser.add_argument(
        "--fid-samples",
        type=flags.number(int, 1, MOST),
        metavar="N",
        help="write N images and their classes to --out FILE.npz in ADM's form; of all classes alike, or as "
        "the preset says",
    )
    parser.add_argument(
        "--like",
        metavar="PICTURE",
        help="draw the picture of a PNG again, by the settings inside it; sampling flags replace some. Its model is "
        "looked for where it was and in the folders above the picture, or --workdir says where it is",
    )
    parser.add_argument(
        "--out",
        metavar="DIR",
        help="where to write (WORKDIR/samples; WORKDIR/like for --like); FILE.npz of --fid-samples",
    )
    flags.add_overwrite(parser)
    parser.add_argument(
        "--batch-size",
        type=flags.number(int, 1, 10**6),
        metavar="B",
        help="images drawn at once (64)",
    )
    flags.add_sampling(parser)
    flags.add_cluster(parser)


def run(args: argparse.Namespace) -> None:
    """Draws and writes the images."""
    if args.fid_samples is not None:
        with flags.cluster(args):
            _draw_for_fid(args)
        return
    if args.coordinator or args.num_processes or args.distributed:
        raise UserError("sample: expected --fid-samples where there are several processes, found none")
    again = None
    if args.like is not None:
        for flag in ("classes", "captions", "codes", "count", "seed", "batch_size", "preset"):
            if getattr(args, flag) not in (None, ""):
                raise UserError(f"sample: expected --like or --{flag.replace('_', '-')}, found both")
        again = sample_files.like(args.like)
        if args.workdir is None:
            args.workdir = sample_files.model_of(args.like, again["workdir"])
        args.weights = args.weights or again["weights"]
        levels = again["sampling"].pop("levels", ())
        args.levels = levels or None if args.levels is None else args.levels
        tokens = again["sampling"].pop("tokens", 0)
        args.tokens = tokens if args.tokens is None else args.tokens
    if args.workdir is None:
        raise UserError("sample: expected --workdir, or --like with a picture, found neither")
    out = common.out_directory(args, "samples" if again is None else "like")
    folder = sample_files.folder(out, ("grid", "steps"), args.overwrite)
    model = common.load_model(args)
    preset = common.preset(model.config, args.preset)
    if again is not None:
        draw_again(model, args, folder, again)
    elif args.codes is not None:
        for flag, found in (
            ("--classes", args.classes),
            ("--captions", args.captions),
            ("--count", args.count),
        ):
            if found is not None:
                raise UserError(f"sample: expected --codes or {flag}, found both")
        decode(model, args, folder, preset["resize"])
    else:
        draw(model, args, folder, args.count or preset["count"] or 8, preset["resize"])


def _draw_for_fid(args: argparse.Namespace) -> None:
    from vargen.cli import fid_samples

    if args.workdir is None:
        raise UserError("sample: expected --workdir for --fid-samples, found none")
    out = fid_samples.check(args)
    model = common.load_model(args)
    fid_samples.run(model, args, common.preset(model.config, args.preset), out)


def draw(
    model: Model, args: argparse.Namespace, folder: sample_files.Folder, count: int, resize: int
) -> None:
    """Draws `count` images of each class or caption into a folder, scaled to `resize` pixels where not 0."""
    import jax
    import numpy as np

    from vargen import classes, paths, progress
    from vargen.report import pictures

    names = model.classes
    condition = model.needs_generator().condition
    of_text = condition.takes != "classes"
    if of_text != (args.captions is not None):
        expected, found = ("--captions", "none") if of_text else ("--classes", "--captions")
        raise UserError(f"{model.config.name}: expected {expected}, found {found}")
    if args.captions is not None:
        if args.classes is not None:
            raise UserError("sample: expected --captions or --classes, found both")
        read = caption_files.read_texts if condition.takes == "texts" else caption_files.read_captions
        captions, names = read(args.captions, condition)
        wanted = list(range(len(names)))
    else:
        if not args.classes and len(names) > MANY_CLASSES and not args.preset:
            raise UserError(
                f"classes: the model has {len(names)}, expected --classes (all of them: all), found none"
            )
        wanted = list(dict.fromkeys(classes.parse(paths.text(args.classes or ""), names)))
    if (total := len(wanted) * count) > MOST:
        raise UserError(f"--count: expected at most {MOST} images in all, found {len(wanted)} x {count}")
    if args.captions is None:
        labels = np.repeat(np.asarray(wanted, np.int32), count)
    else:
        labels = jax.tree.map(lambda x: np.repeat(x, count, axis=0), captions)
    options = flags.sampling_options(args)
    columns = common.step_names(model, steps=args.steps)
    batch_size = min(args.batch_size or BATCH, total)
    made_by = sample_files.common_settings(
        model,
        args.workdir,
        labels=sample_files.ranges(wanted),
        count=count,
        batch_size=batch_size,
        seed=args.seed or 0,
        resize=resize,
        sampling=_resolved(model, options),
    )

    grown: dict[int, Any] = {}
    files: list[bytes] = []  # of the batch that is written

    def keep(content, order):
        files[:] = model.files(content)
        if len(columns) > 1 and not grown:
            grow(content, order)

    def grow(content, order):
        """The first image of each class in the first batch; one large image takes as long as many small ones."""
        most = max(1, STEPS_ROWS * 64 // max(model.config.data.image_size, 64))
        chosen = np.arange(0, batch_size, count)[:most]
        steps = np.asarray(model.growth(content, order, chosen=chosen), np.float32)
        grown.update(zip((wanted[i // count] for i in chosen), steps.swapaxes(0, 1)))

    drawn = common.sample_batches(model, labels, args.seed or 0, batch_size, resize, keep, **options)
    kept: dict[int, list] = {c: [] for c in wanted[:GRID_ROWS]}
    done = 0
    stems = sample_files.stems({c: names[c] for c in wanted})
    for images in progress.each(drawn, total, "sampling"):
        if not done:
            folder.clear()
        for row, image in enumerate(pictures.to_uint8(images)):
            label, number = wanted[done // count], done % count
            own = {"class": names[label], "index": done}
            where = folder.out / file_name(stems[label], number, count)
            save(model, image, where, made_by | own, files[row : row + 1])
            if label in kept and number < GRID_COLUMNS:
                kept[label].append(image)
            done += 1
    rows = np.stack([np.stack(images) for images in kept.values()])
    labels_shown = [names[c] for c in kept]
    sheet_made_by = {k: v for k, v in made_by.items() if k != "count"} | {"classes": labels_shown}
    pictures.save(pictures.grid(rows, row_labels=labels_shown), folder.sheets["grid"], sheet_made_by)

    if grown:
        sheet = pictures.grid(
            np.stack(list(grown.values())), row_labels=[names[c] for c in grown], column_labels=columns
        )
        pictures.save(sheet, folder.sheets["steps"], sheet_made_by)
    for mark, name in pictures.undrawable(labels_shown).items():
        print(f"row {mark} of the sheets is {name}: no font here has its letters")
    print(f"{counted(total, 'image')} in {folder.out}; look at {folder.sheets['grid']}")


def save(
    model: Model, image: np.ndarray, where: Path, made_by: dict[str, Any], files: Sequence[bytes]
) -> None:
    """Writes a picture, and beside it the file that it was decoded from: `files` is one of `Model.files`, or empty."""
    from vargen import paths
    from vargen.report import pictures

    pictures.save(image, where, made_by)
    for file in files:
        paths.write_bytes(where.with_suffix(model.tokenizer.suffix), file)


def file_name(stem: str, number: int, count: int) -> str:
    """The name of picture `number` of the `count` of a class: `cat-003.png`."""
    return f"{stem}-{number:0{max(3, len(str(count - 1)))}d}.png"


def draw_again(
    model: Model, args: argparse.Namespace, folder: sample_files.Folder, again: dict[str, Any]
) -> None:
    """Draws the one picture that `again` describes (see `sample_files.like`), with the flags' sampling settings.

    Raises:
      UserError: another kind of model, or one without its class.
    """
    import numpy as np

    from vargen.report import pictures

    if model.needs_generator().condition.takes != "classes":
        raise UserError(f"--like {args.like}: expected a model of classes, found {model.config.name}")
    wanted, count, index = again["labels"], again["count"], again["index"]
    if max(wanted) >= len(model.classes):
        raise UserError(
            f"--like {args.like}: expected a model of at least {max(wanted) + 1} classes, found {len(model.classes)}"
        )
    if (again["model"], again["steps"]) != (model.config.name, tuple(model.steps)):
        print(
            f"the picture was drawn by {again['model']} after {again['steps']} steps; this is "
            f"{model.config.name} after {tuple(model.steps)}: another picture",
            flush=True,
        )
    options = {
        **again["sampling"],
        **{k: v for k, v in flags.sampling_options(args).items() if v is not None},
    }
    labels = np.repeat(np.asarray(wanted, np.int32), count)
    # The randomness of a batch is drawn at once: the others of its batch are drawn too.
    first = index - index % again["batch_size"]
    files: list[bytes] = []

    def keep(content, order):
        files[:] = model.files(content[index - first :][:1])

    drawn = common.sample_batches(
        model, labels, again["seed"], again["batch_size"], again["resize"], keep, first, **options
    )
    image = pictures.to_uint8(next(drawn))[index - first]
    label, number = wanted[index // count], index % count
    stem = sample_files.stems({c: model.classes[c] for c in wanted})[label]
    own = {k: again[k] for k in ("count", "batch_size", "seed", "resize", "index")}
    made_by = sample_files.common_settings(
        model,
        args.workdir,
        labels=sample_files.ranges(wanted),
        sampling=_resolved(model, options),
        **own,
        **{"class": model.classes[label]},
    )
    folder.clear()
    where = folder.out / file_name(stem, number, count)
    save(model, image, where, made_by, files)
    print(f"drawn again: {where}")


def _resolved(model: Model, options: dict[str, Any]) -> dict[str, Any]:
    """All sampling settings, those of the config where an option is None."""
    given = {k: v for k, v in options.items() if v is not None}
    return {**model.config.sampling.to_dict(), **given}


def decode(model: Model, args: argparse.Namespace, folder: sample_files.Folder, resize: int) -> None:
    """Writes the images of given contents, scaled to `resize` pixels where not 0.

    Raises:
      UserError: not an .npy of the tokenizer's slots.
    """
    import numpy as np

    from vargen import inputs
    from vargen.cli import array_files
    from vargen.report import pictures

    tokenizer = model.tokenizer
    slots, expected = inputs.slots(tokenizer)

    def check(dtype, shape) -> None:
        inputs.dtype(dtype, tokenizer, "array")
        if shape[1:] != slots or not shape[0]:
            raise UserError(f"expected an array {expected}, found one of shape {list(shape)}")

    path, out, batch_size = args.codes, folder.out, args.batch_size or BATCH
    content = np.asarray(
        inputs.content(array_files.read(path, "--codes", check), tokenizer, f"--codes {path}")
    )
    made_by = sample_files.common_settings(model, args.workdir, codes=str(path))
    folder.clear()
    for start in range(0, len(content), batch_size):
        some = content[start : start + batch_size]
        images = common.decoded(model, some, min(batch_size, len(content)), resize)
        files = model.files(some)
        for i, image in enumerate(pictures.to_uint8(images)):
            own = made_by | dict(row=start + i)
            save(model, image, out / f"{start + i:06d}.png", own, files[i : i + 1])
    print(f"{counted(len(content), 'image')} in {out}")
