"""Publishes the ranking of Fashion-MNIST: benchmarks/results/ranking_fashion.json, and the tables of docs/ranking.md.

    python -m benchmarks.rankings runs/fashion

reads what the command of that page (`vargen compare`) left in a folder: its compare.json, and its picture.
"""

from __future__ import annotations

import argparse
import decimal
import json
import pathlib
import re
import shutil
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks import timing
from vargen import systems
from vargen.report.metrics import engineering

PAGE = timing.RESULTS.parents[1] / "docs" / "ranking.md"
PACKAGED = "/usr/share/datasets/fashion-mnist"  # by Debian
# What the tables show; the spread over seeds is kept of all.
KEYS = (
    "frechet_distance_classifier",
    "label_accuracy",
    "precision",
    "recall",
    "psnr_db",
    "bits_per_dimension",
    "bits_per_dimension_bound",
    "generator_parameters",
    "training_images_per_second",
    "training_flops",
    "sampling_passes",
    "sampling_flops",
    "images_per_second",
)
RANKED = ("rank", "system", "Fréchet", "label accuracy", "precision", "recall", "updates", "sampling passes")
RANKED += ("samples/s",)
TOOK = ("system", "tokenizer", "its updates", "its PSNR", "bits per dimension", "parameters")
TOOK += ("training images/s", "training FLOPs", "sampling FLOPs")


def result(found: Mapping[str, Any]) -> dict[str, Any]:
    """The results of a comparison at one budget, of all that were planned.

    Raises:
      ValueError: a run failed, or some systems have more of them than others.
    """
    asked, plan = found["plan"]["asked"], found["plan"]
    (budget,) = asked["budget"]
    runs: dict[str, list[Mapping[str, Any]]] = {}
    for run in found["runs"]:
        runs.setdefault(run["system"], []).append(run)
    (count,) = {len(runs.get(name, ())) for name in asked["systems"]}
    if failed := [run["system"] for run in found["runs"] if run["failed"]]:
        raise ValueError(f"{failed[0]}: expected whole runs, found a failed one")
    ranked = {
        name: dict(
            rank=found["ranking"]["ranks"][name],
            tied=found["ranking"]["ties"][name],
            updates=runs[name][0]["updates"],
            tokenizer=plan["systems"][name]["tokenizer"],
            metrics={
                key: {k: found["summary"][name][budget][key][k] for k in ("mean", "deviation")}
                for key in KEYS
                if found["summary"][name][budget].get(key, {}).get("mean") is not None
            },
        )
        for name in asked["systems"]
    }
    real = next(iter(runs.values()))[0]["metrics"]
    return dict(
        command=re.sub(
            r"--out \S+",
            "--out runs/fashion",
            re.sub(r"(data\.path=)\S+", rf"\1{PACKAGED}", found["command"]),
        ),
        machine=plan["machine"],
        budget=budget,
        seeds=count,
        real={key: value for key, value in real.items() if key.startswith("real_")},
        systems=ranked,
        tokenizer_updates={k: t["updates"] for k, t in plan["tokenizers"].items() if t["trained"]},
    )


def tables(found: Mapping[str, Any], titles: Mapping[str, str]) -> tuple[str, str]:
    """The ranking, and what each took."""
    names = sorted(found["systems"], key=lambda n: _place(found["systems"][n]))
    ranked, took = [], []
    for name in names:
        one, title = found["systems"][name], titles[name]
        m, owner = one["metrics"], one["tokenizer"]
        rates = [
            f"{shown(100 * _exact(m[k]['mean']), 1)} %" for k in ("label_accuracy", "precision", "recall")
        ]
        speed = [shown(m[k]["mean"], 0) for k in ("sampling_passes", "images_per_second")]
        ranked.append(
            [one["rank"], title, spread(m["frechet_distance_classifier"], 2), *rates, one["updates"], *speed]
        )
        bits = next((k for k in KEYS if k.startswith("bits_per_dimension") and k in m), None)
        mark = "" if bits == "bits_per_dimension" else "≤ "
        took.append(
            [
                title,
                "its own" if owner == name else f"{titles[owner]}'s",
                found["tokenizer_updates"].get(owner, "none"),
                f"{shown(m['psnr_db']['mean'], 1)} dB",
                mark + spread(m[bits], 3) if bits else "",
                in_units(m["generator_parameters"]["mean"]),
                spread(m["training_images_per_second"], 0),
                *(in_units(m[k]["mean"]) for k in ("training_flops", "sampling_flops")),
            ]
        )
    return table(RANKED, ranked), table(TOOK, took)


def _place(one: Mapping[str, Any]) -> tuple[int, float]:
    return one["rank"], one["metrics"]["frechet_distance_classifier"]["mean"]


def table(heads: Sequence[str], lines: Sequence[Sequence[Any]]) -> str:
    """In Markdown."""
    rule = "|---" * len(heads) + "|"
    return (
        "\n".join([f"| {' | '.join(heads)} |", rule, *(f"| {' | '.join(map(str, x))} |" for x in lines)])
        + "\n"
    )


def spread(found: Mapping[str, float], digits: int) -> str:
    """Mean ± deviation."""
    return f"{shown(found['mean'], digits)} ± {shown(found['deviation'], digits)}"


def shown(value: float | decimal.Decimal, digits: int) -> str:
    """Rounded, halves up."""
    return str(_exact(value).quantize(decimal.Decimal(1).scaleb(-digits), decimal.ROUND_HALF_UP))


def in_units(value: float) -> str:
    """Of three digits, halves up."""
    context = decimal.Context(prec=3, rounding=decimal.ROUND_HALF_UP)
    return engineering(float(context.create_decimal(str(value))))


def _exact(value: float | decimal.Decimal) -> decimal.Decimal:
    return decimal.Decimal(str(value))


def main() -> None:
    """Reads and writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folder", type=pathlib.Path)
    args = parser.parse_args()
    comparison = json.loads((args.folder / "compare.json").read_text())
    timing.save("ranking_fashion", result(comparison))
    found = json.loads((timing.RESULTS / "ranking_fashion.json").read_text())  # rounded
    titles = {name: systems.read(name).title for name in found["systems"]}
    text = PAGE.read_text()
    for heads, new in zip((RANKED, TOOK), tables(found, titles), strict=True):
        old = re.compile(rf"^\| {re.escape(' | '.join(heads))} \|\n(?:\|.*\n)*", re.MULTILINE)
        text = old.sub(lambda _, new=new: new, text, count=1)
    PAGE.write_text(text)
    shutil.copyfile(args.folder / "ranking.png", PAGE.parent / "ranking.png")


if __name__ == "__main__":
    main()
