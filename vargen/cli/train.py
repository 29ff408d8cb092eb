"""`vargen train`: a tokenizer, its codes, and a generator over them."""

from __future__ import annotations

import argparse
import functools
import json
import os
from typing import TYPE_CHECKING

from vargen.cli import common, copying, flags, processes
from vargen.errors import Stopped, UserError
from vargen.spelling import counted

if TYPE_CHECKING:
    from ml_collections import ConfigDict

    from vargen.data import Sources

SUMMARY = "train a tokenizer and a generator"
DESCRIPTION = """
Trains in three stages: the tokenizer, the codes of the training images (`vargen tokenize`), the generator. A
stage that is complete is skipped, one that was interrupted goes on where it stopped: give the same command
again. Checkpoints, metrics.jsonl and TensorBoard files are in WORKDIR/tokenizer and WORKDIR/generator.

On several machines, start the same command on each: on TPU slices, under Slurm and under mpirun with
--distributed, elsewhere with --coordinator, --num-processes and --process-id.
"""
EXAMPLES = """\
  vargen train --config var:digits --workdir runs/digits
  vargen train --config llamagen:digits --workdir runs/llamagen --config.training.steps=200
  vargen train --config var:digits --workdir runs/mine --check-data --config.data.skip_broken=10 \\
      --config.data.source=folder --config.data.path=~/pictures --config.data.num_classes=0
  vargen train --config var:digits --workdir runs/b --tokenizer runs/digits --stage generator
  vargen train --from models/rar_b --workdir runs/flowers --config.training.learning_rate=1e-5 \\
      --config.data.source=folder --config.data.path=flowers
  vargen train --config var:digits --workdir /mnt/shared/two \\
      --coordinator 10.0.0.1:7777 --num-processes 2 --process-id 0
"""

