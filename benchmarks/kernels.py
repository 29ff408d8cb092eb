"""The kernels beside what else computes the same, and beside what the chip can do; useful work alone is counted.

    python -m benchmarks.kernels [--only attention,linear,scan,tpu] [--shapes var_256,gla_4k] [--rounds 4] [--quick]

On a machine with a CUDA GPU the same command measures there (bfloat16, larger batches, rivals that need a GPU):

    pip install '.[cuda12]' torch tokamax flash-linear-attention && python -m benchmarks.kernels

Writes results/kernels.json on a CPU, results/kernels_h100.json and the like on a GPU; sections that --only leaves out
stay as they were. With --shapes or --quick it prints and writes nothing. Rivals that can't run are named with the
reason. `ours_over` is ours' useful work per second over the rival's: above 1, ours is faster.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import json
import os
import statistics

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import ahead, timing
from benchmarks import kernels_rivals as rivals
from vargen.kernels.linear_attention.shapes import SHAPES as LINEAR
from vargen.kernels.linear_scan.shapes import SHAPES as SCANS
from vargen.kernels.step_attention import gpu_blocks, tpu, xla
from vargen.kernels.step_attention.shapes import SHAPES as ATTENTION
from vargen.kernels.step_attention.shapes import random_orders
from vargen.kernels.step_attention.spans import edges, spans
from vargen.training.work import peak

# Bytes/s of memory: NVIDIA's data sheets of the H100 (SXM) and H200 Tensor Core GPUs.
BANDWIDTH = {"H100 80GB HBM3": 3.35e12, "H200": 4.8e12}
# Compiled for a TPU: a layer of VAR-d16, and many causal slots.
AHEAD = ("var_256", "causal_4096")
# What is asked for: where in the result, and at least how much.
AIMS = {
    "cpu": {
        "attention/var_256/forward/ours_over/dense": 1.0,
        "attention/var_256/forward_backward/ours_over/dense": 1.0,
        "attention/causal_4096/forward/temporaries_over_ours/dense": 4.0,
        "attention/causal_4096/forward_backward/temporaries_over_ours/dense": 4.0,
    },
    "gpu": {
        **{f"attention/var_256/{d}/ours_over/cudnn_causal": 1 / 1.25 for d in rivals.DIRECTIONS},
        **{f"attention/var_256/{d}/ours_over/dense": 2.0 for d in rivals.DIRECTIONS},
        **{
            f"linear/gla_{n}/{d}/ours_over/fla_chunk": 1.0
            for n in ("1k", "4k", "16k")
            for d in rivals.DIRECTIONS
        },
        **{
            f"scan/{n}/{d}/systems/ours/of_peak_bytes": 0.8
            for n in ("1k", "4k", "16k")
            for d in rivals.DIRECTIONS
        },
    },
}


class Bench:
    """How to measure: the device's dtype and peaks, the sizes of a call, and the repetitions."""

    def __init__(self, rounds: int, quick: bool, shapes: list[str]):
        self.gpu = jax.default_backend() == "gpu"
        self.dtype = jnp.bfloat16 if self.gpu else jnp.float32
        self.rounds, self.shapes = rounds, shapes
        self.repeats = 20 if self.gpu else 1  # calls in flight together hide their launch on a GPU
        self.shrink = 8 if quick else 1

    def target(self, on_cpu: float, on_gpu: float) -> float:
        """About how much work a call should be."""
        return (on_gpu if self.gpu else on_cpu) / self.shrink

    def chosen(self, shapes: dict, *but: str):
        """The shapes to measure."""
        return {n: s for n, s in shapes.items() if n not in but and (not self.shapes or n in self.shapes)}

    def normal(self, seed: int, shape: tuple):
        """Random numbers in the dtype."""
        return jax.random.normal(jax.random.key(seed), shape, jnp.float32).astype(self.dtype)

    def peaks(self) -> dict:
        """FLOP/s and bytes/s: of a large product and of a copy, measured; of the data sheet where there is one."""
        n = 8192 if self.gpu else 2048
        # Under the 32 MiB from which malloc returns fresh pages every time, like the arrays of the scans.
        x, y = self.normal(0, (n, n)), jnp.ones(2**28 if self.gpu else 6 * 2**20)
        product, copy = jax.jit(jnp.matmul), jax.jit(lambda y: y + 1)
        times = self.time({"product": lambda: product(x, x), "copy": lambda: copy(y)}, 10)
        measured = dict(flops=2 * n**3 / times["product"]["warm"], bytes=2 * y.nbytes / times["copy"]["warm"])
        kind = jax.devices()[0].device_kind
        sheet = next((dict(flops=peak(kind), bytes=b) for name, b in BANDWIDTH.items() if name in kind), None)
        self.peak = sheet or measured
        return dict(measured=measured, data_sheet=sheet, product=f"{n}^3 {x.dtype.name}", copy_bytes=y.nbytes)

    def time(self, calls: dict, rounds: int, waits: dict | None = None) -> dict:
        """Interleaved times of one call each; `waits`: how to wait for its results, by name."""

        def run(call, wait):
            for _ in range(self.repeats):
                results = call()
            wait(results)

        runs = {}
        for name, call in calls.items():
            timed = functools.partial(run, call, waits[name] if waits else jax.block_until_ready)
            # Memory and caches as its own last call left them, not as another's.
            runs.update({("before", name): timed, ("timed", name): timed})
        times = {name: t for (part, name), t in timing.interleaved(runs, rounds).items() if part == "timed"}
        for t in times.values():
            t.update(warm=t["warm"] / self.repeats, all=[x / self.repeats for x in t["all"]])
        return times

    def compare(self, title: str, builders: dict, case: rivals.Case, work: dict) -> dict:
        """Builds, checks and times; `work`: by direction the useful FLOPs and bytes of the case."""
        entries, absent, apart, expected = {}, {}, {}, None
        for name, build in builders.items():
            try:
                entry = build(case)
                results = entry.wait(list(entry.programs.values())[-1]())
            except Exception as error:  # whatever a library can't do here is a finding, not an end
                if name == "ours":
                    raise
                known = isinstance(error, rivals.Absent)
                absent[name] = (str(error) if known else f"{type(error).__name__}: {error}").splitlines()[0][
                    :200
                ]
                continue
            entries[name] = entry
            if entry.note:
                absent[f"{name}/forward_backward"] = entry.note
            if entry.work == 1.0:
                values = [rivals.to_numpy(x) for x in (results if entry.same else results[:1])]
                expected = expected or values
                apart[name] = max(
                    float(np.abs(a - b).max() / np.abs(b).max()) for a, b in zip(values, expected)
                )
            del results
        out = dict(largest_relative_difference_from_ours=apart, absent=absent)
        for direction, (flops, size) in work.items():
            here = {n: e for n, e in entries.items() if direction in e.programs}
            calls = {n: e.programs[direction] for n, e in here.items()}
            times = self.time(calls, self.rounds, {n: e.wait for n, e in here.items()})
            seconds = {n: times[n]["warm"] / e.work for n, e in here.items()}  # of this case's useful work
            memory = {n: e.temporaries[direction] for n, e in here.items() if direction in e.temporaries}
            out[direction] = dict(
                useful_gflop=flops / 1e9,
                useful_mbytes=size / 1e6,
                systems={
                    n: dict(
                        ms=1e3 * times[n]["warm"],
                        median_ms=1e3 * statistics.median(times[n]["all"]),
                        cpu_per_wall=times[n]["cpu_per_wall"],
                        gflops_per_second=flops / t / 1e9,
                        gbytes_per_second=size / t / 1e9,
                        of_peak_flops=flops / t / self.peak["flops"],
                        of_peak_bytes=size / t / self.peak["bytes"],
                        temporary_mib=memory[n] / 2**20 if n in memory else None,
                    )
                    for n, t in seconds.items()
                },
                ours_over={n: t / seconds["ours"] for n, t in seconds.items() if n != "ours"},
                temporaries_over_ours={
                    n: m / max(memory["ours"], 1) for n, m in memory.items() if n != "ours"
                },
            )
            ratios = ", ".join(f"{n} {r:.2f}" for n, r in out[direction]["ours_over"].items()) or "nothing"
            print(
                f"{title} {direction}: {1e3 * times['ours']['warm']:.2f} ms; ours over {ratios}", flush=True
            )
        return out


