"""The stages of `vargen train`: the tokenizer, the codes, the generator. Every process of a run calls them."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import numpy as np

from vargen import classes, data, paths, sharding, spelling, weights_file
from vargen.cli import processes, tokenize
from vargen.config import from_json, to_json
from vargen.data import codes
from vargen.errors import UserError
from vargen.models import build_generator, build_tokenizer, sampled
from vargen.samplers import Sampling
from vargen.tokenizers import discriminators, semantic, usage
from vargen.tokenizers.discriminators.dino import load
from vargen.tokenizers.losses import PERCEPTUAL
from vargen.tokenizers.perceptual import load_perceptual
from vargen.training import checkpoints, held_out, metrics, resume
from vargen.training.loop import train as loop
from vargen.training.tasks import GeneratorTask, TokenizerTask

if TYPE_CHECKING:
    from ml_collections import ConfigDict

    from vargen.paths import Path


FITTED = 10_000  # pictures that a tokenizer without training learns from, as JPEG-LM's merges
HeldOut = Callable[[], tuple[np.ndarray, np.ndarray]]


def read_held_out(config: ConfigDict, sources: data.Sources) -> tuple[np.ndarray, np.ndarray]:
    """The images that training is validated with: float32 [M, H, W, C] in [-1, 1], and their labels, int32 [M]."""
    images, labels = data.arrays(sources["test"], config.evaluation.samples)
    return data.to_float(images), labels


def captions(condition: Any, source: data.Source) -> np.ndarray | None:
    """What a source's labels are for a conditioning of texts: its captions as numbers, [M, ...]; else None.

    Raises:
      UserError: the source has none, or they hold words that the conditioning doesn't know.
    """
    if condition.takes != "texts":
        return None
    if source.captions is None:
        raise UserError(
            f"config field conditioning.name: expected label for {source.name}, which has no captions, found texts"
        )
    return np.asarray(condition.parse(source.captions))


def train_tokenizer(
    config: ConfigDict,
    workdir: Path,
    sources: data.Sources,
    held_out_images: HeldOut,
    judges: Judges | None = None,
    *,
    asked: bool = False,
) -> int:
    """Trains WORKDIR/tokenizer.

    One that was imported is trained on only where that is `asked` for, one that was copied never. One that has nothing
    to train is fitted to the first pictures.

    Args:
      config, workdir, sources: as `vargen train` has checked them.
      held_out_images: see `read_held_out`.
      judges: see `judges`; none where losses need none.
      asked: whether the user asked for this stage by its name.

    Returns:
      0, or the number of the signal that stopped it before its end.
    """
    if not tokenizer_is_due(config, workdir, asked):
        return 0
    settings, directory = config.tokenizer_training, workdir / "tokenizer"
    mesh = sharding.make_mesh(**settings.mesh)
    tokenizer = build_tokenizer(config)
    if not tokenizer.trained:
        processes.say(f"tokenizer {config.tokenizer.name}: nothing to train")
        if processes.is_first():
            _fit_tokenizer(config, sources["train"], tokenizer, directory)
        processes.wait_for_first("tokenizer_fitted")
        return 0
    images, _ = held_out_images()
    validate, pictures = held_out.of_tokenizer(tokenizer, images, config.evaluation.batch_size, mesh)
    judges = judges or Judges(None, {})
    stopped_by = loop(
        TokenizerTask(tokenizer, settings, judges.distance),
        judges.weights,
        functools.partial(_batches, sources["train"], config, settings, mesh),
        directory,
        config,
        settings,
        seed=config.seed,
        mesh=mesh,
        on_images=pictures,
        validate=validate,
        initial=_tokenizer_start(config, sources["train"], tokenizer, directory / checkpoints.WEIGHTS),
        title="tokenizer",
    ).stopped_by
    if not stopped_by and (warning := usage.warning(_last_validation(directory))):
        processes.say(warning)
    return stopped_by


def _fit_tokenizer(config: ConfigDict, source: data.Source, tokenizer: Any, directory: Path) -> None:
    """Writes the parameters of a tokenizer that isn't trained, as those of an imported one."""
    params = _fit(config, source, tokenizer)
    directory.mkdir(parents=True, exist_ok=True)
    # The config last: without it, or with an older one, a start fits anew.
    weights_file.write(directory / checkpoints.WEIGHTS, params)
    paths.write_text(directory / checkpoints.CONFIG, to_json(config))