STAGES = ("all", "tokenizer", "generator")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the flags."""
    flags.add_config(parser, required=False)
    parser.add_argument("--stage", choices=STAGES, default="all", help="what to train (all)")
    parser.add_argument(
        "--tokenizer",
        metavar="DIR",
        help="take the trained tokenizer of another workdir, or of hf://OWNER/REPO; it is copied",
    )
    parser.add_argument(
        "--from",
        dest="origin",
        metavar="DIR",
        help="fine-tune the model of another workdir, of `vargen import` or of hf://OWNER/REPO; its config, where "
        "--config is not given",
    )
    flags.add_check_data(parser)
    flags.add_cluster(parser)


def run(args: argparse.Namespace) -> None:
    """Trains what the flags ask for."""
    from vargen import paths

    workdir = paths.path(args.workdir, "--workdir")
    what = args.config or args.origin or "the config inside"
    if not args.distributed and not args.process_id:  # JAX, which knows the processes, isn't imported yet
        print(f"{args.workdir}: training {what}", flush=True)
    if args.origin is not None and args.config is None:
        args.origin = copying.pinned(args.origin, "--from", workdir)
        config = _fine_tuned(args)
    else:
        config = common.read_config(args)
    with flags.cluster(args):
        train(
            config,
            args.workdir,
            stage=args.stage,
            tokenizer=args.tokenizer,
            origin=args.origin,
            check_data=args.check_data,
        )
        if args.stage != "tokenizer":
            processes.say(f"trained; next: vargen sample --workdir {args.workdir}")


def _fine_tuned(args: argparse.Namespace) -> ConfigDict:
    """The config of the model of --from as fine-tuning starts with it, overrides applied."""
    from vargen import config, fine_tuning, hub

    copying.found(args.origin, "--from", fetch=False)
    trained = config.load(hub.config_file(args.origin, "--from"))
    return config.override(fine_tuning.begun(trained), args.overrides)


def train(
    config: ConfigDict,
    workdir: str | os.PathLike,
    *,
    stage: str = "all",
    tokenizer: str | None = None,
    origin: str | None = None,
    check_data: bool = False,
    measured: bool = False,
) -> Sources:
    """Runs the stages that are not complete. Everything is checked before anything is written.

    Args:
      config: written to WORKDIR/config.json.
      workdir: made where it is missing.
      stage: one of `STAGES`.
      tokenizer: a workdir whose tokenizer is copied, or a model on the hub.
      origin: likewise; its tokenizer is copied, and training starts with its generator.
      check_data: whether all images are read beforehand.
      measured: whether it is evaluated afterwards, on what is held out.

    Returns:
      The data that it was trained on.

    Raises:
      UserError: anything that doesn't fit, or another run in the workdir.
      Stopped: SIGTERM or Ctrl-C ended it; what was done is saved.
    """
    from vargen import classes as class_names
    from vargen import paths
    from vargen.cli import stages
    from vargen.config import to_json
    from vargen.training import resume

    workdir = paths.path(workdir, "--workdir")
    if origin is not None and tokenizer is not None:
        raise UserError("train: expected --from or --tokenizer, found both")
    asked = stage == "tokenizer"
    brought = tokenizer is not None or origin is not None  # another's tokenizer
    if brought and asked:
        raise UserError("--stage: expected all or generator where a tokenizer is copied, found tokenizer")
    if origin is not None:
        origin = copying.pinned(origin, "--from", workdir)
    if tokenizer is not None:
        tokenizer = copying.pinned(tokenizer, "--tokenizer", workdir)
    for flag, other in (("--from", origin), ("--tokenizer", tokenizer)):
        if other is not None:
            copying.found(other, flag, fetch=processes.is_first())
    if processes.is_first():
        paths.check_directory(workdir)
    config, sources = look_at_data(config)
    if measured:
        common.check_held_out(sources["test"])
    classes = sources["train"].classes
    resume.check(config, workdir)
    common.check_classes(workdir, classes)
    due = []  # the stages that this run trains
    if stage != "generator" and not brought and stages.tokenizer_is_due(config, workdir, asked):
        due.append("tokenizer")
    if not asked and not stages.complete(workdir / "generator", config.training.steps):
        due.append("generator")
    if due:
        processes.say(f"checking the parts of {config.name} and tracing its programs")
    look_at_parts(config, due, sources)
    copies = []
    if processes.is_first():
        copies = copying.plan(config, workdir, tokenizer=tokenizer, origin=origin, classes=classes)
    if stage == "generator" and not brought:
        stages.check_tokenizer(workdir)
    if check_data and processes.is_first():
        common.check_data(sources)
    # Weights and pictures are read now, so that a broken one is found before anything is written.
    judges = None
    if "tokenizer" in due:
        judges = stages.judges(config)
        stages.check_files(config, workdir)
    held_out = functools.cache(functools.partial(stages.read_held_out, config, sources))
    if due:
        held_out()
    with held(workdir):
        resume.check(config, workdir)  # once more, now that nobody else trains here
        if processes.is_first():
            paths.sweep(workdir)
            for copy in copies:
                copy()
            paths.write_text(workdir / "config.json", to_json(config))
            paths.write_text(workdir / class_names.FILE, json.dumps(classes) + "\n")
        processes.wait_for_first("workdir_prepared")
        if stage in ("all", "tokenizer"):
            _go(stages.train_tokenizer(config, workdir, sources, held_out, judges, asked=asked))
        if stage in ("all", "generator"):
            _go(stages.train_generator(config, workdir, sources, held_out))
    return sources


def _go(stopped_by: int) -> None:
    if stopped_by:
        raise Stopped(stopped_by)


def look_at_data(config: ConfigDict) -> tuple[ConfigDict, Sources]:
    """Checks every field by itself and opens the data.

    Returns:
      The config with `data.num_classes` filled in where it is 0, and the data.
    """
    from vargen import data, schema
    from vargen.cli import preflight
    from vargen.config import override

    preflight.check_fields(config)
    sources = data.Sources(config.data)
    train, test = sources["train"], sources["test"]
    count, size = len(train.classes), schema.size(config.data)
    kind = "clip" if len(size) > 2 else "picture"
    processes.say(
        f"{train.name}: {counted(len(train), kind)} of {counted(count, 'class')} to learn, {len(test)} held out, "
        f"{'x'.join(map(str, size))}, {'grey' if config.data.channels == 1 else 'colour'}"
    )
    return override(config, [("data.num_classes", count)]), sources


def look_at_parts(config: ConfigDict, due: list[str], sources: Sources) -> None:
    """Builds and traces everything once, to fail early; the stages that are `due` must fit in memory."""
    import jax

    from vargen import sharding
    from vargen.cli import preflight, stages
    from vargen.training import resume

    memory = sharding.device_memory()
    bounds = {resume.STAGES[stage]: memory for stage in due} if memory else {}
    generator = preflight.check(config, jax.device_count(), jax.process_count(), bounds)
    stages.captions(generator.condition, sources["train"])
    if generator.condition.takes == "embeddings":
        name = config.conditioning.name
        raise UserError(
            f"train: expected conditioning by label, as the data has, found {name}; use the loss in Python"
        )


def held(workdir: os.PathLike):
    """The workdir's lock, held by process 0; a refusal ends the other processes with its line."""
    import contextlib

    from vargen.cli import lock

    return lock.hold(workdir, "vargen train") if processes.is_first() else contextlib.nullcontext()
