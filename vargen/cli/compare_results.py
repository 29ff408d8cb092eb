"""What came of a comparison: numbers over seeds, and the files that say so."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from vargen import paths, schema
from vargen.cli import describe, evaluate
from vargen.cli.compare_plan import CLASSIFIERS, FIELDS
from vargen.cli.compare_runs import PICTURES, Run
from vargen.report import METRICS, comparison, ranking
from vargen.spelling import counted

if TYPE_CHECKING:
    import pathlib

    from vargen.cli.compare_plan import Request

# Of a run, in compare.csv; those that all share, of real images, are in compare.json.
COLUMNS = (
    *("label_accuracy", CLASSIFIERS, "precision", "recall", "nearest_distance", "psnr_db", "valid"),
    *(FIELDS, "sfid", "inception_score", "inception_precision", "inception_recall", "kid"),
    *("bits_per_dimension", "bits_per_dimension_bound", "bits_per_code", "bits_per_code_bound"),
    *(
        "tokenizer_parameters",
        "generator_parameters",
        "generator_train_seconds",
        "training_images_per_second",
    ),
    *("training_flops", "sampling_passes", "sampling_flops", "images_per_second"),
)


def write(
    out: pathlib.Path,
    request: Request,
    plan: Mapping[str, Any],
    runs: Sequence[Run],
    classes: Sequence[str],
    command: str,
) -> None:
    """Writes compare.csv, compare.json, compare.html and ranking.png of what there is so far."""
    measured = {run.name: run.measured() for run in runs}
    summary = {
        name: {
            str(b): _spreads([measured[r.name] for r in runs if (r.system, r.budget) == (name, str(b))])
            for b in request.budgets
        }
        for name in plan["systems"]
    }
    paths.write_text(out / "compare.csv", table(runs, plan, measured, summary))
    last, ranked = str(request.budgets[-1]), request.ranked
    standing = {name: found[last][ranked] for name, found in summary.items() if ranked in found[last]}
    ranks, ties = ranking.ranks(standing), ranking.ties(standing)
    told = dict(
        command=command,
        plan=plan,
        runs=[
            dict(
                system=r.system,
                budget=r.budget,
                seed=r.seed,
                updates=r.updates,
                tokenizer=r.tokenizer,
                tokenizer_updates=r.tokenizer_updates,
                failed=r.failed,
                metrics=measured[r.name],
            )
            for r in runs
        ],
        summary={
            name: {b: {k: v._asdict() for k, v in found.items()} for b, found in own.items()}
            for name, own in summary.items()
        },
        ranking=dict(by=ranked, budget=last, ranks=ranks, ties=ties),
    )
    paths.write_text(out / "compare.json", json.dumps(told, indent=1) + "\n")
    failed = [run for run in runs if run.failed]
    shown = comparison.Comparison(
        title=f"{counted(len(plan['systems']), 'system')}, {request.budgets[-1].words} each",
        systems={name: _shown(name, own, plan) for name, own in plan["systems"].items()},
        summary=summary,
        budgets={str(b): (b.words, b.amount) for b in request.budgets},
        unit=dict(s="seconds", images="images", flops="FLOPs")[request.budgets[0].unit],
        ranks=ranks,
        ties=ties,
        ranked=ranked,
        pictures=_pictures(runs, last),
        classes=list(classes),
        real=_real(measured.values()),
        failures={r.name: r.failed for r in failed},
        notes=notes(request, plan, runs),
        facts=_facts(request, plan),
        command=command,
    )
    comparison.write(out, shown)


def table(
    runs: Sequence[Run],
    plan: Mapping[str, Any],
    measured: Mapping[str, Mapping[str, float]],
    summary: Mapping[str, Mapping[str, Mapping[str, ranking.Spread]]],
) -> str:
    """A line for each run; then mean and sample standard deviation over seeds, in the seed's place."""
    text = io.StringIO()
    lines = csv.writer(text, lineterminator="\n")
    heads = ("system", "budget", "seed", "updates", "tokenizer", "tokenizer_updates", "likelihood")
    lines.writerow((*heads, *COLUMNS, "failed"))

    def write(r: Run, seed: int | str, found: Mapping[str, float | None], failed: str) -> None:
        kind = plan["systems"][r.system]["likelihood"][0]
        row = (r.system, r.budget, seed, r.updates, r.tokenizer, r.tokenizer_updates, kind)
        lines.writerow("" if v is None else v for v in (*row, *map(found.get, COLUMNS), failed))

    for r in runs:
        write(r, r.seed, measured[r.name], r.failed)
    for r in runs:
        if r.seed == 0 and (spreads := summary[r.system][r.budget]):
            write(r, "mean", {k: s.mean for k, s in spreads.items()}, "")
            write(r, "deviation", {k: s.deviation for k, s in spreads.items()}, "")
    return text.getvalue()


