"""One self-contained page about several systems: who stands where, what they draw, and what it takes."""

from __future__ import annotations

import dataclasses
import html
from collections.abc import Mapping, Sequence

import numpy as np

from vargen import paths
from vargen.report import page, pictures, standing
from vargen.report.charts import marks
from vargen.report.metrics import METRICS
from vargen.report.ranking import Spread
from vargen.spelling import counted

UPDATES, TOKENIZER_UPDATES = "updates", "tokenizer_updates"  # of the plan: no metrics, and without a spread
QUALITY = (
    *("fid", "sfid", "inception_score", "inception_precision", "inception_recall", "kid"),
    *("frechet_distance_classifier", "label_accuracy", "precision", "recall", "psnr_db", TOKENIZER_UPDATES),
)
COST = (
    *(
        UPDATES,
        "generator_parameters",
        "tokenizer_parameters",
        "generator_train_seconds",
        "training_images_per_second",
    ),
    *("training_flops", "sampling_passes", "sampling_flops", "images_per_second"),
)
BITS = "bits_per_dimension", "bits_per_dimension_bound"
SHORT = dict(
    frechet_distance_classifier="Fréchet distance",
    psnr_db="PSNR of the tokenizer",
    generator_parameters="generator, parameters",
    tokenizer_parameters="tokenizer, parameters",
    generator_train_seconds="training",
    training_images_per_second="training images/s",
    updates="updates",
    tokenizer_updates="updates of the tokenizer",
)
CELLS = 12  # pictures of a class beside each other, of all systems together


@dataclasses.dataclass
class System:
    """What a page says of a system.

    Attributes:
      title: its name in full.
      config: as the command line named it.
      tokenizer: whose it takes.
      likelihood: "exact", "bound", or why there is none.
      updates: of its generator, by budget.
      tokenizer_updates: of the tokenizer; None where it has nothing to train.
    """

    title: str
    config: str
    tokenizer: str
    likelihood: str
    updates: Mapping[str, int]
    tokenizer_updates: int | None


@dataclasses.dataclass
class Comparison:
    """All of a page.

    Attributes:
      title: the headline.
      systems: by their names, as all the others.
      summary: name -> budget -> metric -> its spread over seeds.
      budgets: name -> in words, and the amount; from the smallest.
      unit: of the amounts.
      ranks, ties: by the metric `ranked` and the largest budget; see `ranking`.
      ranked: the name of that.
      pictures: uint8 [M, H, W, C], and their classes int [M].
      classes: names of the classes.
      real: metrics of real images, by the names in `METRICS`.
      failures: run -> what became of it.
      notes: sentences that stand above everything.
      facts: what else to say.
      command: what makes the page.
    """

    title: str
    systems: Mapping[str, System]
    summary: Mapping[str, Mapping[str, Mapping[str, Spread]]]
    budgets: Mapping[str, tuple[str, float]]
    unit: str
    ranks: Mapping[str, int]
    ties: Mapping[str, Sequence[str]]
    ranked: str
    pictures: Mapping[str, tuple[np.ndarray, np.ndarray]]
    classes: Sequence[str]
    real: Mapping[str, float]
    failures: Mapping[str, str]
    notes: Sequence[str]
    facts: Mapping[str, str]
    command: str

    def order(self) -> list[str]:
        """The names, the best first, and those that have no rank last."""
        return [*self.ranks, *(name for name in self.systems if name not in self.ranks)]

    def spreads(self, name: str, budget: str = "") -> Mapping[str, Spread]:
        """Metrics of a system, with the largest budget where none is named."""
        return self.summary[name][budget or self.last]

    def called(self, name: str) -> str:
        """A system's title, where it has that alone; else its name."""
        title = self.systems[name].title
        return title if [s.title for s in self.systems.values()].count(title) == 1 and title else name

    @property
    def seeds(self) -> int:
        """The most that a number is over."""
        found = (s.count for own in self.summary.values() for m in own.values() for s in m.values())
        return max(found, default=0)

    @property
    def last(self) -> str:
        """The largest budget."""
        return list(self.budgets)[-1]


