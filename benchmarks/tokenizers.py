"""Tokenizers of the same bits, trained on the same pictures for as long, and what each of them keeps.

    python -m benchmarks.tokenizers [--data ~/pictures] [--seconds 120 | --updates 2000] [--rows vq fsq] [--seeds 3] \
        [--out DIR] [--publish]

Every row of `ROWS` is trained on the pictures, 32x32 in colour, of the emoji or of a folder, and measured as `vargen
evaluate --tokenizer-only --vtbench` does it. What is done stands in DIR (runs/tokenizers), a JSON and an NPZ for each
row and seed, and isn't done again. Of all that is there come DIR/tokenizers.json, .md (the table), .html (a page) and
.png (originals beside reconstructions), and prefixes.png (of nested tokens and levels the pictures that the first few
give). --publish puts them where the documentation has them: results/tokenizers.json, docs/tokenizers*.png and the
table of docs/tokenizers.md.
"""

from __future__ import annotations

import argparse
import dataclasses
import html
import json
import pathlib
import re
import statistics
import time
from typing import Any

import jax
import numpy as np

from benchmarks import timing
from vargen import config, data, models
from vargen.cli import evaluate_tokenizer, evaluate_vtbench
from vargen.config import part
from vargen.evaluation import metrics
from vargen.model import Model
from vargen.report import METRICS, page, pictures
from vargen.sharding import make_mesh
from vargen.tokenizers.autoencoder import Autoencoder
from vargen.tokenizers.tokenizer import Leveled
from vargen.training import optimizer, state
from vargen.training.step import make_step
from vargen.training.tasks import TokenizerTask

SIZE, BITS = 32, 512  # pixels of a side; bits of an image in every row of codes
BATCH, PILOT = 32, 10  # images of an update; updates by which its time is known
DRAWN = ("emoji", "shapes")  # what --data has by names
SHOWN, DETAIL = 8, 2  # pictures on the sheet: held-out ones, and drawn ones of each kind
SHEETS = {
    "tokenizers.png": (
        "Originals and reconstructions",
        "Held-out pictures, then drawn ones of other kinds.",
    ),
    "prefixes.png": ("Fewer tokens", "Of nested tokens and levels, what the first so many give."),
}
DOCS = pathlib.Path(__file__).parents[1] / "docs"
TABLE = re.compile(r"^\| \| tokens.*\n(?:\|.*\n)*", re.MULTILINE)  # in the page
ENDS = "encoder_parameters", "decoder_parameters"


@dataclasses.dataclass(frozen=True)
class Row:
    """A tokenizer of the comparison.

    Attributes:
      title: for people.
      tokenizer: the part.
      learning_rate: its peak.
    """

    title: str
    tokenizer: Any
    learning_rate: float = 3e-3


def patches(patch: int) -> Any:
    """The encoder of all grids, over patches of that many pixels a side."""
    return part("patch", patch=patch, width=128, blocks=1)


def registers(decoder: Any, **options: Any) -> Any:
    """The encoder of all sequences: 64 registers beside 16 patches."""
    own = dict(tokens=64, patch=8, width=96, layers=2, heads=3, norm_in=True)
    return part("registers", decoder=decoder, **own, **options)


DIRECT, FLOW = part("direct"), part("flow", predicts="image", time="row")
NESTED = dict(sees="causal", nested="powers")
VIT = part("vit", patch=4, width=96, layers=2, heads=3)
VQ = dict(vocab=256, channels=8, codebook_weight=0.1, beta=0.02, revive_every=25)
ROWS = dict(
    vq=Row("VQ", part("vq", encoder=patches(4), **VQ)),
    vq_ema=Row("VQ by moving averages", part("vq_ema", encoder=patches(4), vocab=256, channels=8)),
    vq_wae=Row("VQ by transport", part("vq_wae", encoder=patches(4), vocab=256, channels=8, iterations=10)),
    ibq=Row("IBQ", part("ibq", encoder=patches(4), vocab=256, channels=8)),
    fsq=Row("FSQ", part("fsq", encoder=patches(4), levels=(4, 4, 4, 4))),
    lfq=Row("LFQ", part("lfq", encoder=patches(4), channels=8, entropy_bits=8)),
    bsq=Row("BSQ", part("bsq", encoder=patches(4), channels=8, entropy_bits=8)),
    bsq_groups=Row("BSQ, 4 groups", part("bsq", encoder=patches(8), channels=32, groups=4, entropy_bits=8)),
    binary=Row("Bits", part("binary", encoder=patches(4), channels=8)),
    vit=Row("VQ between ViTs", part("vq", encoder=VIT, **VQ), 1e-3),
    product=Row(
        "Product VQ", part("product_vq", encoder=patches(8), vocab=256, channels=32, groups=4, revive_every=25)
    ),
    qlae=Row("QLAE", part("qlae", encoder=patches(8), vocab=16, channels=8, beta=0.1, codebook_weight=0.1)),
    rq=Row("RQ", part("rq", encoder=patches(8), vocab=256, channels=32, depth=4)),
    bins=Row(
        "KL in bins", part("binned_kl", encoder=patches(8), vocab=16, channels=8, measure=True, spread=1.0)
    ),
    multiscale=Row(
        "Multi-scale VQ",
        part(
            "multiscale_vq", encoder=patches(4), vocab=16, channels=8, levels=(1, (2, 3), (3, 5), (6, 7), 8),
            revive_every=25,
        ),
    ),
    registers=Row("Registers", part("vq", encoder=registers(DIRECT), **VQ)),
    nested=Row("Registers, nested", part("vq", encoder=registers(DIRECT, **NESTED), **VQ)),
    flow=Row("Registers, nested, drawn by flow", part("vq", encoder=registers(FLOW, **NESTED), **VQ)),
    kl=Row("KL (continuous)", part("kl", encoder=patches(4), channels=4, measure=True)),
)  # fmt: skip