def _spreads(found: Sequence[Mapping[str, Any]]) -> dict[str, ranking.Spread]:
    """Each number over seeds, of those runs that have it."""
    every = {}
    for key in METRICS:
        values = [f[key] for f in found if f.get(key) is not None]
        if (spread := ranking.spread(values)) is not None:
            every[key] = spread
    return every


def _real(measured: Any) -> dict[str, float]:
    """What real images have, as the first run that was measured says."""
    first: Mapping[str, Any] = next((m for m in measured if m), {})
    return {k: v for k, v in first.items() if k.startswith("real_") and v is not None}


def _pictures(runs: Sequence[Run], budget: str) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Of each system what its first seed drew with a budget: uint8 [M, H, W, C], and the classes asked for, int [M]."""
    found: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    for run in runs:
        if run.budget == budget and run.seed == 0 and run.measured():
            try:
                with np.load(run.workdir / PICTURES) as file:
                    found[run.system] = file["samples"], file["labels"]
            except (OSError, ValueError, KeyError):
                continue
    return found


def _shown(name: str, own: Mapping[str, Any], plan: Mapping[str, Any]) -> comparison.System:
    kind, why = own["likelihood"]
    tokenizer = "its own" if own["tokenizer"] == name else f"that of {own['tokenizer']} ({own['shared']})"
    if own["apart"]:
        tokenizer += f"; not shared: {own['apart']}"
    trained = plan["tokenizers"].get(own["tokenizer"], {})
    return comparison.System(
        title=own["title"],
        config=plan["asked"]["systems"][name],
        tokenizer=tokenizer,
        likelihood=f"{kind}: {why}" if kind == "none" else kind,
        updates=own.get("updates", {}),
        tokenizer_updates=trained.get("updates"),
    )


def notes(request: Request, plan: Mapping[str, Any], runs: Sequence[Run]) -> list[str]:
    """What to know before one believes the numbers."""
    seeds = 1 + max(r.seed for r in runs)
    found = []
    if ahead := sum(not (r.failed or r.measured()) for r in runs):
        found.append(
            f"{counted(ahead, 'run')} of {len(runs)} are still ahead: this is what there is so far. The command below "
            "goes on where it was stopped."
        )
    if request.reference is None and request.systems[0].config.data.image_size > evaluate.LARGEST:
        found.append(unranked(request.systems[0].config.data.image_size))
    if seeds == 1:
        found.append("One seed: no spread is known, so that every difference ranks; small ones say nothing.")
    if request.timed("generator"):
        cores = {own["pilot"]["cores"] for own in plan["systems"].values() if own.get("pilot")}
        shown = f" on {counted(min(cores), 'core')}" if cores and min(cores) else ""
        found.append(
            f"Budgets of time are of training with compilation{shown}, validation and saving left out; the number of "
            "updates was fixed beforehand by timing a few, so that what a run took in the end differs a little."
        )
    if request.jobs > 1:
        found.append(
            f"{request.jobs} runs at once, each on its share of the cores: speeds are of that share."
        )
    if len(plan["tokenizers"]) > 1:
        found.append(
            "Bits are those of a tokenizer's codes: beside each other only where systems share the tokenizer; a bound "
            "says at most."
        )
    return found


def unranked(size: int) -> str:
    """What to say of pictures so large that the classifier doesn't judge them."""
    return (
        f"Pictures of {size}x{size} pixels: the classifier that systems are ranked by takes at most {evaluate.LARGEST}x"
        f"{evaluate.LARGEST}, so that nothing is ranked; with --reference FILE and --inception FILE they are, by FID."
    )


def _facts(request: Request, plan: Mapping[str, Any]) -> dict[str, str]:
    c = request.systems[0].config
    name = c.data.dataset or c.data.path or c.data.source
    trained = {name: own for name, own in plan["tokenizers"].items() if own["trained"]}
    return {
        "Data": f"{name}, {'x'.join(map(str, schema.size(c.data)))}, {c.data.num_classes} classes",
        "Budget": ", ".join(b.words for b in request.budgets),
        "Tokenizers": f"budget {request.tokenizer.words}: "
        + (
            ", ".join(f"{name} {counted(own['updates'], 'update')}" for name, own in trained.items())
            or "nothing to train"
        ),
        "Samples": f"{c.evaluation.samples} of each run",
        **({} if request.reference is None else {"Reference": request.reference}),
    } | describe.surroundings(plan["machine"])
