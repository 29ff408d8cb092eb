"""Seconds per image at 256x256 with random weights: ours, and the authors' code where a checkout is given.

    python -m benchmarks.sampling --var-checkout ~/VAR --llamagen-checkout ~/LlamaGen \\
        --mar-checkout ~/mar --rar-checkout ~/1d-tokenizer

Writes results/sampling_<backend>.json after every system and batch. VAR-d16, LlamaGen-B, MAR-B and RAR-B with the
guidance of their papers, ours and theirs interleaved in one process. On a CPU: float32, as many threads as cores, MAR
in 16 steps instead of 256. On a GPU: bfloat16 (TF32 where float32 is asked for), batches 1, 8 and 64. Peak memory on a
CPU is that of a fresh process with one call in it, ours also with programs of JAX's compilation cache
(`vargen_cached`); on a GPU that of the framework's allocator. The floor: `floors`.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import pathlib
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable

import jax
import numpy as np

from benchmarks import floors, references, timing
from vargen import config, models
from vargen.model import Model

SIDES = ("vargen", "authors")
# By system: the config, and the batch on a CPU.
SYSTEMS = dict(
    var=("var:d16", 4),
    llamagen=("llamagen:b", 2),
    mar=("mar:b", 1),
    rar=("rar:b", 2),
)
GPU_BATCHES = (1, 8, 64)
CPU_MAR_STEPS = 16


def build(name: str, dtype: str, parameters=lambda init, key: jax.jit(init)(key)) -> Model:
    """A full-size model with random parameters."""
    c = config.load(name)
    c.compute_dtype = dtype
    tokenizer = models.build_tokenizer(c)
    generator = models.build_generator(c, tokenizer)
    params = parameters(generator.init, jax.random.key(0))
    return Model(c, parameters(tokenizer.init, jax.random.key(1)), params)


def noise(init, key):
    """Parameters as `init` would give them, but of small random numbers, and made one by one: it takes no more memory
    than they do."""
    random = np.random.default_rng(0)

    def one(x):
        return jax.device_put(np.float32(0.02) * random.standard_normal(x.shape, np.float32))

    return jax.tree.map(one, jax.eval_shape(init, key))


def ours(model: Model, batch: int, sampling: dict) -> references.Reference:
    """Our sampler, in the form in which the authors' come."""
    labels, split = np.arange(batch), {}

    def sample():
        content, _ = model.generate(labels, 0, **sampling)
        jax.block_until_ready(content)
        start = time.perf_counter()
        jax.block_until_ready(model.decode(content))
        split["decoder"] = time.perf_counter() - start

    params = jax.tree.leaves((model.tokenizer_params, model.generator_params))
    return references.Reference(sample, split, sum(x.nbytes for x in params))


def theirs(args: argparse.Namespace, system: str, batch: int, sampling: dict) -> references.Reference:
    """The authors' sampler."""
    build_it = getattr(references, system)
    return build_it(checkout_of(args, system), batch, sampling, args.device, args.dtype)


def settings(system: str, mar_steps: int) -> dict:
    """The paper's sampling settings."""
    sampling = config.load(SYSTEMS[system][0]).presets.paper.sampling.to_dict()
    return {**sampling, "steps": mar_steps} if system == "mar" else sampling


def measure(sides: dict[str, references.Reference], batch: int, rounds: int) -> dict:
    """Times of all sides interleaved; their halves as they were in each side's best round."""
    decoders: dict[str, list[float]] = {who: [] for who in sides}

    def run(who):
        sides[who].sample()
        decoders[who].append(sides[who].split["decoder"])

    times = timing.interleaved({who: lambda who=who: run(who) for who in sides}, rounds)
    for who, t in times.items():
        decoder = decoders[who][1 + t["all"].index(t["warm"])]
        t.update(
            seconds_per_image=t["warm"] / batch,
            images_per_second=batch / t["warm"],
            transformer=t["warm"] - decoder,
            decoder=decoder,
        )
    if "authors" in times:
        times["ratio_to_authors"] = times["vargen"]["warm"] / times["authors"]["warm"]
    return times


