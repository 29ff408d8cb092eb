"""One generator over every tokenizer, on the digits: rows of configs/tokenizers.py and configs/registers.py.

    python -m benchmarks.over_tokenizers [--rows vq titok] [--teacher FILE] [--out DIR] [--publish]

Each row is what `vargen quickstart --config tokenizers:ROW` does, in DIR/ROW (runs/over_tokenizers), and is not done
again where its metrics are there. With --publish what is there comes into results/over_tokenizers.json, beside its
other rows, and into the tables of docs/tokenizers.md; the second has the rows whose first tokens are a picture, by
their number. Rows that have a teacher need its file, which vargen/tokenizers/teachers/efficientnet.py says how to make;
a teacher is slow, and they learn in fewer updates.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import re
import runpy
import subprocess
import sys
from typing import Any

from benchmarks import timing
from vargen import config as configs
from vargen import models

ROOT = pathlib.Path(__file__).parents[1]
FILES = ("tokenizers", "registers")
# Rows that need a file of a teacher, and where it is named.
LOSS = "--config.tokenizer_training.losses.teacher.weights"
TAUGHT = dict(semantic=LOSS, dual=LOSS, teacher_kmeans="--config.tokenizer.teacher.weights")
LATENTS, VAE = "flextok_latents", ("--config.tokenizer.encoder.patch=2",)  # over a VAE's latents
SHORTER = ("--config.tokenizer_training.steps=300", "--config.tokenizer_training.batch_size=32")
# Of rows whose first tokens are a picture: how many of the 16, as they were released in training.
POWERS, GROUPS = (1, 2, 4, 8), (4, 8, 12)
FIRST = dict(flextok=POWERS, semanticist=POWERS, flextok_latents=POWERS, dar=GROUPS, selftok=GROUPS)
CHANCE = 0.1
# In the page: both tables, or the first.
TABLES = re.compile(r"^\| row \| slots.*\n(?:\|.*\n)*(?:\n\| first tokens \|.*\n(?:\|.*\n)*)?", re.MULTILINE)
KEYS = (
    "label_accuracy",
    "psnr_db",
    "codebook_use",
    "tokenizer_train_seconds",
    "generator_train_seconds",
    "tokenizer_parameters",
    "generator_parameters",
    "sampling_passes",
)


def rows() -> dict[str, str]:
    """Of each row by its name the config."""
    found = {}
    for file in FILES:
        names = runpy.run_path(str(ROOT / "configs" / f"{file}.py"))["TOKENIZERS"]
        found |= {name: f"configs/{file}.py:{name}" for name in names}
    return found


def flags(name: str, out: pathlib.Path, teacher: pathlib.Path | None) -> list[str]:
    """What a row is told beside its config: the files that it needs."""
    if name == LATENTS:
        return [f"--config.tokenizer.weights={vae(out / 'vae').resolve()}"]
    return [f"{TAUGHT[name]}={teacher.resolve()}", *SHORTER] if teacher and name in TAUGHT else []


def vae(workdir: pathlib.Path) -> pathlib.Path:
    """The file of the tokenizer whose latents FlexTok's registers write, trained where it hasn't been."""
    params = workdir / "tokenizer" / "params.safetensors"
    if not params.is_file():
        vargen("train", "--config", "mar:digits", *VAE, "--stage", "tokenizer", "--workdir", str(workdir))
    return params


def run(config: str, workdir: pathlib.Path, told: list[str], first: tuple[int, ...]) -> None:
    """The command, and the evaluation of the first tokens alone, where they haven't been done."""
    if not (workdir / "metrics.json").is_file():
        vargen("quickstart", "--config", config, "--workdir", str(workdir), *told)
    for tokens in first:
        if not (out := workdir / f"first_{tokens}").is_dir():
            vargen("evaluate", "--workdir", str(workdir), "--tokens", str(tokens), "--out", str(out))