def write(directory: paths.PathLike, c: Comparison) -> paths.Path:
    """Writes `compare.html` and `ranking.png` into `directory`; returns the path of the page."""
    directory = paths.path(directory)
    sections = [("Who stands where", _ranking_lead(c), _ranking(c))]
    if c.pictures:
        lead = "The same classes and the same seeds for all, unselected; the best on the left."
        sections.append(("Drawn on request", lead, _beside(c)))
    charts = _charts(c)
    if charts:
        sections.append(("At what price", "Lower is closer to real pictures.", charts))
    lead = f"With {c.budgets[c.last][0]}: mean and sample standard deviation over seeds."
    smaller = ""
    for budget, (words, _) in list(c.budgets.items())[:-1]:
        tables = _table(c, budget, QUALITY, True) + _table(c, budget, COST)
        smaller += f"<details><summary>With {html.escape(words)}</summary>{tables}</details>"
    body = _table(c, c.last, QUALITY, True) + _table(c, c.last, COST) + smaller
    sections.append(("Measured", lead, body))
    if c.failures:
        items = "".join(f"<li><b>{html.escape(k)}</b>: {html.escape(v)}</li>" for k, v in c.failures.items())
        sections.append(("What failed", "", f"<ul>{items}</ul>"))
    sections.append(("How it was made", "", _made(c)))
    header = (
        f'<header><p class="kicker">vargen</p><h1>{html.escape(c.title)}</h1>'
        f'<p class="summary">{html.escape(_summary(c))}</p>{page.remarks(c.notes)}</header>'
    )
    paths.write_text(
        directory / "compare.html", page.whole(c.title, [header, *(page.section(*s) for s in sections)])
    )
    if c.ranks:
        pictures.save(standing.draw(c), directory / "ranking.png")
    return directory / "compare.html"


def number(spread: Spread | None, key: str) -> str:
    """A mean and, where there is one, its deviation, with the metric's unit."""
    if spread is None:
        return ""
    metric = METRICS[key]
    shown = metric.show(spread.mean)
    return shown if spread.deviation is None else f"{shown} ± {metric.show(spread.deviation)}"


def _summary(c: Comparison) -> str:
    seeds = c.seeds
    first = [c.called(name) for name, rank in c.ranks.items() if rank == 1]
    text = f"Trained on the same data with the same budget, {counted(seeds, 'seed')} each."
    if len(first) == 1:
        text += f" {first[0]} comes first."
    elif first:
        text += f" {', '.join(first[:-1])} and {first[-1]} share the first place."
    return text


def _ranking_lead(c: Comparison) -> str:
    if not c.ranks:
        return "No ranking: the distance that it goes by was not measured."
    return (
        f"By the {METRICS[c.ranked].label}, {METRICS[c.ranked].meaning}. Two are tied where the intervals from mean - "
        "deviation to mean + deviation overlap; a rank is one more than the number of systems whose interval lies "
        "wholly below."
    )


def _ranking(c: Comparison) -> str:
    lines, seeds = [], c.seeds
    for name in c.order():
        system, own = c.systems[name], c.spreads(name)
        tied = ", ".join(map(c.called, c.ties.get(name, ()))) or ("none" if name in c.ranks else "")
        distance = own.get(c.ranked)
        fewer = (
            f" <small>{distance.count} of {seeds} seeds</small>"
            if distance and distance.count < seeds
            else ""
        )
        title = f"{html.escape(c.called(name))}<small>{html.escape(system.config)}</small>"
        lines.append(
            f'<tr><td>{c.ranks.get(name, "")}</td><th scope="row">{title}</th>'
            f"<td>{number(distance, c.ranked)}{fewer}</td><td>{html.escape(tied)}</td></tr>"
        )
    return _wide(("", "", SHORT.get(c.ranked) or METRICS[c.ranked].label, "tied with"), lines)