def _tokenizer_start(
    config: ConfigDict, source: data.Source, tokenizer: Any, weights: Path
) -> Callable[[], Any] | None:
    """What gives the parameters that training starts from; None where they are fresh."""
    if paths.is_file(weights):
        return functools.partial(weights_file.read, weights)
    return functools.partial(_fit, config, source, tokenizer) if tokenizer.fitted else None


def _fit(config: ConfigDict, source: data.Source, tokenizer: Any) -> Any:
    """The parameters that a tokenizer learns from the first pictures without training; the same in every process."""
    count = min(len(source), FITTED)
    size = min(config.evaluation.batch_size, count)
    pictures = data.batches(
        source, batch_size=size, seed=config.seed, settings=config.data, augment=False, epochs=1
    )
    batches = itertools.islice((batch["image"] for batch in pictures), -(-count // size))
    return jax.tree.map(np.asarray, tokenizer.fit(batches))


def check_files(config: ConfigDict, workdir: Path) -> None:
    """Raises UserError where a tokenizer's training starts from a file that isn't there, or is another."""
    if not _has_tokenizer(workdir):
        build_tokenizer(config).check_files()


def _last_validation(directory: Path) -> dict[str, float]:
    """What the last validation of a stage measured."""
    rows = [row for row in metrics.read(directory / metrics.FILE) if "validation_loss" in row]
    prefix = "validation_"
    return {k.removeprefix(prefix): v for k, v in rows[-1].items() if k.startswith(prefix)} if rows else {}


def tokenizer_is_due(config: ConfigDict, workdir: Path, asked: bool) -> bool:
    """Whether the workdir's tokenizer is still to be trained; see `train_tokenizer`.

    Raises:
      UserError: it is `asked` for, and was copied.
    """
    directory = workdir / "tokenizer"
    if paths.is_file(directory / checkpoints.ORIGIN):
        if asked:
            raise UserError(
                f"workdir {workdir}: its tokenizer is another workdir's, expected one of its own to train"
            )
        return False
    if not build_tokenizer(config).trained:
        return not _fitted(config, directory)
    if paths.is_file(directory / checkpoints.WEIGHTS) and not asked:
        return False
    return not complete(directory, config.tokenizer_training.steps)


def _fitted(config: ConfigDict, directory: Path) -> bool:
    """Whether a tokenizer that isn't trained lies there, of the same config but for fields that are free."""
    if not all(paths.is_file(directory / name) for name in (checkpoints.WEIGHTS, checkpoints.CONFIG)):
        return False
    theirs = from_json((directory / checkpoints.CONFIG).read_text())
    return all(resume.is_free(field, "tokenizer") for field, _, _ in resume.differences(theirs, config))


def check_tokenizer(workdir: Path) -> None:
    """Raises UserError where a workdir has no tokenizer over which a generator could be trained."""
    if not _has_tokenizer(workdir):
        raise UserError(
            f"workdir {workdir}: expected a trained tokenizer, found none; train it first, or name another workdir's "
            "with --tokenizer"
        )


def _has_tokenizer(workdir: Path) -> bool:
    directory = workdir / "tokenizer"
    saved = checkpoints.saved_steps(directory / checkpoints.FOLDER)
    return bool(saved) or paths.is_file(directory / checkpoints.WEIGHTS)


class Judges(NamedTuple):
    """The networks that judge a tokenizer's pictures, or teach it, and aren't trained.

    Attributes:
      distance: see `TokenizerTask`; None where the losses have none.
      weights: of each network, what `TokenizerTask` takes as frozen.
    """

    distance: Callable | None
    weights: dict[str, Any]


def judges(config: ConfigDict) -> Judges:
    """The networks that the losses of `config.tokenizer_training` name, read from their files.

    Raises:
      UserError: no weights there, or other ones.
    """
    losses, distance, weights = config.tokenizer_training.losses, None, {}
    for field in (name for name in PERCEPTUAL if losses[name]):
        if not losses.perceptual_weights:
            raise UserError(
                "config field tokenizer_training.losses.perceptual_weights: expected the file of LPIPS's network, made "
                "of torchvision's vgg16-397923af.pth and LPIPS's vgg.pth as vargen/tokenizers/perceptual.py says, or "
                f"--config.tokenizer_training.losses.{field}=0 to train without it, found none"
            )
        distance, weights["perceptual"] = load_perceptual(losses.perceptual_weights)
    if losses.adversarial and (arrays := load(discriminators.build(losses.discriminator))):
        weights["discriminator"] = arrays
    if (found := semantic.build(build_tokenizer(config), losses)) is not None:
        weights["teacher"] = found.teacher.load()
    return Judges(distance, weights)


def teacher_params(config: ConfigDict) -> dict | None:
    """The parameters of the teacher that `config.tokenizer_training.losses` names; None where there is no such loss.

    Raises:
      UserError: no weights there, or other ones.
    """
    found = semantic.build(build_tokenizer(config), config.tokenizer_training.losses)
    return None if found is None else found.teacher.load()


def train_generator(
    config: ConfigDict, workdir: Path, sources: data.Sources, held_out_images: HeldOut
) -> int:
    """Trains WORKDIR/generator over the workdir's tokenizer.

    Returns:
      0, or the number of the signal that stopped it before its end.
    """
    settings, directory = config.training, workdir / "generator"
    if complete(directory, settings.steps):
        return 0
    mesh = sharding.make_mesh(**settings.mesh)
    _, tokenizer_params, tokenizer_step = checkpoints.load_params(
        workdir / "tokenizer", sharding=sharding.replicated(mesh)
    )
    tokenizer = build_tokenizer(config)
    generator = build_generator(config, tokenizer)
    if settings.codes:
        if processes.is_first():
            on_host = jax.tree.map(np.asarray, tokenizer_params)
            passes = math.ceil(settings.steps * settings.batch_size / len(sources["train"]))
            tokenize.store(
                config, workdir, sources["train"], on_host, tokenizer_step, again=False, passes=passes
            )
        processes.wait_for_first("codes_stored")
        source = codes.load(workdir / tokenize.FOLDER)
        frozen = dict(quantizer=tokenizer_params["quantizer"])
    else:
        source, frozen = sources["train"], tokenizer_params

    images, labels = held_out_images()
    words = captions(generator.condition, sources["train"])
    if words is not None:
        test = sources["test"]
        labels = captions(generator.condition, test)[data.evenly(test, config.evaluation.samples)]
    validate, pictures = held_out.of_generator(
        generator,
        tokenizer_params,
        images,
        labels,
        config.evaluation.batch_size,
        Sampling.make(**config.sampling),
        mesh,
        sampled(config, tokenizer, generator)[1],
    )
    # Where an imported or copied generator lies, training starts with it.
    start = directory / checkpoints.WEIGHTS
    return loop(
        GeneratorTask(generator, tokenizer, settings.steps),
        frozen,
        functools.partial(_batches, source, config, settings, mesh, labels=words),
        directory,
        config,
        settings,
        seed=(config.seed + 1) % 2**64,
        mesh=mesh,
        on_images=pictures,
        validate=validate,
        initial=functools.partial(weights_file.read, start) if paths.is_file(start) else None,
        rows=_rows(workdir),
        title="generator",
    ).stopped_by


def _rows(workdir: Path) -> list[int] | None:
    """Where the classes' rows come from, see `start_from`; None where the names of the copied model's aren't known."""
    theirs, ours = classes.stored(workdir / "generator"), classes.stored(workdir)
    return None if theirs is None or ours is None else spelling.places(ours, theirs)


def complete(directory: Path, steps: int) -> bool:
    """Whether the run in `directory` reached `steps`, in a checkpoint that is whole."""
    last = checkpoints.last_whole(directory / checkpoints.FOLDER, quiet=True)  # who goes on with it says so
    return last is not None and int(last.name) >= steps


def _batches(source: Any, config: ConfigDict, settings: ConfigDict, mesh: Any, start: int, labels=None):
    own = ("crop", "crop_range") if settings.get("crop") else ()
    return data.batches(
        source,
        batch_size=settings.batch_size,
        seed=config.seed,
        start_step=start,
        settings={**config.data, **{name: settings[name] for name in own}},
        rows=sharding.local_rows(mesh, settings.batch_size),
        labels=labels,
    )