def peak_memory() -> int:
    """Bytes that this process has taken at most."""
    # ru_maxrss of a child begins at what its parent had: Linux's own count of this program comes first.
    status = pathlib.Path("/proc/self/status")
    for line in status.read_text().splitlines() if status.exists() else []:
        if line.startswith("VmHWM"):
            return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def memory_of_calls(args: argparse.Namespace, system: str, batch: int, sides: Iterable[str]) -> dict:
    """Of each side `memory_of_one_call`; of ours once more, with the programs that the first call compiled."""
    with tempfile.TemporaryDirectory() as cache:
        found = {who: memory_of_one_call(args, system, batch, who, cache) for who in sides}
        return found | dict(vargen_cached=memory_of_one_call(args, system, batch, "vargen", cache))


def memory_of_one_call(args: argparse.Namespace, system: str, batch: int, side: str, cache: str) -> dict:
    """What `--side` prints in a fresh process, with its compiled programs in the folder `cache`."""
    command = [sys.executable, "-m", "benchmarks.sampling", "--side", side, "--systems", system]
    command += ["--batches", str(batch), "--dtype", args.dtype, "--mar-steps", str(args.mar_steps)]
    command += [f"--{system}-checkout", checkout_of(args, system)]
    caching = dict(JAX_COMPILATION_CACHE_DIR=cache, JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS="0")
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=os.environ | caching)
    return json.loads(done.stdout.splitlines()[-1])


def one_call(side: references.Reference, imported: int) -> dict:
    """Peak memory of this process, after imports (given), before and after its only call, and the parameters' size."""
    before = peak_memory()
    side.sample()
    return dict(
        peak_bytes=peak_memory(),
        peak_bytes_before=before,
        peak_bytes_imported=imported,
        parameter_bytes=side.parameter_bytes,
    )


def gpu_memory(sides: dict[str, references.Reference], before: int) -> dict:
    """Peaks of both allocators since `before`, JAX's peak as it was then: where it hasn't risen, it is a bound."""
    peak = jax.devices()[0].memory_stats()["peak_bytes_in_use"]
    found = dict(vargen=dict(peak_bytes=peak, risen=peak > before))
    if "authors" in sides:
        import torch

        found["authors"] = dict(peak_bytes=torch.cuda.max_memory_allocated())
    return {who: dict(m, parameter_bytes=sides[who].parameter_bytes) for who, m in found.items()}


def checkout_of(args: argparse.Namespace, system: str) -> str:
    """The path given for a system's checkout, or ""."""
    return getattr(args, f"{system}_checkout")


