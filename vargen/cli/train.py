"""`vargen train`: a tokenizer, its codes, and a generator over them."""

from __future__ import annotations

import argparse
import contextlib
import json
import pathlib
import signal
from collections.abc import Iterator
from typing import TYPE_CHECKING

from vargen.cli import common, copying
from vargen.errors import UserError

if TYPE_CHECKING:
    from ml_collections import ConfigDict

SUMMARY = "train a tokenizer and a generator"
DESCRIPTION = """
Trains in three stages: the tokenizer, the codes of the training images (`vargen tokenize`), the generator. A
stage that is complete is skipped, one that was interrupted goes on where it stopped: give the same command
again. Checkpoints, metrics.jsonl and TensorBoard files are in WORKDIR/tokenizer and WORKDIR/generator.
"""
EXAMPLES = """\
  vargen train --config configs/var_digits.py --workdir runs/digits
  vargen train --config configs/llamagen_digits.py --workdir runs/llamagen --config.training.steps=200
  vargen train --config configs/var_digits.py --workdir runs/mine \\
      --config.data.source=folder --config.data.path=~/pictures --config.data.num_classes=0
  vargen train --config configs/var_digits.py --workdir runs/b --tokenizer runs/digits --stage generator
  vargen train --from models/rar_b --workdir runs/flowers --config.training.learning_rate=1e-5 \\
      --config.data.source=folder --config.data.path=flowers
"""

