"""`vargen list`: the axes, their parts and the systems made of them, as they are declared and measured."""

from __future__ import annotations

import argparse
import json
import textwrap
from collections.abc import Iterator, Mapping
from typing import Any

from vargen import limits
from vargen.errors import UserError

SUMMARY = "list axes, their parts, and systems"
DESCRIPTION = """
Lists what a config is made of, the axes and the parts of each, and the published systems, with what was
checked and measured. An axis, a part or a system by its name: that alone, in detail.
"""
EXAMPLES = """\
  vargen list
  vargen list orders
  vargen list gla --combinations
  vargen list var --json
"""
WIDTH = 110


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the flags."""
    parser.add_argument("name", nargs="?", metavar="NAME", help="an axis, a part, a system, or `systems`")
    parser.add_argument(
        "--combinations",
        action="store_true",
        help="of each part listed also what it goes with: tiny configs are built, which takes seconds for a part and "
        "minutes for all",
    )
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="as JSON")
    form.add_argument("--markdown", action="store_true", help="the systems as the documentation's table")


def run(args: argparse.Namespace) -> None:
    """Prints it."""
    if args.markdown:
        from vargen import systems

        if args.name not in (None, "systems"):
            raise UserError(f"--markdown: expected systems, found {args.name!r}")
        print(systems.table(), end="")
        return
    found = listed(args.name, args.combinations)
    print(json.dumps(found, indent=2, ensure_ascii=False) if args.json else "\n".join(text(found)))


def listed(name: str | None = None, combinations: bool = False) -> dict[str, Any]:
    """What there is of a name, or all: `axes` with their `parts`, and `systems`.

    Raises:
      UserError: there is no such axis, part or system; the nearest is named.
    """
    from vargen import axes, systems

    own = systems.names()
    plural = {axis.rpartition(".")[2]: axis for axis in axes.QUESTIONS}
    plural |= {f"{word}s": axis for word, axis in plural.items()}
    places = {axis: [*axes.PARTS[axis]] for axis in axes.QUESTIONS}
    chosen: list[str] = []
    if name in plural:
        places = {plural[name]: places[plural[name]]}
    elif name is not None:
        chosen = own if name == "systems" else [name] if name in own else []
        places = {axis: [name] for axis, parts in places.items() if name in parts}
    else:
        chosen = own
    if not (chosen or places):
        words = {*own, *plural, "systems", *(part for axis in axes.QUESTIONS for part in axes.PARTS[axis])}
        raise UserError(
            f"name: expected an axis, a part or a system, found {name!r}{limits.suggestion(name or '', words)}"
        )
    alone = name is not None and name not in plural
    found: dict[str, Any] = {}
    for axis, parts in places.items():
        entries = {part: _part(axis, part, alone, combinations) for part in parts}
        found.setdefault("axes", {})[axis] = dict(question=axes.QUESTIONS[axis], parts=entries)
    for system in chosen:
        found.setdefault("systems", {})[system] = _system(system, name == system)
    return found


def _part(axis: str, name: str, alone: bool, combinations: bool) -> dict[str, Any]:
    from vargen import axes

    found: dict[str, Any] = dict(summary=axes.summary(axis, name))
    if alone:
        from vargen.cli import help_config

        found["options"] = help_config.options(axis, name)
    if combinations:
        from vargen import combinations as tried

        if axis in tried.AXES:
            found["goes_with"] = tried.fitting(axis, name)
    return found


def _system(name: str, alone: bool) -> dict[str, Any]:
    from vargen import config, systems

    s = systems.read(name)
    found: dict[str, Any] = dict(title=s.title, what=s.what, paper=s.url, config=name, sizes=[*s.sizes])
    found |= dict(checked=s.checked, goldens=[*s.goldens], parameters=s.parameters, counts=dict(s.counts))
    found["measured"] = dict(s.measured)
    if alone:
        found |= dict(parts=systems.parts(s, config.AXES), notes=[*s.notes])
    return found


def text(found: dict[str, Any]) -> Iterator[str]:
    """The same for a person."""
    for axis, told in found.get("axes", {}).items():
        yield f"{axis}: {told['question']}"
        for name, part in told["parts"].items():
            yield from _wrapped(f"  {name:<18}", part["summary"])
            for option, (holds, meaning) in part.get("options", {}).items():
                yield from _wrapped(f"    {option:<18}", " ".join(x for x in (f"[{holds}]", meaning) if x))
            for other, names in part.get("goes_with", {}).items():
                yield from _wrapped(f"    {'goes with':<10}{other:<8}", ", ".join(names) or "none")
        yield ""
    systems = found.get("systems", {})
    if systems:
        yield f"systems (--config NAME:SIZE): {len(systems)}" if len(systems) > 1 else "system"
    for name, told in systems.items():
        yield from _wrapped(f"  {name:<18}", f"{told['title']}: {told['what']}. {told['paper']}")
        yield from _wrapped(f"    {'sizes':<16}", ", ".join(told["sizes"]))
        if "parts" in told:
            yield from _wrapped(f"    {'parts':<16}", ", ".join(f"{k} {v}" for k, v in told["parts"].items()))
        against = f" (against the authors' {', '.join(told['goldens'])})" if told["goldens"] else ""
        yield from _wrapped(f"    {'checked':<16}", told["checked"] + against)
        if told["measured"]:
            yield from _wrapped(f"    {'on the digits':<16}", figures(told["measured"]))
        for note in told.get("notes", ()):
            yield ""
            yield from _wrapped("    ", note)


def figures(measured: Mapping[str, float]) -> str:
    """What a run on the digits came to, in words."""
    from vargen.systems import FIGURES

    def shown(key: str, value: float) -> str:
        if key == "psnr_db":
            return f"{value:.1f} dB"
        return f"{value:.2f}" if "distance" in key else f"{100 * value:.1f} %"

    return ", ".join(f"{FIGURES[key]} {shown(key, value)}" for key, value in measured.items())


def _wrapped(first: str, words: str) -> list[str]:
    """Lines that begin with `first`, and go on below what comes after it."""
    return textwrap.wrap(
        words,
        WIDTH,
        initial_indent=f"{first} ",
        subsequent_indent=" " * (len(first) + 1),
        break_on_hyphens=False,
    )
