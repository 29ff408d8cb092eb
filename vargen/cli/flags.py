"""Flags that several commands have, and what they may hold."""

from __future__ import annotations

import argparse
import contextlib
import os
from typing import Any

from vargen import bundled, limits, schema


def add_config(
    parser: argparse.ArgumentParser, *, required: bool, workdir: bool = True, reads: bool = False
) -> None:
    """The flags --config and --workdir; the latter must be given (`workdir`), is only read, as on the hub (`reads`)."""
    note = "" if required else "; not needed where the workdir has its config inside"
    parser.add_argument(
        "--config",
        metavar="NAME",
        help=f"one of vargen's own ({', '.join(bundled.names())}), with a size after a colon (var:digits); or a "
        f"file like configs/var.py, a program, which runs{note}. Fields: --config.training.steps=200",
    )
    parser.add_argument(
        "--help-config",
        metavar="NAME",
        action=_HelpConfig,
        help="list every field of a config, or of a workdir's: its value, what it may hold, what it means",
    )
    parser.add_argument(
        "--workdir",
        metavar="DIR",
        required=workdir,
        help="where the run lives: config, codes, checkpoints" + ("; or hf://OWNER/REPO" if reads else ""),
    )


class _HelpConfig(argparse.Action):
    """Prints the fields of a config, overrides applied, and ends."""

    def __call__(self, parser, namespace, value, option_string=None):
        from vargen import config, hub, paths
        from vargen.cli import help_config

        if hub.is_hub(value) or (paths.path(value, option_string).is_dir() and value not in bundled.names()):
            value = hub.config_file(value, option_string)
        print(help_config.text(config.load(value, namespace.overrides)))
        parser.exit()


def add_check_data(parser: argparse.ArgumentParser) -> None:
    """The flag --check-data."""
    parser.add_argument(
        "--check-data",
        action="store_true",
        help="read all images beforehand and name every broken one (config.data.skip_broken may be skipped)",
    )


def add_cluster(parser: argparse.ArgumentParser) -> None:
    """The flags of runs of several processes."""
    group = parser.add_argument_group(
        "several processes", "start the same command in each; they share --workdir, on a disk or in a bucket"
    )
    group.add_argument(
        "--distributed",
        action="store_true",
        help="on TPU slices, under Slurm and mpirun, which tell the rest",
    )
    group.add_argument(
        "--coordinator", metavar="HOST:PORT", help="elsewhere: a free port of process 0 (VARGEN_COORDINATOR)"
    )
    group.add_argument(
        "--num-processes", type=number(int, 1, 100_000), metavar="N", help="how many (VARGEN_NUM_PROCESSES)"
    )
    group.add_argument(
        "--process-id", type=number(int, 0, 99_999), metavar="I", help="which, from 0 (VARGEN_PROCESS_ID)"
    )
    group.add_argument(
        "--timeout",
        type=number(float, 1, 86_400),
        default=300.0,
        metavar="S",
        help="seconds to wait for the others (300)",
    )


def cluster(args: argparse.Namespace):
    """Joins the processes that the flags, or the environment, tell of; nothing where they tell of none.

    Raises:
      UserError: flags that don't fit, or processes that don't come.
    """
    from vargen.cli import cluster

    given = any(x is not None for x in (args.coordinator, args.num_processes, args.process_id))
    if not (given or args.distributed or os.environ.get("VARGEN_COORDINATOR")):
        return contextlib.nullcontext()
    where = cluster.place(args.coordinator, args.num_processes, args.process_id)
    return cluster.joined(where, args.timeout)


def add_overwrite(parser: argparse.ArgumentParser) -> None:
    """The flag --overwrite of commands that fill a folder with pictures."""
    parser.add_argument(
        "--overwrite",
        action="store_true",
        help="remove vargen's pictures that are in the folder; without it they stop the command",
    )


def add_weights(parser: argparse.ArgumentParser) -> None:
    """The flag --weights of commands that decode."""
    parser.add_argument(
        "--weights",
        choices=schema.WEIGHTS,
        help="hold the generator's weights in 8 bits: half the memory and reading of bfloat16 (full)",
    )


def add_sampling(parser: argparse.ArgumentParser) -> None:
    """The flags that change how samples are drawn; the config's values where they are not given."""
    parser.add_argument("--seed", type=number(int, 0, 2**64 - 1), metavar="N", help="random seed (0)")
    add_weights(parser)
    group = parser.add_argument_group("sampling", "the preset's or the config's values where not given")
    group.add_argument(
        "--preset",
        default="",
        metavar="NAME",
        help="named settings of the config, such as paper: those of its FID",
    )
    group.add_argument(
        "--guidance", type=within(schema.GUIDANCE, float), metavar="X", help="classifier-free guidance scale"
    )
    group.add_argument(
        "--temperature",
        type=within(schema.TEMPERATURE, float),
        metavar="X",
        help="below 1: safer, above: wilder",
    )
    group.add_argument(
        "--top-k", type=within(schema.TOP_K, int), metavar="K", help="keep the K likeliest codes (0: all)"
    )
    group.add_argument(
        "--top-p", type=within(schema.TOP_P, float), metavar="P", help="keep this share of probability"
    )
    group.add_argument(
        "--steps",
        type=within(schema.DECODING_STEPS, int),
        metavar="T",
        help="decoding steps, if the order has a choice",
    )
    group.add_argument(
        "--levels",
        type=sides,
        metavar="LIST",
        help="levels to draw, coarse to fine, in the place of those trained, where they are independent: sides or "
        "HEIGHTxWIDTH: 1,2,3x4,6x8; of models without levels the picture's size in slots, or several, each drawn "
        "around the one before: 16,32",
    )
    group.add_argument(
        "--tokens",
        type=within(schema.TOKENS, int),
        metavar="N",
        help="draw the first N tokens alone, where these are a picture by themselves (nested registers); 0: all",
    )


def sampling_options(args: argparse.Namespace) -> dict[str, Any]:
    """The sampling flags by the names that `Model.sample` knows; None where not given."""
    return {name: getattr(args, name) for name in ("guidance", "temperature", "top_k", "top_p", "steps")}


def sides(text: str) -> tuple[int | tuple[int, int], ...]:
    """An argparse type: levels as sides or pairs, such as 1,2,3x4."""
    found = []
    for word in text.split(","):
        numbers = word.strip().split("x")
        if len(numbers) > 2 or not all(
            n.isascii() and n.isdigit() and 0 < int(n[:9]) <= 4096 for n in numbers
        ):
            raise argparse.ArgumentTypeError(
                f"expected sides from 1 to 4096, or HEIGHTxWIDTH, found {word.strip()!r:.100}"
            )
        found.append(int(numbers[0]) if len(numbers) == 1 else (int(numbers[0]), int(numbers[1])))
    return tuple(found)


def number(kind: type, low: float, high: float):
    """An argparse type: a number of `kind` between `low` and `high`, both included."""
    return within(limits.Between(low, high), kind)


def within(limit: limits.Between, kind: type):
    """An argparse type: a number of `kind` within a limit. A whole number is written in ASCII digits, and no more."""
    name = "a whole number" if kind is int else "a number"

    def parse(text: str):
        try:
            plain = text.isascii() and (
                text.isdigit() if kind is int else text == text.strip() and "_" not in text
            )
            value = kind(text) if plain and len(text) < 400 else None
        except ValueError:
            value = None
        if value is None or not limit.holds(value):
            raise argparse.ArgumentTypeError(f"expected {name} {limit}, found {text!r:.100}")
        return value

    return parse