def fit(batch: int, heads: int, each: float, target: float, least: int = 1) -> tuple[int, int]:
    """Batch (not under `least`), then heads, halved or doubled until batch * heads * each is about `target`."""
    while batch * heads * each > target and (batch > least or heads % 2 == 0):
        batch, heads = (batch // 2, heads) if batch > least else (batch, heads // 2)
    while 2 * batch * heads * each <= target:
        batch *= 2
    return batch, heads


def attention(bench: Bench) -> dict:
    """Step-masked attention; useful FLOPs: 4 D per visible pair and head, 2.5 times that backward."""
    out = {}
    for name, shape in bench.chosen(ATTENTION).items():
        n, orders = shape.slots, shape.steps.ndim == 2
        each, target = 4.0 * n * n * shape.dim, bench.target(5e9, 2e11)
        batch, heads = fit(shape.batch, shape.heads, each, target, 2 if orders else 1)
        groups = max(1, shape.groups * heads // shape.heads)
        steps = random_orders(batch, n) if orders else shape.steps
        shape = dataclasses.replace(shape, batch=batch, heads=heads, groups=groups, steps=steps)
        arrays = tuple(bench.normal(i, s) for i, s in enumerate(shape.shapes))
        grad = bench.normal(3, shape.shapes[0])
        case = rivals.Case(arrays, grad, bench.gpu, steps=steps, visible=shape.visible)
        flops, size = 4.0 * batch * heads * shape.dim * shape.visible, sum(x.nbytes for x in arrays)
        work = dict(
            forward=(flops, size + grad.nbytes), forward_backward=(3.5 * flops, 2 * (size + grad.nbytes))
        )
        sizes = dict(batch=batch, slots=n, heads=heads, groups=groups, dim=shape.dim)
        found = bench.compare(f"attention {name}", rivals.ATTENTION, case, work)
        out[name] = dict(
            sizes=sizes, dtype=bench.dtype.__name__, visited=visited(shape, bench.dtype), **found
        )
    return out


def visited(shape, dtype) -> dict:
    """Per example and head: pairs that see each other, and what each implementation walks; blocks, and the fewest."""
    n, s = shape.slots, spans(shape.steps, shape.steps, strict=False, window=None, sorted_already=False)
    low, high = (np.atleast_2d(np.asarray(x)) for x in (s.low, s.high))
    visible = shape.visible
    out = dict(visible_pairs=visible, dense_over_visible=n * n / visible)
    if written_out := xla.few_blocks(s.low, s.high):
        pairs = sum((b.rows.stop - b.rows.start) * (b.keys.stop - b.keys.start) for b in written_out)
        out["xla"] = dict(blocks=len(written_out), visited_over_visible=pairs / visible)
    tables = dict(
        xla=(min(xla.LARGEST, n), min(xla.KEYS, n)),
        tpu=tpu.block_sizes(s.low, s.high, n, n),
        gpu=gpu_blocks.blocks("forward", shape.dim, dtype)[:2],
    )
    for name, (q_block, k_block) in tables.items():
        if name in out:
            continue
        rows, columns = -(-n // q_block), -(-n // k_block)
        padded = [np.pad(x, ((0, 0), (0, rows * q_block - n))) for x in (low, high)]
        table = edges(*padded, q_block, k_block, columns)
        index = np.arange(columns * k_block)
        seen = (padded[0][..., None] <= index) & (index < padded[1][..., None])
        seen = seen.reshape(-1, rows, q_block, columns, k_block).any((2, 4))
        walked = (table[..., 3] - table[..., 0]).sum() / len(low)
        out[name] = dict(
            block=[q_block, k_block],
            blocks=float(walked),
            fewest_blocks=float(seen.sum() / len(low)),
            visited_over_visible=float(walked * q_block * k_block / visible),
        )
    return out


def linear(bench: Bench) -> dict:
    """Linear attention; useful FLOPs of the recurrence: 4 B N H K V, and twice that backward (dq, dk, dv and dS)."""
    out = {}
    for name, shape in bench.chosen(LINEAR, "tiny").items():
        each = 4.0 * shape.rows * shape.keys * shape.values
        batch, heads = fit(shape.batch, shape.heads, each, bench.target(5.4e8, 3e10))
        shape = shape._replace(batch=batch, heads=heads)
        *shapes, decay = shape.shapes
        arrays = [bench.normal(i, s) for i, s in enumerate(shapes)]
        arrays[1] = arrays[1] / shape.keys**0.5
        fixed = None
        if shape.decay == "constant":  # retention's (arXiv 2307.08621, equation 8): no parameter
            fixed = jnp.log1p(-(2.0 ** -(5 + jnp.arange(heads, dtype=jnp.float32))))
        elif decay is not None:  # gates as gated linear attention has them (2312.06635, equation 4)
            arrays.append(jax.nn.log_sigmoid(bench.normal(4, decay).astype(jnp.float32)) / 16)
        grad = bench.normal(3, shapes[2])
        case = rivals.Case(tuple(arrays), grad, bench.gpu, decay=shape.decay, fixed=fixed)
        flops, size = batch * heads * each, sum(x.nbytes for x in arrays)
        # Backward reads the inputs and the output's gradient, and writes as much as the inputs are.
        work = dict(
            forward=(flops, size + grad.nbytes), forward_backward=(3 * flops, 3 * size + 2 * grad.nbytes)
        )
        found = bench.compare(f"linear {name}", rivals.LINEAR, case, work)
        out[name] = dict(sizes=shape._asdict(), dtype=bench.dtype.__name__, **found)
    return out


def scan(bench: Bench) -> dict:
    """Scans; bytes: a, b and h once, and backward a, h, dh, da and db once."""
    out = {}
    for name, (batch, n, channels) in bench.chosen(SCANS, "tiny", "ragged").items():
        batch, channels = fit(batch, channels, n, bench.target(8e6, 2.7e8))
        shape = (batch, n, channels)
        a = jax.nn.sigmoid(2 + bench.normal(0, shape))
        case = rivals.Case((a, bench.normal(1, shape)), bench.normal(2, shape), bench.gpu)
        work = dict(forward=(2.0 * a.size, 3 * a.nbytes), forward_backward=(6.0 * a.size, 8 * a.nbytes))
        found = bench.compare(f"scan {name}", rivals.SCAN, case, work)
        out[name] = dict(sizes=dict(batch=batch, rows=n, channels=channels), dtype=a.dtype.name, **found)
    return out


def aims(result: dict, platform: str) -> dict:
    """Every aim whose number was measured: what was asked for, and what was found."""
    out = {}
    for path, least in AIMS[platform].items():
        found = result
        for key in path.split("/"):
            found = found.get(key, {})
        if found != {}:
            out[path] = dict(at_least=least, found=found, reached=bool(found >= least))
    return out


SECTIONS = dict(
    attention=attention,
    linear=linear,
    scan=scan,
    tpu=lambda bench: ahead.attention_for_tpu(bench.chosen({n: ATTENTION[n] for n in AHEAD})),
)


def main() -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default=",".join(SECTIONS), help="sections, of " + ", ".join(SECTIONS))
    parser.add_argument("--shapes", default="", help="names from the kernels' shapes.py; all by default")
    parser.add_argument("--rounds", type=int, default=4, help="timed rounds after the first")
    parser.add_argument("--quick", action="store_true", help="small calls and two rounds: does it all run?")
    args = parser.parse_args()
    # PyTorch needs some of the GPU too; and compiled programs out of a cache tell nothing of their memory.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    jax.config.update("jax_enable_compilation_cache", False)
    bench = Bench(2 if args.quick else args.rounds, args.quick, [s for s in args.shapes.split(",") if s])
    kind = jax.devices()[0].device_kind
    name = next((f"kernels_{k.split()[0].lower()}" for k in BANDWIDTH if k in kind), "kernels_gpu")
    file = timing.RESULTS / f"{name if bench.gpu else 'kernels'}.json"
    before = json.loads(file.read_text()) if file.exists() else {}
    result = dict(peaks=bench.peaks(), rounds=bench.rounds, calls_per_time=bench.repeats)
    result.update({s: before[s] for s in SECTIONS if s in before})
    for section in args.only.split(","):
        result[section] = SECTIONS[section](bench)
    result["aims"] = aims(result, "gpu" if bench.gpu else "cpu")
    if not bench.gpu:
        result["gpu"] = "no GPU was at hand: run this command on a machine with one"
    if args.quick or args.shapes:
        print(json.dumps(result, indent=2))
    else:
        timing.save(file.stem, result)


if __name__ == "__main__":
    main()
