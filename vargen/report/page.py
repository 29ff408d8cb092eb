"""One self-contained page about one trained system: what it draws, how well, and how it was made.

Everything is inside the file (pictures as base64 PNG, curves as SVG), so it can be mailed to a friend.
"""

from __future__ import annotations

import html
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from vargen import paths
from vargen.report import pictures
from vargen.report.charts import Series, chart
from vargen.report.metrics import METRICS, levels
from vargen.report.style import STYLE

# What is said first, of those that were measured.
HEADLINES = ("fid", "label_accuracy", "psnr_db", "codebook_use", "train_seconds")


def write(
    directory: paths.PathLike,
    *,
    title: str,
    summary: str,
    config_json: str,
    metrics: Mapping[str, float],
    samples: np.ndarray,
    labels: Sequence[int],
    class_names: Sequence[str],
    originals: np.ndarray,
    reconstructions: np.ndarray,
    original_labels: Sequence[int] = (),
    recognised: Mapping[int, float] | None = None,
    nearest: tuple[np.ndarray, np.ndarray, Sequence[int]] | None = None,
    caveats: Sequence[str] = (),
    steps: np.ndarray | None = None,
    step_names: Sequence[str] = (),
    step_labels: Sequence[int] = (),
    curves: Mapping[str, Mapping[str, Series]] | None = None,
    facts: Mapping[str, str] | None = None,
    command: str = "",
    made_by: Mapping[str, Any] | None = None,
) -> paths.Path:
    """Writes `report.html`, `samples.png` and `metrics.json` into `directory`.

    Images are uint8 or float in [-1, 1], [..., H, W, C]. Clips [..., T, H, W, C] move in the page, and are strips in
    samples.png.

    Args:
      directory: made where it is missing.
      title: the headline.
      summary: two sentences under it: what was trained on what.
      config_json: the config as JSON text, shown folded.
      metrics: numbers by name; those of `METRICS` are shown in its order, beside their real-data references.
      samples: [M, H, W, C], drawn by the model.
      labels: [M], the classes that were asked for.
      class_names: a name for every class.
      originals: [R, H, W, C], held-out images.
      reconstructions: [R, H, W, C], the same after the tokenizer and back.
      original_labels: [R], their classes.
      recognised: of each class the share of samples that the classifier recognises.
      nearest: [P, H, W, C] samples, the training images nearest to them, and the P labels; None leaves the part out.
      caveats: sentences that stand above everything.
      steps: [T, E, H, W, C], E samples as they look after each of T steps; None leaves the part out.
      step_names: T captions.
      step_labels: E classes.
      curves: chart title -> series name -> (steps, losses).
      facts: what else to say about the run (parameters, device, versions, ...).
      command: the command that makes this page.
      made_by: the settings inside samples.png; see `pictures.save`.

    Returns:
      The path of report.html.
    """
    directory = paths.path(directory)
    rows = by_class(samples, labels)
    lead = "A row for each class, unselected"
    lead += (
        "; below its name, the share of its samples that the classifier recognises." if recognised else "."
    )
    sections = [("Drawn on request", lead, _samples(rows, class_names, recognised or {}))]
    if samples.ndim > 4:
        lead = "The first sample of each class, whose frames follow one another from left to right."
        frames = {c: clips[0] for c, clips in rows.items()}
        sections.append(("Frame by frame", lead, _samples(frames, class_names, {})))
    if steps is not None:
        lead = "The image so far, after each step."
        sections.append(
            ("From nothing to picture", lead, _steps(steps, step_names, _names(step_labels, class_names)))
        )
    lead = "Held-out images above; below each, what is left after the tokenizer and back."
    names = _names(original_labels, class_names)
    sections.append(("There and back", lead, _pairs(originals, reconstructions, names)))
    if nearest is not None:
        lead = "Samples above; below each, the training picture nearest to it."
        names = _names(nearest[2], class_names)
        sections.append(
            ("Drawn or remembered?", lead, _pairs(*nearest[:2], names, ("sample", "training picture")))
        )
    if curves:
        charts = "".join(chart(name, series) for name, series in curves.items())
        sections.append(("Learning", "Loss by training step.", f'<div class="charts">{charts}</div>'))
    lead = "On samples and held-out images; real images beside, where the measure allows."
    sections.append(("Measured", lead, _table(metrics) + _levels(metrics)))
    sections.append(("How it was made", "", _made(facts or {}, command, config_json)))
    parts = [_header(title, summary, metrics, caveats), *(section(*each) for each in sections)]
    numbers: dict = _plain(metrics)
    if recognised:
        numbers["label_accuracy_by_class"] = {class_names[c]: share for c, share in recognised.items()}
    paths.write_text(directory / "metrics.json", json.dumps(numbers, indent=2) + "\n")
    pictures.save(sheet(rows, class_names), directory / "samples.png", made_by)
    paths.write_text(directory / "report.html", whole(title, parts))
    return directory / "report.html"


