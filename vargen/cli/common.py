"""What the commands share: where the config and the model come from, names of classes, batched sampling."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from vargen.errors import UserError

if TYPE_CHECKING:
    import numpy as np
    from ml_collections import ConfigDict

    from vargen.data import Source, Sources
    from vargen.model import Model
    from vargen.paths import Path, PathLike

FEWEST = 4  # held-out images


def read_config(args: argparse.Namespace) -> ConfigDict:
    """The config that the flags name: the file of --config, else the workdir's own; then the overrides.

    Raises:
      UserError: there is neither, or an override does not fit.
    """
    from vargen import config, hub, paths

    if args.config is not None:
        paths.path(args.config, "--config")
        if args.workdir is not None:
            paths.path(args.workdir, "--workdir")
        return config.load(args.config, args.overrides)
    inside = hub.config_file(args.workdir, "--workdir")
    if paths.is_file(inside):
        return config.load(inside, args.overrides)
    raise UserError(f"{args.workdir}: expected --config, or a workdir with its config.json, found neither")


def trained_workdir(args: argparse.Namespace) -> Path:
    """The directory that --workdir names; one on the hub is fetched, and `args` has its commit from then on.

    Raises:
      UserError: there is none.
    """
    from vargen import hub

    args.workdir = hub.pin({"--workdir": args.workdir})["--workdir"]
    workdir = hub.directory(args.workdir, "--workdir")
    if not workdir.is_dir():
        raise UserError(
            f"workdir {args.workdir}: expected a directory of `vargen train` or `import`, found none"
        )
    return workdir


def load_model(args: argparse.Namespace) -> Model:
    """The model of the workdir; the preset, then overrides, may change what is not baked into its parameters.

    Raises:
      UserError: no checkpoint there, or a preset or an override does not fit.
    """
    import vargen
    from vargen import config
    from vargen.cli import preflight
    from vargen.samplers import Sampling

    workdir = trained_workdir(args)
    for field, _ in args.overrides:
        if field.split(".")[0] not in ("sampling", "evaluation", "data", "compute_dtype"):
            raise UserError(
                f"config field {field}: fixed by training, expected sampling, evaluation, data or compute_dtype"
            )
    given = None if args.config is None else config.load(args.config)
    model = vargen.load(workdir, weights=getattr(args, "weights", None) or "full")
    trained = model.config
    asked = trained.copy_and_resolve_references()
    for group in ("sampling", "presets", "evaluation", "data") if given is not None else ():
        asked[group] = given[group]
    if name := getattr(args, "preset", ""):
        asked.sampling.update(preset(asked, name)["sampling"])
    asked = config.override(asked, args.overrides)
    for name in ("levels", "tokens"):
        if (value := getattr(args, name, None)) is not None:
            with asked.sampling.unlocked():
                asked.sampling[name] = value
    preflight.check_fields(asked)
    for field in ("image_size", "frames", "channels"):
        if asked.data[field] != trained.data[field]:
            raise UserError(
                f"config field data.{field}: the model was trained with {trained.data[field]}, "
                f"found {asked.data[field]}"
            )
    if (levels := asked.sampling.get("levels", ())) != trained.sampling.get("levels", ()):
        model = model.over(levels)
    model = model.first(asked.sampling.get("tokens", 0))
    if model.generator is not None:
        preflight.check_sampling(model.generator, Sampling.make(**asked.sampling))
    if asked.compute_dtype != trained.compute_dtype:
        # Built as it was trained: data may have been replaced by other data.
        model = model.with_config(config.override(model.config, [("compute_dtype", asked.compute_dtype)]))
    model.config = asked
    return model


def out_directory(args: argparse.Namespace, folder: str = "") -> Path:
    """The directory that --out names, not made yet, or `folder` in the workdir.

    Raises:
      UserError: a file is there, or nothing can be written in the workdir, which is on the hub.
      OSError: it cannot be made, or takes no files.
    """
    from vargen import hub, paths

    if args.out is None and hub.is_hub(args.workdir):
        raise UserError(
            f"--out: expected a directory, since nothing is written to {args.workdir}, found none"
        )
    found = trained_workdir(args) / folder if args.out is None else paths.path(args.out, "--out")
    if found.exists() and not found.is_dir():
        raise UserError(f"--out {found}: expected a directory, or nothing, found a file")
    paths.check_directory(found)
    return found


def check_size(model: Model) -> None:
    """Checks that the model's pictures are as large as the data's.

    Raises:
      UserError: `sampling.levels` make them others.
    """
    size, (*_, height, width) = model.config.data.image_size, model.tokenizer.image_size
    if (height, width) != (size, size):
        raise UserError(
            f"sampling.levels: expected those of the data's pictures, {size}x{size} pixels, found ones of "
            f"{height}x{width}"
        )


def check_pictures(model: Model, flag: str) -> None:
    """Raises UserError where the model is one of clips, which what a flag asks for can't do."""
    if len(model.tokenizer.image_size) > 2:
        raise UserError(f"{flag}: expected a model of pictures, found {model.config.name}, of clips")


def preset(config: ConfigDict, name: str) -> Mapping[str, Any]:
    """The fields of a preset (`schema.Preset`); their defaults, and no `sampling`, without a name.

    Raises:
      UserError: the config has no such preset.
    """
    presets = config.get("presets", {})
    if name and name not in presets:
        known = ", ".join(sorted(presets)) or "none (the config has no presets)"
        raise UserError(f"--preset: expected one of {known}, found {name!r}")
    given = presets[name] if name else dict(sampling={})
    return dict(count=0, resize=0, labels="balanced", rounding="nearest") | dict(given.items())