def _table(c: Comparison, budget: str, keys: Sequence[str], bits: bool = False) -> str:
    planned = {k for k in (UPDATES, TOKENIZER_UPDATES) if any(_planned(c, n, budget, k) for n in c.systems)}
    if not any(k in own[budget] for own in c.summary.values() for k in keys):
        return ""
    keys = [k for k in keys if k in planned or any(k in own[budget] for own in c.summary.values())]
    lines = []
    for name in c.order():
        own = c.spreads(name, budget)
        cells = [_planned(c, name, budget, k) if k in planned else number(own.get(k), k) for k in keys]
        if bits:
            key = next((k for k in BITS if k in own), "")
            shown = f"{'≤ ' * (key == BITS[1])}{number(own.get(key), key)} "
            cells.append(f"{shown}<small>{html.escape(c.systems[name].likelihood)}</small>")
        row = "".join(f"<td>{cell}</td>" for cell in cells)
        lines.append(f'<tr><th scope="row">{html.escape(c.called(name))}</th>{row}</tr>')
    if (
        bits
        and (real := [None if k in planned else c.real.get(METRICS[k].reference) for k in keys])
        and any(r is not None for r in real)
    ):
        row = "".join(
            f"<td>{'' if r is None else METRICS[k].show(r)}</td>" for k, r in zip(keys, real, strict=True)
        )
        lines.append(f'<tr><th scope="row">real pictures</th>{row}<td></td></tr>')
    heads = [SHORT.get(k) or METRICS[k].label for k in keys] + ["bits per dimension"] * bits
    return _wide(("", *heads), lines)


def _planned(c: Comparison, name: str, budget: str, key: str) -> str:
    """A number of the plan; "" where it has none."""
    system = c.systems[name]
    found = system.updates.get(budget) if key == UPDATES else system.tokenizer_updates
    return "" if found is None else str(found)


def _wide(heads: Sequence[str], lines: Sequence[str]) -> str:
    cells = "".join(f'<th scope="col">{html.escape(head)}</th>' for head in heads)
    return f'<div class="wide"><table><thead><tr>{cells}</tr></thead><tbody>{"".join(lines)}</tbody></table></div>'


def _beside(c: Comparison) -> str:
    names = [name for name in c.order() if name in c.pictures]
    each = max(1, min(4, CELLS // len(names)))
    labels = np.unique(np.concatenate([c.pictures[name][1] for name in names]))
    cells = ["<span></span>", *(f"<b>{html.escape(c.called(name))}</b>" for name in names)]
    for label in labels:
        cells.append(f'<span class="name">{html.escape(c.classes[label])}</span>')
        for name in names:
            images, of = c.pictures[name]
            strip = "".join(
                page.picture(image, f"{c.called(name)}: {c.classes[label]}")
                for image in images[of == label][:each]
            )
            cells.append(f'<div class="strip" style="--columns:{each}">{strip}</div>')
    width = page.width_of(c.classes[label] for label in labels)
    kind = "beside upright" if len(names) > 6 else "beside"  # names don't fit above many columns
    return f'<div class="{kind}" style="--systems:{len(names)};--names:{width}">{"".join(cells)}</div>'


def _charts(c: Comparison) -> str:
    def point(name, budget, x):
        found = c.spreads(name, budget)
        y = found.get(c.ranked)
        x = found.get(x) if isinstance(x, str) else Spread(x, None, 1)
        return [] if x is None or y is None else [(x.mean, y.mean, y.deviation or 0.0)]

    label = METRICS[c.ranked].label
    speed = {
        c.called(name): [(1 / x, y, s) for x, y, s in point(name, c.last, "images_per_second") if x > 0]
        for name in c.order()
    }
    work = {c.called(name): point(name, c.last, "sampling_flops") for name in c.order()}
    found = [
        marks("By sampling time", "seconds an image", speed, label),
        marks("By sampling work", "FLOPs an image", work, label),
    ]
    if len(c.budgets) > 1:
        trained = {
            c.called(name): [p for b, (_, x) in c.budgets.items() for p in point(name, b, float(x))]
            for name in c.order()
        }
        found.append(marks("By training budget", f"{c.unit} of training", trained, label))
    flops = {
        c.called(name): [p for b in c.budgets for p in point(name, b, "training_flops")] for name in c.order()
    }
    found.append(marks("By training work", "FLOPs of training", flops, label))
    found = [chart for chart in found if chart]
    return f'<div class="charts">{"".join(found)}</div>' if found else ""


def _made(c: Comparison) -> str:
    facts = dict(c.facts)
    for name in c.order():
        system = c.systems[name]
        updates = ", ".join(f"{counted(n, 'update')} ({budget})" for budget, n in system.updates.items())
        facts[c.called(name)] = f"{system.config}; {updates or 'not trained'}; tokenizer: {system.tokenizer}"
    return f"{page.listed(facts)}<p>Make this page again:</p><pre>{html.escape(c.command)}</pre>"
