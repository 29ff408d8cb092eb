"""The published systems, as their configs and the measured results tell of them."""

from __future__ import annotations

import ast
import dataclasses
import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

from vargen import bundled

TITLE = re.compile(r"(?P<title>[^:]+): (?P<what>.+)\. arXiv (?P<paper>\d{4}\.\d{5})\.")
CHECKED = re.compile(r"Checked: (.*?)\.(?: |$)")
GOLDENS = re.compile(r" \(goldens? ([\w, ]+)\)$")
PARAMETERS = re.compile(r"Parameters .*?\.(?= [A-Z]|$)")
COUNT = re.compile(r"([\w.]+) (\d+(?:\.\d+)?) ([MG])\b")
SMALL = ("digits", "pictures", "shapes")  # how sizes begin that are no paper's
# What of a run on the digits is worth a line, by the name in the results.
FIGURES = {
    "label_accuracy": "label accuracy",
    "frechet_distance_classifier": "Fréchet distance",
    "precision": "precision",
    "recall": "recall",
    "psnr_db": "PSNR",
}


@dataclasses.dataclass(frozen=True)
class System:
    """A published system that has a config.

    Attributes:
      name: of its config.
      title: as its authors call it.
      what: it is, in a sentence.
      paper: its number on arXiv.
      sizes: what may follow its config's name.
      checked: against what, and how near.
      goldens: the authors' outputs that it was checked against, files of tests/goldens; none where it says so.
      parameters: how many the paper's sizes have, against whose count.
      counts: these numbers by the sizes, as they are rounded there.
      notes: what the config's docstring says further, paragraphs.
      measured: on the digits, by `FIGURES`; empty where the results aren't at hand, as in a wheel.
    """

    name: str
    title: str
    what: str
    paper: str
    sizes: tuple[str, ...]
    checked: str
    goldens: tuple[str, ...]
    parameters: str
    counts: Mapping[str, int]
    notes: tuple[str, ...]
    measured: Mapping[str, float]

    @property
    def url(self) -> str:
        """Of the paper."""
        return f"https://arxiv.org/abs/{self.paper}"

    @property
    def published(self) -> tuple[str, ...]:
        """The sizes that are the paper's."""
        return tuple(size for size in self.sizes if not size.startswith(SMALL))


def names() -> list[str]:
    """The systems' names: configs whose first line ends with a paper."""
    return [name for name in bundled.names() if TITLE.fullmatch(_first(_tree(name)))]


def read(name: str) -> System:
    """A system by its name, one of `names`; its config runs."""
    from vargen import config  # slow to import, which names don't need

    tree = _tree(name)
    told = TITLE.fullmatch(_first(tree))
    assert told is not None
    paragraphs = [" ".join(p.split()) for p in (ast.get_docstring(tree) or "").split("\n\n") if p[:1] != " "]
    checked, notes = "", paragraphs[1:]
    for i, paragraph in enumerate(notes):
        if found := CHECKED.match(paragraph):
            checked, notes[i] = found[1], paragraph[found.end() :]
    goldens = GOLDENS.search(checked)
    parameters = " ".join(x[0] for note in notes for x in [PARAMETERS.search(note)] if x)
    sizes = config.variants(name)
    return System(
        name,
        **told.groupdict(),
        sizes=sizes,
        checked=GOLDENS.sub("", checked),
        goldens=tuple(goldens[1].split(", ")) if goldens else (),
        parameters=parameters,
        counts=_counts(parameters, sizes),
        notes=tuple(notes),
        measured=_measured(name),
    )


def table() -> str:
    """All systems as docs/systems.md's table in Markdown, of the parts in each one's first size of its paper."""
    axes = ("tokenizer", "order", "feed", "head")
    lines = [f"| system | config | {' | '.join(axes)} | checked |", "|---" * (len(axes) + 3) + "|"]
    for name in names():
        s = read(name)
        cells = [f"[{s.title}]({s.url})", f"[{name}](../configs/{name}.py): {', '.join(s.published)}"]
        cells += [f"`{part}`" for part in parts(s, axes).values()] + [s.checked]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def parts(system: System, axes: Iterable[str]) -> dict[str, str]:
    """The names of a system's parts by axes, in its first size of the paper."""
    from vargen import config

    c = config.load(bundled.folder() / f"{system.name}.py:{system.published[0]}")
    return {axis: c[axis].name for axis in axes}


def _counts(parameters: str, sizes: Iterable[str]) -> dict[str, int]:
    """The numbers by sizes, of which a sentence says such as "B 110.9 M, XXL 1.4 G"."""
    said = ((size.lower(), number, unit) for size, number, unit in COUNT.findall(parameters))
    return {size: round(float(x) * dict(M=1e6, G=1e9)[unit]) for size, x, unit in said if size in sizes}


def _tree(name: str) -> ast.Module:
    return ast.parse((bundled.folder() / f"{name}.py").read_text(encoding="utf-8"))


def _first(tree: ast.Module) -> str:
    return (ast.get_docstring(tree) or "").split("\n\n")[0].replace("\n", " ")


def _measured(name: str) -> dict[str, float]:
    """What a run of `vargen quickstart --config NAME:digits` came to, where a clone's results are at hand."""
    file = bundled.folder().parent / "benchmarks" / "results" / "digits.json"
    if not file.is_file():
        return {}
    found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    row = found.get(name) or found["on_a_shared_core"].get(name, {})
    return {key: row[key] for key in FIGURES if key in row}