def sample_batches(
    model: Model,
    labels: Any,
    seed: int,
    batch_size: int,
    resize: int = 0,
    on_content: Callable[[Any, Any], None] | None = None,
    first: int = 0,
    **options: Any,
) -> Iterator[np.ndarray]:
    """Draws samples for labels in batches of one shape, so that all run the same compiled program.

    Args:
      model: the model.
      labels: int [M], or captions of M.
      seed: with a batch's place, the key of its samples.
      batch_size: samples drawn at once.
      resize: side in pixels to which samples are scaled (bicubic, as the authors that do it); 0: not.
      on_content: called with each batch's contents and order, as `Model.generate` gives them; the last batch is filled
        up with its last sample.
      first: the sample to begin with, a multiple of `batch_size`.
      **options: of `Model.generate`.

    Returns:
      float32 [b, H, W, C] in [-1, 1], in the order of `labels`; the last may be short.

    Raises:
      UserError: options that the model can't take, before anything is drawn.
    """
    import jax

    from vargen import seeds

    model.sampling(**options)
    count = len(jax.tree.leaves(labels)[0])
    batch_size = min(batch_size, count)

    def draw(start: int) -> np.ndarray:
        some = jax.tree.map(lambda x: x[start : start + batch_size], labels)
        key = jax.random.fold_in(seeds.key(seed), start)
        content, order = model.generate(_padded(some, batch_size), key, **options)
        if on_content:
            on_content(content, order)
        return decoded(model, content, batch_size, resize)[: count - start]

    return map(draw, range(first, count, batch_size))


def decoded(model: Model, content: Any, batch_size: int, resize: int = 0) -> np.ndarray:
    """Images of at most `batch_size` contents, float32 [b, H, W, C] in [-1, 1], or clips [b, T, H, W, C]; of `resize`
    pixels where not 0."""
    import numpy as np

    from vargen.clips import as_pictures
    from vargen.tokenizers import resample

    images = model.decode(_padded(content, batch_size))
    if resize:
        frames = resample.bicubic(as_pictures(images), (resize, resize))
        images = frames.reshape(*images.shape[:-3], *frames.shape[1:])
    return np.clip(np.asarray(images, np.float32)[: len(content)], -1, 1)


def described(model: Model, images: np.ndarray, batch_size: int) -> list[str]:
    """`Model.describe` of images float32 [M, H, W, C], in batches of one shape."""
    batch_size = min(batch_size, len(images))
    found: list[str] = []
    for start in range(0, len(images), batch_size):
        some = images[start : start + batch_size]
        found += model.describe(_padded(some, batch_size))[: len(some)]
    return found


def sample_steps(model: Model, labels: Sequence[int], seed: int, batch_size: int) -> np.ndarray:
    """`Model.growth` for few labels, drawn in a batch of a size that is compiled: float32 [P, B, H, W, C]."""
    import numpy as np

    from vargen import seeds

    labels = np.asarray(labels, np.int32)[:batch_size]
    content, order = model.generate(_padded(labels, batch_size), seeds.key(seed))
    steps = model.growth(content, order, chosen=np.arange(len(labels)))
    return np.asarray(steps, np.float32)


def _padded(labels: Any, batch_size: int) -> Any:
    """Every array's first axis filled up to `batch_size` with its last row."""
    import jax

    from vargen.data import padded

    return jax.tree.map(lambda x: padded(x, batch_size), labels)


def step_sizes(model: Model, steps: int | None = None) -> np.ndarray:
    """int [T]: how many slots each step of generation fills; `steps` as for `Model.sample`.

    Raises:
      UserError: the order has no such number of steps.
    """
    import jax

    generator, known = model.generator, None
    if generator.condition.segment is not None:
        known = generator.sequence.known(generator.condition.segment.name)
    try:
        sampling = model.sampling(steps=steps)
        ordering = sampling.ordering(generator.ordering)
        found = ordering.decoding(jax.random.key(0), 1, sampling.steps, known)
        return generator.own(found).sizes
    except ValueError as error:
        raise UserError(str(error)) from error


def step_names(model: Model, pictures: int = 10, steps: int | None = None) -> list[str]:
    """Captions for `Model.sample_steps`: the grids of the levels, or how much is known after the step."""
    import numpy as np

    sizes, grid = step_sizes(model, steps), model.tokenizer.grid
    if len(sizes) == len(grid.levels) > 1:
        names = [f"{h}×{w}" for h, w in grid.levels]
    else:
        names = [f"{round(100 * k / grid.size)} %" for k in np.cumsum(sizes)]
    chosen = np.unique(np.linspace(0, len(names) - 1, min(pictures, len(names))).round().astype(int))
    return [names[i] for i in chosen]


def check_data(sources: Sources) -> None:
    """Reads all images of both splits, for --check-data.

    Raises:
      UserError: naming those that cannot be read.
    """
    from vargen.data import checking
    from vargen.data.sources import SPLITS

    checking.check([sources[split] for split in SPLITS])


def check_classes(workdir: PathLike, classes: list[str]) -> None:
    """Checks that the data has the classes that the workdir was trained with.

    Raises:
      UserError: it has others.
    """
    from vargen import classes as class_names
    from vargen import paths
    from vargen.training import resume

    trained = any(resume.trained_config(paths.path(workdir) / stage) for stage in resume.STAGES)
    if trained and (theirs := class_names.stored(workdir)) is not None:
        class_names.check(theirs, classes, f"workdir {workdir}")


def check_held_out(test: Source) -> None:
    """Raises UserError where too few images are held out to measure anything with."""
    if len(test) < FEWEST:
        raise UserError(
            f"{test.name}: expected at least {FEWEST} held-out images to measure with, found {len(test)}; more "
            "pictures or a larger --config.data.test_fraction make more"
        )