def parse() -> argparse.Namespace:
    """The flags, with this backend's defaults."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--systems", default=",".join(SYSTEMS))
    for system, repository in dict(
        var="FoundationVision/VAR",
        llamagen="FoundationVision/LlamaGen",
        mar="LTH14/mar",
        rar="bytedance/1d-tokenizer",
    ).items():
        parser.add_argument(f"--{system}-checkout", default="", help=f"a checkout of {repository}")
    parser.add_argument(
        "--batches", default="", help="comma-separated; default: one per system, on a GPU 1,8,64"
    )
    parser.add_argument("--rounds", type=int, default=2, help="timed rounds after the first")
    parser.add_argument("--dtype", default="", help="float32 or bfloat16; default by backend")
    parser.add_argument("--mar-steps", type=int, default=0, help="steps of MAR; default 256, on a CPU 16")
    parser.add_argument(
        "--memory", action=argparse.BooleanOptionalAction, default=True, help="measure peak memory"
    )
    parser.add_argument("--append", action="store_true", help="keep the other systems that the file holds")
    parser.add_argument("--out", default="", help="the file; default results/sampling_<backend>.json")
    parser.add_argument("--side", choices=SIDES, help="make one call of this side and print its memory")
    args = parser.parse_args()
    cpu = jax.default_backend() == "cpu"
    args.dtype = args.dtype or ("float32" if cpu else "bfloat16")
    args.mar_steps = args.mar_steps or (CPU_MAR_STEPS if cpu else 256)
    args.device = "cpu" if cpu else "cuda"
    args.out = pathlib.Path(args.out or timing.RESULTS / f"sampling_{jax.default_backend()}.json").absolute()
    unknown = sorted(set(args.systems.split(",")) - set(SYSTEMS))
    if unknown:
        parser.error(f"--systems: expected {', '.join(SYSTEMS)}, found {unknown[0]}")
    return args


def batches_of(args: argparse.Namespace, system: str) -> list[int]:
    """The batches to measure."""
    if args.batches:
        return [int(b) for b in args.batches.split(",")]
    return [SYSTEMS[system][1]] if args.device == "cpu" else list(GPU_BATCHES)


def run_system(args: argparse.Namespace, system: str, rates: dict[str, float], save) -> None:
    """Measures one system; `save(entry)` after each batch."""
    name, sampling = SYSTEMS[system][0], settings(system, args.mar_steps)
    model = build(name, args.dtype)
    entry = dict(config=name, dtype=args.dtype, sampling=sampling, rounds=args.rounds)
    entry["images_per_second"] = {who: {} for who in SIDES}
    entry["batches"] = {}
    for batch in batches_of(args, system):
        sides = {"vargen": ours(model, batch, sampling)}
        checkout = checkout_of(args, system)
        if checkout:
            sides["authors"] = theirs(args, system, batch, sampling)
        if args.device == "cuda":
            before = jax.devices()[0].memory_stats()["peak_bytes_in_use"]
            if checkout:
                import torch

                torch.cuda.reset_peak_memory_stats()
        found = measure(sides, batch, args.rounds)
        # The device's best may have been hidden by others at work on it: the faster of before and after counts.
        again = floors.measured_rates(args.dtype)
        rates = {name: max(rate, again[name]) for name, rate in rates.items()}
        found["measured"] = dict(matmul_gflops=rates["flops"] / 1e9, read_gbytes=rates["bytes"] / 1e9)
        work = floors.sampling(model.generator, model.tokenizer, batch, model.sampling(**sampling))
        found.update(floors.report(work, rates))
        found["ours_to_floor"] = found["vargen"]["warm"] / found["floor_seconds"]["total"]
        if args.memory:
            if args.device == "cuda":
                found["memory"] = gpu_memory(sides, before)
            else:
                found["memory"] = memory_of_calls(args, system, batch, sides)
        for who in sides:
            entry["images_per_second"][who][str(batch)] = found[who]["images_per_second"]
        entry["batches"][str(batch)] = found
        save(entry)
        del sides
        gc.collect()
        if args.device == "cuda" and checkout:
            torch.cuda.empty_cache()


def main() -> None:
    """Runs the benchmark."""
    # Two frameworks share the device.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    args = parse()
    systems = args.systems.split(",")
    if args.side:
        (system,), (batch,) = systems, batches_of(args, systems[0])
        sampling = settings(system, args.mar_steps)
        if args.side == "vargen":
            imported = peak_memory()
            side = ours(build(SYSTEMS[system][0], args.dtype, noise), batch, sampling)
        else:
            import torch  # noqa: F401

            imported = peak_memory()
            side = theirs(args, system, batch, sampling)
        print(json.dumps(one_call(side, imported)))
        return
    result = {}
    if args.append and args.out.exists():
        result = json.loads(args.out.read_text())
        del result["environment"]
    rates = floors.measured_rates(args.dtype)
    for system in systems:

        def save(entry, system=system):
            result[system] = entry
            timing.save(str(args.out.with_suffix("")), result)

        run_system(args, system, rates, save)


if __name__ == "__main__":
    main()