def config_of(row: Row, source: str, updates: int, seed: int = 0) -> Any:
    """The config that a row is trained by."""
    c = config.config()
    c.name, c.seed, c.tokenizer = row.title, seed, row.tokenizer
    own = source not in DRAWN
    c.data = config.pictures(SIZE) if own else config.images(source, SIZE, 3, 0)
    c.data.path = source if own else ""
    warmup = min(50, updates // 4)
    c.tokenizer_training.update(
        dict(steps=updates, batch_size=BATCH, learning_rate=row.learning_rate, warmup_steps=warmup)
    )
    return c


def trained(c: Any, tokenizer: Any, sources: data.Sources, updates: int) -> tuple[Any, float]:
    """Parameters (their moving average) after so many updates, and seconds of the median one."""
    settings, mesh = c.tokenizer_training, make_mesh()
    task = TokenizerTask(tokenizer, settings)
    init, key = jax.random.split(jax.random.key(c.seed))
    run = make_step(task, settings, mesh)
    now = state.create(task, optimizer.build(settings, state.boxed(task)), mesh, init)
    batches = data.batches(sources["train"], batch_size=BATCH, seed=c.seed, settings=c.data)
    times = []
    for _ in range(updates):
        batch = dict(image=next(batches)["image"])
        began = time.perf_counter()
        now, found = run(now, {}, batch, key)
        jax.block_until_ready(found)
        times.append(time.perf_counter() - began)
    if not bool(found["finite"]):
        raise RuntimeError(f"{c.name}: training diverged")
    return now.ema, statistics.median(times)


def prefixes(tokenizer: Any) -> list[int]:
    """How many tokens give a picture by themselves, the first ones: 1, 2, 4, ... of nested ones, or whole levels."""
    ends = np.cumsum(tokenizer.grid.level_sizes)
    if isinstance(tokenizer, Leveled) or (len(ends) > 1 and _nested(tokenizer)):
        return [int(end) for end in ends]
    if not _nested(tokenizer):
        return []
    return [n for n in (2**i for i in range(32)) if n < ends[-1]] + [int(ends[-1])]


def _nested(tokenizer: Any) -> bool:
    return isinstance(tokenizer, Autoencoder) and tokenizer.codec.prefixes


def of_prefixes(tokenizer: Any, params: Any, images: np.ndarray) -> np.ndarray:
    """Images of the first tokens, float32 [prefixes, B, H, W, C] in [-1, 1], of images of that range."""

    @jax.jit
    def decoded(params, content, known):
        latents = tokenizer.latents(params["quantizer"], content, known)
        return tokenizer.decode_latents(params, latents, known)

    content = jax.jit(tokenizer.encode)(params, images)
    places = np.broadcast_to(np.arange(content.shape[1]), content.shape[:2])
    found = [decoded(params, content, places < count) for count in prefixes(tokenizer)]
    return np.clip(np.stack([np.asarray(x) for x in found]), -1, 1)


def measured(name: str, args: argparse.Namespace, sources: data.Sources, seed: int) -> tuple[dict, dict]:
    """Trains a row and measures it: numbers, and pictures as uint8 arrays."""
    row = ROWS[name]
    updates = args.updates
    if not updates:
        c = config_of(row, args.data, PILOT, seed)
        tokenizer = models.build_tokenizer(c)
        updates = max(int(args.seconds / trained(c, tokenizer, sources, PILOT)[1]), PILOT)
    c = config_of(row, args.data, updates, seed)
    tokenizer = models.build_tokenizer(c)
    params, update = trained(c, tokenizer, sources, updates)
    model = Model(c, params)
    found, originals, decoded = evaluate_tokenizer.measure(model, sources, None, None)
    more, drawn, redrawn = evaluate_vtbench.drawn(model)
    found = found | more | dict(updates=updates, seconds_per_update=update, tokens=tokenizer.grid.size)
    each = len(drawn) // 3
    some = np.concatenate([np.arange(DETAIL) + kind * each for kind in range(3)])
    arrays = dict(
        originals=np.concatenate([originals[:SHOWN], drawn[some]]),
        decoded=np.concatenate([pictures.to_uint8(decoded[:SHOWN]), redrawn[some]]),
    )
    if counts := prefixes(tokenizer):
        floats = data.to_float(originals[:SHOWN])
        firsts = of_prefixes(tokenizer, params, floats)
        found["prefix_psnr_db"] = {
            str(n): float(np.mean(metrics.psnr(floats, x))) for n, x in zip(counts, firsts, strict=True)
        }
        arrays["prefixes"] = pictures.to_uint8(firsts)
    return found, arrays


def gathered(out: pathlib.Path) -> dict[str, dict[str, Any]]:
    """What is in a folder, by row and seed, in the order of `ROWS`."""
    found: dict[str, dict[str, Any]] = {}
    for name in ROWS:
        seeds = sorted(out.glob(f"{name}.[0-9]*.json"), key=lambda file: int(file.name.split(".")[1]))
        if seeds:
            found[name] = {file.name.split(".")[1]: json.loads(file.read_text()) for file in seeds}
    return found


def mean(seeds: dict[str, Any], key: str) -> float | None:
    """Of a number over seeds; None where they don't have it."""
    values = [one[key] for one in seeds.values() if key in one]
    return statistics.mean(values) if values else None


COLUMNS = {
    "tokens": "{:.0f}",
    "updates": "{:.0f}",
    "psnr_db": "{:.2f}",
    "ssim": "{:.3f}",
    "ms_ssim": "{:.3f}",
    "codebook_use": "percent",
    "linear_probe": "percent",
    "detail_characters": "percent",
    "detail_words": "percent",
    "detail_lines": "percent",
    "detail_texture": "percent",
    "encode_seconds": "ms",
    "decode_seconds": "ms",
    "encoder_parameters": "count",
    "decoder_parameters": "count",
}
HEADS = (
    "tokens, updates, PSNR, SSIM, MS-SSIM, codes in use, linear probe, letters, words, thin lines, textures, encoding, "
    "decoding, encoder, decoder"
).split(", ")


def table(found: dict[str, dict[str, Any]]) -> str:
    """Rows and seeds as a table of Markdown; PSNR with its standard deviation where there are several seeds."""
    lines = ["| | " + " | ".join(HEADS) + " |", "|---" * (len(HEADS) + 1) + "|"]
    return "\n".join([*lines, *("| " + " | ".join(cells) + " |" for cells in _cells(found))]) + "\n"


def _cells(found: dict[str, dict[str, Any]]) -> list[list[str]]:
    """Of each row its title and what stands in the columns."""
    lines = []
    for name, seeds in found.items():
        cells = [ROWS[name].title]
        for key, how in COLUMNS.items():
            value = mean(seeds, key)
            text = "" if value is None else _shown(value, how)
            if key == "psnr_db" and len(seeds) > 1:
                text += f" ± {statistics.stdev(one[key] for one in seeds.values()):.2f}"
            cells.append(text)
        lines.append(cells)
    return lines


def _shown(value: float, how: str) -> str:
    if how == "percent":
        return f"{100 * value:.1f} %"
    if how == "ms":
        return f"{1000 * value:.2f} ms"
    return METRICS[ENDS[0]].show(value) if how == "count" else how.format(value)


def sheets(out: pathlib.Path, found: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """The pictures, by names of files: reconstructions of each row, and what the first tokens give."""
    first = {name: np.load(out / f"{name}.{next(iter(seeds))}.npz") for name, seeds in found.items()}
    originals = next(iter(first.values()))["originals"]
    rows = [originals, *(x["decoded"] for x in first.values())]
    labels = ["original", *(ROWS[name].title for name in first)]
    made = {"tokenizers.png": pictures.grid(np.stack(rows), row_labels=labels)}
    rows, labels = [originals[:SHOWN]], ["original"]
    for name, arrays in first.items():
        if "prefixes" in arrays:
            counts = found[name][next(iter(found[name]))]["prefix_psnr_db"]
            rows += list(arrays["prefixes"])
            labels += [f"{ROWS[name].title}, {n}" for n in counts]
    if len(rows) > 1:
        made["prefixes.png"] = pictures.grid(np.stack(rows), row_labels=labels)
    return made


def whole(found: dict[str, dict[str, Any]], made: dict[str, Any], how: dict[str, Any]) -> str:
    """The page: the table, then the pictures of `sheets`."""
    heads = "".join(f'<th scope="col">{html.escape(head)}</th>' for head in ("", *HEADS))
    lines = (
        f'<tr><th scope="row">{html.escape(title)}</th>' + "".join(f"<td>{x}</td>" for x in cells) + "</tr>"
        for title, *cells in _cells(found)
    )
    numbers = f'<div class="wide"><table><thead><tr>{heads}</tr></thead><tbody>{"".join(lines)}</tbody></table></div>'
    told = ", ".join(f"{key} {value}" for key, value in how.items()).replace("_", " ")
    parts = [page.section("Tokenizers of the same bits", told, numbers)]
    for name, (title, lead) in SHEETS.items():
        if name in made:
            parts.append(page.section(title, lead, page.picture(np.asarray(made[name]), title)))
    return page.whole("Tokenizers beside each other", parts)


def publish(out: pathlib.Path, found: dict[str, dict[str, Any]], how: dict[str, Any]) -> None:
    """Puts the results where the documentation has them."""
    timing.save("tokenizers", dict(**how, rows=found))
    for name in sheets(out, found):
        (DOCS / name.replace("prefixes", "tokenizers_prefixes")).write_bytes((out / name).read_bytes())
    page = DOCS / "tokenizers.md"
    published = json.loads((timing.RESULTS / "tokenizers.json").read_text())["rows"]
    page.write_text(TABLE.sub(lambda _: table(published), page.read_text(), count=1))


def main(argv: list[str] | None = None) -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    budget = parser.add_mutually_exclusive_group()
    budget.add_argument(
        "--seconds", type=float, default=120.0, help="of a row's updates, compilation apart (120)"
    )
    budget.add_argument("--updates", type=int, default=0, help="in their place: as many of each")
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS), help="which (all)")
    parser.add_argument("--seeds", type=int, default=1, help="how many (1)")
    parser.add_argument("--data", default="emoji", help=f"{', '.join(DRAWN)} or a folder of pictures (emoji)")
    parser.add_argument(
        "--out", type=pathlib.Path, default=pathlib.Path("runs/tokenizers"), help="(runs/tokenizers)"
    )
    parser.add_argument("--publish", action="store_true", help="into benchmarks/results and docs")
    args = parser.parse_args(argv)
    args.out.mkdir(parents=True, exist_ok=True)
    how = dict(data=args.data, batch_size=BATCH, **(
        dict(updates=args.updates) if args.updates else dict(seconds=args.seconds)
    ))  # fmt: skip
    plan = args.out / "plan.json"
    if plan.exists() and json.loads(plan.read_text()) != how:
        parser.error(f"--out {args.out}: expected results of {how}, found those of {plan.read_text()}")
    plan.write_text(json.dumps(how))
    sources = data.Sources(config_of(ROWS["vq"], args.data, 1).data)
    for seed in range(args.seeds):
        for name in args.rows:
            file = args.out / f"{name}.{seed}.json"
            if file.exists():
                continue
            numbers, arrays = measured(name, args, sources, seed)
            np.savez_compressed(file.with_suffix(".npz"), **arrays)
            file.write_text(json.dumps(numbers, indent=2))  # last: who sees it finds the pictures too
            print(
                f"{ROWS[name].title}: {numbers['updates']} updates, PSNR {numbers['psnr_db']:.2f} dB",
                flush=True,
            )
            jax.clear_caches()
    found = gathered(args.out)
    (args.out / "tokenizers.json").write_text(json.dumps(dict(**how, rows=found), indent=2) + "\n")
    (args.out / "tokenizers.md").write_text(table(found))
    made = sheets(args.out, found)
    for name, sheet in made.items():
        pictures.save(sheet, args.out / name)
    (args.out / "tokenizers.html").write_text(whole(found, made, how))
    if args.publish:
        publish(args.out, found, how)
    print(table(found), end="")


if __name__ == "__main__":
    main()