def whole(title: str, parts: Sequence[str]) -> str:
    """A page of these parts."""
    body = "\n".join(parts)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta name="color-scheme" content="light dark"><title>{html.escape(title)}</title>'
        f"<style>{STYLE}</style></head>\n<body><main>\n{body}\n"
        "<footer>Made by vargen: one grammar for visual autoregressive generation, in JAX.</footer>"
        "</main></body></html>\n"
    )


def by_class(
    samples: np.ndarray, labels: Sequence[int], most: int = 12, classes: int = 20
) -> dict[int, np.ndarray]:
    """The first samples of each class: class -> [up to `most`, H, W, C], for at most `classes` classes."""
    labels = np.asarray(labels)
    return {int(c): np.asarray(samples)[labels == c][:most] for c in np.unique(labels)[:classes]}


def sheet(rows: Mapping[int, np.ndarray], class_names: Sequence[str]):
    """The samples of `by_class` as one labelled picture (PIL)."""
    columns = min(len(images) for images in rows.values())
    cells = np.stack([pictures.to_uint8(images[:columns]) for images in rows.values()])
    return pictures.grid(cells, row_labels=[class_names[c] for c in rows])


def _plain(metrics: Mapping[str, float]) -> dict[str, float | None]:
    """JSON has no NaN: a number that is not finite becomes null."""
    return {
        k: (v if isinstance(v, int) else float(v)) if math.isfinite(v) else None for k, v in metrics.items()
    }


def section(title: str, lead: str, body: str) -> str:
    """A part of a page: a heading, a sentence, and what it is of as HTML."""
    lead = f'<p class="lead">{html.escape(lead)}</p>' if lead else ""
    return f"<section><h2>{html.escape(title)}</h2>{lead}{body}</section>"


def picture(image: np.ndarray, alt: str) -> str:
    """One picture [H, W, C], or clip [T, H, W, C], inside a page."""
    return f'<img src="{pictures.data_address(image)}" alt="{html.escape(alt)}">'


def _names(labels: Sequence[int], class_names: Sequence[str]) -> list[str]:
    return [class_names[int(c)] for c in labels]


def _header(title: str, summary: str, metrics: Mapping[str, float], notes: Sequence[str] = ()) -> str:
    tiles = []
    for key in HEADLINES:
        if key not in metrics:
            continue
        metric = METRICS[key]
        note = f"real images: {metric.show(metrics[metric.reference])}" if metric.reference in metrics else ""
        tiles.append(
            f"<div><strong>{metric.show(metrics[key])}</strong><span>{metric.label}</span><em>{note}</em></div>"
        )
    return (
        f'<header><p class="kicker">vargen</p><h1>{html.escape(title)}</h1>'
        f'<p class="summary">{html.escape(summary)}</p>'
        f'<div class="tiles">{"".join(tiles)}</div>{remarks(notes)}</header>'
    )


def remarks(notes: Sequence[str]) -> str:
    """Sentences that stand above everything."""
    if not notes:
        return ""
    items = "".join(f"<li>{html.escape(text)}</li>" for text in notes)
    return f'<div class="caveats"><h3>Before you believe the numbers</h3><ul>{items}</ul></div>'