STAGES = ("all", "tokenizer", "generator")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the flags."""
    common.add_config(parser, required=False)
    parser.add_argument("--stage", choices=STAGES, default="all", help="what to train (all)")
    parser.add_argument(
        "--tokenizer", metavar="DIR", help="take the trained tokenizer of another workdir; it is copied"
    )
    parser.add_argument(
        "--from",
        dest="origin",
        metavar="DIR",
        help="fine-tune the model of another workdir or of `vargen import`; its config, where --config is not given",
    )
    parser.add_argument(
        "--distributed",
        action="store_true",
        help="one of several processes (TPU pod, Slurm): start the same command in each",
    )


def run(args: argparse.Namespace) -> None:
    """Trains what the flags ask for."""
    if args.distributed:
        import jax

        jax.distributed.initialize()
    if args.origin and not args.config:
        args.config = str(pathlib.Path(args.origin).expanduser() / "config.json")
    config = common.read_config(args)
    with save_when_interrupted():
        finished = train(config, args.workdir, stage=args.stage, tokenizer=args.tokenizer, origin=args.origin)
    if finished and args.stage != "tokenizer":
        print(f"trained; next: vargen sample --workdir {args.workdir}")


def train(
    config: ConfigDict,
    workdir: str | pathlib.Path,
    *,
    stage: str = "all",
    tokenizer: str | None = None,
    origin: str | None = None,
) -> bool:
    """Runs the stages that are not complete.

    Args:
      config: written to WORKDIR/config.json.
      workdir: made where it is missing.
      stage: one of `STAGES`.
      tokenizer: a workdir whose tokenizer is copied.
      origin: a workdir whose tokenizer is copied and with whose generator training starts.

    Returns:
      False where SIGTERM stopped it; what was done is saved.
    """
    import jax

    from vargen.config import to_json

    workdir = pathlib.Path(workdir).expanduser()
    if origin and tokenizer:
        raise UserError("train: expected --from or --tokenizer, found both")
    config, classes = prepare(config)
    if jax.process_index() == 0:
        if source := origin or tokenizer:
            copying.copy_tokenizer(config, pathlib.Path(source).expanduser(), workdir)
        if origin:
            copying.copy_generator(config, pathlib.Path(origin).expanduser(), workdir)
        workdir.mkdir(parents=True, exist_ok=True)
        (workdir / "config.json").write_text(to_json(config))
        (workdir / "classes.json").write_text(json.dumps(classes) + "\n")
    wait_for_process_0("workdir_prepared")
    if stage in ("all", "tokenizer") and not train_tokenizer(config, workdir, asked=stage == "tokenizer"):
        return False
    return stage == "tokenizer" or train_generator(config, workdir)


def prepare(config: ConfigDict) -> tuple[ConfigDict, list[str]]:
    """Builds everything once, to fail early.

    Returns:
      The config with `data.num_classes` filled in where it is 0, and the names of the classes.
    """
    from vargen import data
    from vargen.config import override
    from vargen.models import build_generator, build_tokenizer

    classes = data.load(config.data, "train").classes
    config = override(config, [("data.num_classes", len(classes))])
    generator = build_generator(config, build_tokenizer(config))
    if generator.condition.hides:
        name = config.conditioning.name
        raise UserError(
            f"train: expected conditioning by label, as the data has, found {name}; use the loss in Python"
        )
    return config, classes


def wait_for_process_0(name: str) -> None:
    """Until process 0 has come here too, where there are several."""
    import jax

    if jax.process_count() > 1:
        from jax.experimental import multihost_utils

        multihost_utils.sync_global_devices(name)


def complete(directory: pathlib.Path, steps: int) -> bool:
    """Whether the run in `directory` reached `steps`."""
    from vargen.training import checkpoints

    saved = checkpoints.saved_steps(directory / checkpoints.FOLDER)
    return (
        bool(saved)
        and saved[-1] >= steps
        and checkpoints.last_whole(directory / checkpoints.FOLDER) is not None
    )


def train_tokenizer(config: ConfigDict, workdir: pathlib.Path, *, asked: bool = False) -> bool:
    """Trains WORKDIR/tokenizer; False where it was stopped before its end.

    One that was imported is trained on only where that is `asked` for, one that was copied never.
    """
    import functools

    import jax

    from vargen import data, weights_file
    from vargen.models import build_tokenizer
    from vargen.tokenizers.perceptual import load_perceptual
    from vargen.training.checkpoints import WEIGHTS
    from vargen.training.loop import train as loop
    from vargen.training.tasks import TokenizerTask

    settings, directory = config.tokenizer_training, workdir / "tokenizer"
    start = directory / WEIGHTS
    if (directory / copying.ORIGIN).is_file():
        if asked:
            raise UserError(
                f"workdir {workdir}: its tokenizer is another workdir's, expected one of its own to train"
            )
        return True
    if (start.is_file() and not asked) or complete(directory, settings.steps):
        return True
    tokenizer = build_tokenizer(config)
    source = data.load(config.data, "train")
    held_out = data.to_float(data.arrays(data.load(config.data, "test"), config.evaluation.samples)[0])

    def mse(params, images):
        decoded = tokenizer.decode(params, tokenizer.encode(params, images))
        return ((decoded - images) ** 2).mean(axis=(1, 2, 3))

    mse = jax.jit(mse)
    reconstruct = jax.jit(lambda params, x: tokenizer.decode(params, tokenizer.encode(params, x)))

    def validate(state):
        errors = common.in_batches(lambda x: mse(state.ema, x), held_out, config.evaluation.batch_size)
        return dict(loss=float(errors.mean()), psnr_db=float(common.psnr_db(errors).mean()))

    def pictures(state):
        return dict(originals=held_out[:16], reconstructions=reconstruct(state.ema, held_out[:16]))

    perceptual, frozen = None, {}
    if settings.losses.perceptual:
        loaded = load_perceptual(settings.losses.perceptual_weights)
        if loaded is None:
            raise UserError("losses.perceptual: expected weights in losses.perceptual_weights, found none")
        perceptual, frozen["perceptual"] = loaded

    return loop(
        TokenizerTask(tokenizer, settings, perceptual),
        frozen,
        lambda start: _batches(source, config, settings.batch_size, start),
        directory,
        config,
        settings,
        seed=config.seed,
        on_images=pictures,
        validate=validate,
        initial=functools.partial(weights_file.read, start) if start.is_file() else None,
        title="tokenizer",
    ).finished


def train_generator(config: ConfigDict, workdir: pathlib.Path) -> bool:
    """Trains WORKDIR/generator over the workdir's tokenizer; False where it was stopped before its end."""
    import functools

    import jax
    import numpy as np

    from vargen import data, weights_file
    from vargen.cli import tokenize
    from vargen.data import codes
    from vargen.model import Model
    from vargen.models import build_generator, build_tokenizer
    from vargen.samplers import Sampling, decode
    from vargen.training import checkpoints
    from vargen.training.loop import train as loop
    from vargen.training.tasks import GeneratorTask

    settings, directory = config.training, workdir / "generator"
    if complete(directory, settings.steps):
        return True
    _, tokenizer_params, _ = checkpoints.load_params(workdir / "tokenizer")
    tokenizer = build_tokenizer(config)
    generator = build_generator(config, tokenizer)
    if settings.codes:
        if jax.process_index() == 0:
            tokenize.store(config, workdir, again=False)
        wait_for_process_0("codes_stored")
        source = codes.load(workdir / tokenize.FOLDER)
        frozen = dict(quantizer=tokenizer_params["quantizer"])
    else:
        source, frozen = data.load(config.data, "train"), tokenizer_params

    images, labels = data.arrays(data.load(config.data, "test"), config.evaluation.samples)
    model = Model(config, tokenizer_params)
    held_out = common.in_batches(model.encode, data.to_float(images), config.evaluation.batch_size)
    batch_size = min(config.evaluation.batch_size, len(labels))
    quantizer = tokenizer_params["quantizer"]
    loss = jax.jit(lambda params, q, x, y, key: generator.loss(params, q, x, y, key, train=False)[0])
    sample = jax.jit(functools.partial(decode, generator))

    # Where an imported or copied generator lies, training starts with it.
    start = directory / checkpoints.WEIGHTS
    initial = functools.partial(weights_file.read, start) if start.is_file() else None

    def validate(state):
        """The loss on held-out images, with the same randomness each time."""
        losses = [
            loss(
                state.ema,
                quantizer,
                held_out[i : i + batch_size],
                labels[i : i + batch_size],
                jax.random.key(i),
            )
            for i in range(0, len(labels) - batch_size + 1, batch_size)
        ]
        return dict(loss=float(np.mean(jax.device_get(losses))))

    def pictures(state):
        classes = np.arange(16, dtype=np.int32) % config.data.num_classes
        content, _ = sample(
            state.ema, quantizer, classes, jax.random.key(0), Sampling.make(**config.sampling)
        )
        return dict(samples=model.decode(content))

    return loop(
        GeneratorTask(generator, tokenizer),
        frozen,
        lambda start: _batches(source, config, settings.batch_size, start),
        directory,
        config,
        settings,
        seed=config.seed + 1,
        on_images=pictures,
        validate=validate,
        initial=initial,
        title="generator",
    ).finished


def _batches(source, config: ConfigDict, batch_size: int, start: int) -> Iterator[dict]:
    import jax

    from vargen import data

    return data.batches(
        source,
        batch_size=batch_size,
        seed=config.seed,
        start_step=start,
        settings=config.data,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
    )


@contextlib.contextmanager
def save_when_interrupted() -> Iterator[None]:
    """Ctrl-C during training finishes the step and saves, as SIGTERM does; a second Ctrl-C stops at once."""

    def handle(number, frame):
        signal.signal(signal.SIGINT, signal.default_int_handler)
        if not callable(signal.getsignal(signal.SIGTERM)):  # not in the training loop
            raise KeyboardInterrupt
        print("\nsaving (Ctrl-C again: stop at once)", flush=True)
        signal.raise_signal(signal.SIGTERM)

    before = signal.signal(signal.SIGINT, handle)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
