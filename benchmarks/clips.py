"""One generator over tokenizers of clips, on the digits in motion: the rows of configs/clips.py.

    python -m benchmarks.clips [--out DIR] [--publish]

Each row is what `vargen quickstart --config configs/clips.py:ROW` does, in DIR/ROW (runs/clips), and is not done again
where its metrics are there. With --publish come results/clips.json and the table of docs/tokenizers.md, section Clips.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import runpy

from benchmarks import over_tokenizers, timing

ROOT = over_tokenizers.ROOT
ROWS = {
    name: f"configs/clips.py:{name}" for name in runpy.run_path(str(ROOT / "configs/clips.py"))["TOKENIZERS"]
}


def main() -> None:
    """Trains what isn't trained, and writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("runs/clips"))
    parser.add_argument("--publish", action="store_true")
    args = parser.parse_args()
    found, real = {}, 0.0
    for name, config in ROWS.items():
        over_tokenizers.run(config, args.out / name, [])
        own = over_tokenizers.measured(config, args.out / name)
        found[name] = own | dict(slot=over_tokenizers.slot(config))
        real = json.loads((args.out / name / "metrics.json").read_text())["real_label_accuracy"]
    print(over_tokenizers.table(found))
    if args.publish:
        timing.save("clips", dict(rows=found, chance=over_tokenizers.CHANCE, real_label_accuracy=real))
        before, head, after = (page := ROOT / "docs" / "tokenizers.md").read_text().partition("## Clips\n")
        text = over_tokenizers.table(found)
        after, there = over_tokenizers.TABLE.subn(lambda _: text, after, count=1)
        page.write_text(before + head + (after if there else f"{after.rstrip()}\n\n{text}"))


if __name__ == "__main__":
    main()