def _samples(
    rows: Mapping[int, np.ndarray], class_names: Sequence[str], recognised: Mapping[int, float]
) -> str:
    lines = []
    for c, images in rows.items():
        name = class_names[c]
        cells = "".join(picture(image, f"sample of {name}") for image in images)
        share = f"<small>{recognised[c]:.0%}</small>" if c in recognised else ""
        lines.append(
            f'<div class="row"><span class="name">{html.escape(name)}{share}</span>'
            f'<div class="strip">{cells}</div></div>'
        )
    columns = max(len(images) for images in rows.values())
    width = width_of(class_names[c] for c in rows)
    return f'<div class="samples" style="--columns:{columns};--names:{width}">{"".join(lines)}</div>'


def width_of(names: Iterable[str]) -> str:
    """Of a column of classes' names, below which a share may stand: by the longest, within limits."""
    return f"{min(max(4, *map(len, names)), 12) * 0.6 + 0.4:.1f}em"


def _steps(steps: np.ndarray, names: Sequence[str], classes: Sequence[str]) -> str:
    chosen = np.unique(np.linspace(0, len(steps) - 1, min(len(steps), 10)).round().astype(int))
    captions = "".join(f"<span>{html.escape(names[t]) if len(names) else t + 1}</span>" for t in chosen)
    strips = []
    for e in range(min(steps.shape[1], 12 if len(chosen) <= 5 else 6)):
        cells = "".join(picture(steps[t, e], f"sample {e + 1} after step {t + 1}") for t in chosen)
        label = f'<span class="name">{html.escape(classes[e])}</span>' if len(classes) > e else ""
        strips.append(f'<div>{label}<div class="steps">{cells}{captions}</div></div>')
    return f'<div class="growth" style="--columns:{len(chosen)}">{"".join(strips)}</div>'


def _pairs(
    above: np.ndarray,
    below: np.ndarray,
    names: Sequence[str] = (),
    words: tuple[str, str] = ("original", "reconstruction"),
) -> str:
    pairs = []
    for i, (a, b) in enumerate(list(zip(above, below, strict=True))[:20]):
        label = f'<span class="name">{html.escape(names[i])}</span>' if len(names) > i else ""
        pairs.append(f"<figure>{label}{picture(a, words[0])}{picture(b, words[1])}</figure>")
    return f'<div class="pairs">{"".join(pairs)}</div>'


def _table(metrics: Mapping[str, float]) -> str:
    lines = []
    for key, metric in METRICS.items():
        if key not in metrics:
            continue
        reference = metric.show(metrics[metric.reference]) if metric.reference in metrics else ""
        lines.append(
            f'<tr><th scope="row">{metric.label}<small>{metric.meaning}</small></th>'
            f"<td>{metric.show(metrics[key])}</td><td>{reference}</td></tr>"
        )
    return (
        '<table><thead><tr><th scope="col"></th><th scope="col">this model</th>'
        '<th scope="col">real images</th></tr></thead>'
        f"<tbody>{''.join(lines)}</tbody></table>"
    )


def _levels(metrics: Mapping[str, float]) -> str:
    lines = [
        f'<tr><th scope="row">{name}</th><td>{use}</td><td>{perplexity}</td></tr>'
        for name, use, perplexity in levels(metrics)
    ]
    if not lines:
        return ""
    from vargen.tokenizers import usage  # with jax, for which pictures alone need not wait

    warning = usage.warning(metrics)
    return (
        '<table class="levels"><thead><tr><th scope="col"></th><th scope="col">use</th>'
        f'<th scope="col">perplexity</th></tr></thead><tbody>{"".join(lines)}</tbody></table>'
        + (f'<p class="lead">{html.escape(warning)}</p>' if warning else "")
    )


def listed(facts: Mapping[str, Any]) -> str:
    """How something was made, by names, as HTML."""
    pairs = (f"<div><dt>{html.escape(k)}</dt><dd>{html.escape(str(v))}</dd></div>" for k, v in facts.items())
    return f"<dl>{''.join(pairs)}</dl>"


def _made(facts: Mapping[str, str], command: str, config_json: str) -> str:
    again = f"<p>Make this page again:</p><pre>{html.escape(command)}</pre>" if command else ""
    config = f"<details><summary>The whole config</summary><pre>{html.escape(config_json)}</pre></details>"
    return f"{listed(facts)}{again}{config}"
