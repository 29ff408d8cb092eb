"""The command `vargen`, of several: train, sample, complete, reconstruct, evaluate and others."""

from __future__ import annotations

import argparse
import importlib
import keyword
import os
import shlex
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NoReturn

import vargen
from vargen import limits, malloc
from vargen.cli import failures
from vargen.errors import UserError

# Each command is a module of vargen.cli with SUMMARY, DESCRIPTION, add_arguments(parser) and run(args). They
# import JAX inside run, so that help is instant.
COMMANDS = (
    *(
        "quickstart",
        "train",
        "tokenize",
        "sample",
        "complete",
        "caption",
        "reconstruct",
        "evaluate",
        "compare",
    ),
    *("import", "export", "push", "list", "env"),
)

# What other programs call flags that a command has by another name.
ELSEWHERE = {"--image": "--input", "--images": "--input", "--mask": "--keep"}

EPILOG = """\
Any field of the config can be set with --config.FIELD=VALUE:
  --config.training.steps=200 --config.data.source=folder --config.data.path=~/pictures

examples:
  vargen train --config var:digits --workdir runs/digits
  vargen sample --workdir runs/digits --classes 3,7 --count 8
  vargen evaluate --workdir runs/digits

A flag or field that is given twice has the last value. A command's own help: vargen COMMAND --help
"""


class _Help(argparse.RawDescriptionHelpFormatter):
    def __init__(self, prog: str):
        super().__init__(prog, max_help_position=24, width=100)
        self._action_max_length = 16  # argparse forgets that names of commands are indented twice


class Parser(argparse.ArgumentParser):
    """Mistakes in one line; no guessing of shortened flags.

    Attributes:
      others: of a command, the parsers of all commands by their names.
    """

    def __init__(self, **options: Any):
        super().__init__(allow_abbrev=False, formatter_class=_Help, **options)
        self.others: Mapping[str, Parser] = {}

    def error(self, message: str) -> NoReturn:
        self.exit(2, failures.one_line(f"{self.prog}: {message} (see {self.prog} --help)") + "\n")

    def _print_message(self, message: str, file: Any = None) -> None:
        # argparse's own keeps silent where standard output can't be written.
        if file is sys.stdout:
            file.write(message)
        else:
            super()._print_message(message, file)

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As argparse's, but a flag that there isn't is the first thing to be said, with the nearest that there is."""
        known = self._option_string_actions
        for word in args or []:
            flag = word.partition("=")[0]
            if _is_flag(flag) and flag not in known:
                self.error(f"unknown flag {flag}{self._suggestion(flag, args or [])}")
            if not word.startswith("-") and self.prog == "vargen":
                break  # the rest is the command's
        return super().parse_known_args(args, namespace)

    def _suggestion(self, flag: str, words: Sequence[str]) -> str:
        """What to say of a flag that there isn't: the nearest that there is, and the command that has it.

        That is the command that knows the most of the words' flags; where it knows all, the whole line is told.
        """
        own = [k for k in self._option_string_actions if k[:2] == "--"]
        flags = [f for f in (word.partition("=")[0] for word in words) if _is_flag(f)]
        known = {name: other.knows(flags) for name, other in self.others.items() if other.knows([flag])}
        if not known:
            return limits.suggestion(flag, own)
        best = max(known, key=lambda name: len(known[name]))
        if flag not in ELSEWHERE and limits.nearest(flag, own, 0.85):  # a letter more or less
            return f"{limits.suggestion(flag, own)} vargen {best} has {flag}"
        if len(known[best]) < len(flags):
            return f"; vargen {best} has {ELSEWHERE.get(flag, flag)}"
        parts = (
            word.partition("=") if _is_flag(word.partition("=")[0]) else (word, "", "") for word in words
        )
        renamed = [ELSEWHERE.get(head, head) + equals + rest for head, equals, rest in parts]
        return f"; did you mean {shlex.join(['vargen', best, *renamed])}?"

    def knows(self, flags: Iterable[str]) -> list[str]:
        """Those of flags that it has, by this name or, of `ELSEWHERE`, another."""
        return [flag for flag in flags if {flag, ELSEWHERE.get(flag)} & {*self._option_string_actions}]


def _is_flag(word: str) -> bool:
    return word.startswith("--") and word != "--" and " " not in word


def parser(overrides: Sequence[tuple[str, str]] = ()) -> argparse.ArgumentParser:
    """The parser of all commands, which hands on the overrides. Imports neither JAX nor anything that does."""
    top = Parser(
        prog="vargen",
        description="Visual autoregressive generation: tokenizers and generators of images, in JAX.",
        epilog=EPILOG,
    )
    top.add_argument("--version", action="version", version=f"vargen {vargen.__version__}")
    commands = top.add_subparsers(dest="command", metavar="COMMAND", required=True, title="commands")
    for name in COMMANDS:
        # "import" is no name for a module.
        module = importlib.import_module(f"vargen.cli.{name}{'_' if keyword.iskeyword(name) else ''}")
        command = commands.add_parser(
            name,
            help=module.SUMMARY,
            description=module.DESCRIPTION.strip(),
            epilog="examples:\n" + module.EXAMPLES,
        )
        module.add_arguments(command)
        command.set_defaults(run=module.run, overrides=overrides)
        command.others = commands.choices
    return top


def split_overrides(arguments: list[str]) -> tuple[list[str], list[tuple[str, str]]]:
    """Takes `--config.field=value` and `--config.field value` out of the arguments.

    Returns:
      The other arguments, and (field, text of the value) in order; a field without a value is "true".

    Raises:
      UserError: no name of a field there.
    """
    rest, overrides = [], []
    waiting = list(arguments)
    while waiting:
        argument = waiting.pop(0)
        if not argument.startswith("--config."):
            rest.append(argument)
            continue
        field, equals, value = argument.removeprefix("--config.").partition("=")
        if not equals:
            value = waiting.pop(0) if waiting and not waiting[0].startswith("--") else "true"
        if not all(field.split(".")) or field != field.strip():
            raise UserError(f"flag: expected --config.FIELD=VALUE, found {argument!r:.200}")
        overrides.append((field, value))
    return rest, overrides


def use_compilation_cache() -> None:
    """Compiled programs are kept between runs; JAX reads these variables when it is imported."""
    from vargen import paths  # slow to import, which help is not

    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(paths.cache_directory() / "jax"))
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.5")


def main(arguments: list[str] | None = None) -> int:
    """Runs one command; returns the exit code: 0, 2 for what the user or the machine can mend, 128 + a signal's number.

    A bug of vargen's keeps its traceback, and 1 is returned.
    """
    failures.prepare_streams()
    with failures.explained() as outcome:
        rest, overrides = split_overrides(sys.argv[1:] if arguments is None else list(arguments))
        name = rest[0] if rest else ""
        if name in COMMANDS:
            outcome.command = name
        elif name and not name.startswith("-"):
            near = limits.suggestion(name, COMMANDS) or f", expected one of {', '.join(COMMANDS)}"
            raise UserError(f"unknown command {name!r}{near}")
        args = parser(overrides).parse_args(rest)
        if overrides and not hasattr(args, "config"):
            raise UserError(f"unknown flag --config.{overrides[0][0]}: this command takes no config")
        use_compilation_cache()
        malloc.keep_freed()
        args.run(args)
    return outcome.code


if __name__ == "__main__":
    sys.exit(main())