def vargen(*args: str) -> None:
    """One command."""
    subprocess.run([sys.executable, "-m", "vargen", *args], check=True, cwd=ROOT)


def measured(config: str, workdir: pathlib.Path) -> dict[str, Any]:
    """What the table and the file say of a row."""
    found = json.loads((workdir / "metrics.json").read_text())
    c = json.loads((workdir / "config.json").read_text())
    steps = {k: c[k]["steps"] for k in ("tokenizer_training", "training")}
    row = dict(config=config, steps=steps, **{k: found[k] for k in KEYS if k in found})
    first = {}
    for folder in workdir.glob("first_*"):
        metrics = json.loads((folder / "metrics.json").read_text())
        first[folder.name.removeprefix("first_")] = {k: metrics[k] for k in ("label_accuracy", "psnr_db")}
    return row | dict(first=dict(sorted(first.items(), key=lambda x: int(x[0])))) if first else row


def table(found: dict[str, Any]) -> str:
    """For the page."""
    lines = [
        "| row | slots | recognised | PSNR | codes in use | passes | seconds to train both |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, row in found.items():
        seconds = row["tokenizer_train_seconds"] + row["generator_train_seconds"]
        use = f"{100 * row['codebook_use']:.0f} %" if "codebook_use" in row else ""
        lines.append(
            f"| [{name}](../{row['config'].partition(':')[0]}) | {row['slot']} | {100 * row['label_accuracy']:.1f} % | "
            f"{row['psnr_db']:.1f} dB | {use} | {row['sampling_passes']:.0f} | {seconds:.0f} |"
        )
    return "\n".join(lines) + "\n"


def first_table(found: dict[str, Any]) -> str:
    """For the page: what is recognised, and PSNR, by the number of tokens."""
    numbers = sorted({*POWERS, *GROUPS})
    head = ["first tokens", *map(str, numbers), "all 16"]
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for name, row in found.items():
        if first := row.get("first"):
            cells = [cell(first[str(n)]) if str(n) in first else "" for n in numbers]
            lines.append(f"| {' | '.join([name, *cells, cell(row)])} |")
    return "\n".join(lines) + "\n"


def tables(found: dict[str, Any]) -> str:
    """Both, the second where a row has first tokens."""
    some = any("first" in row for row in found.values())
    return table(found) + ("\n" + first_table(found) if some else "")


def cell(row: dict[str, Any]) -> str:
    """What is recognised, and PSNR."""
    return f"{100 * row['label_accuracy']:.1f} %, {row['psnr_db']:.1f} dB"


def slot(config: str) -> str:
    """How many slots, of what."""
    tokenizer = models.build_tokenizer(configs.load(str(ROOT / config)))
    return f"{tokenizer.grid.size} x {tokenizer.slot}"


def main() -> None:
    """Trains what isn't trained, and writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rows", nargs="+", choices=[*rows()])
    parser.add_argument("--teacher", type=pathlib.Path, help="efficientnet_lite0.safetensors")
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("runs/over_tokenizers"))
    parser.add_argument("--publish", action="store_true")
    args = parser.parse_args()
    for name in args.rows or [name for name in rows() if args.teacher or name not in TAUGHT]:
        run(rows()[name], args.out / name, flags(name, args.out, args.teacher), FIRST.get(name, ()))
    found = {
        name: measured(config, args.out / name) | dict(slot=slot(config))
        for name, config in rows().items()
        if (args.out / name / "metrics.json").is_file()
    }
    print(table(found))
    if args.publish:
        file = timing.RESULTS / "over_tokenizers.json"
        all_ = json.loads(file.read_text())["rows"] | found
        timing.save("over_tokenizers", dict(rows={k: all_[k] for k in rows() if k in all_}, chance=CHANCE))
        published = json.loads(file.read_text())["rows"]
        page = ROOT / "docs" / "tokenizers.md"
        page.write_text(TABLES.sub(lambda _: tables(published), page.read_text(), count=1))


if __name__ == "__main__":
    main()
