"""What the compilers make of sampling and training at the papers' sizes, on accelerators that needn't be there.

    python -m benchmarks.compiled [NAME ...] [--target h100 --target v5e:2x2] [--what sample train] [--against FILE]

Compiles the real sampler and the real training step, and counts in the compiled program (`hlo`): launches, bytes, FLOPs
and collectives, of the whole and of one iteration of the loop that moves most; temporaries; what of the loop doesn't
change from one iteration to the next and could stand before it; beside them the floors (weights and cache read once,
useful FLOPs). The predicted time lies between two: were everything overlapped, the longest of bytes, FLOPs, launches
and collectives; and launch by launch, each as long as the longest of its own. The second is what the tables show.
Nothing is run: these are counts, not times. Writes results/compiled.json; `--against` another of its like says what
changed.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import json
import pathlib
import re
import time
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from benchmarks import activations, floors, hlo, hlo_names, targets, timing
from vargen import bundled, config, models, weights
from vargen.generator import Generator
from vargen.kernels import dispatch
from vargen.samplers import Sampling, decode
from vargen.sharding import batch_sharding, make_mesh
from vargen.training import optimizer, state, work
from vargen.training.step import make_step
from vargen.training.tasks import GeneratorTask

# What is compiled where nothing is named, of every system: (config, batch at sampling, batch at training).
SIZES = dict(
    var=("var:d16", 1, 32),
    llamagen=("llamagen:b", 1, 64),
    rar=("rar:b", 1, 64),
    mar=("mar:b", 1, 64),
    randar=("randar:l", 1, 64),
    arpg=("arpg:l", 1, 64),
    xar=("xar:b", 1, 64),
    acdit=("acdit:b", 1, 32),
    maskgit=("maskgit:imagenet256", 1, 64),
    maskgil=("maskgil:b", 1, 64),
    dnd=("dnd:xxl", 1, 16),
    rqtransformer=("rqtransformer:ffhq", 1, 32),
    flexvar=("flexvar:d16", 1, 16),
    hmar=("hmar:d16_masked", 1, 16),
    flowar=("flowar:s", 1, 32),
    hart=("hart:d20", 1, 16),
    himar=("himar:b", 1, 64),
    jpeglm=("jpeglm:7b", 1, 1),
    orthus=("orthus:7b", 1, 1),
    titok=("titok:l32", 1, 64),
)
# Images/s that are published for the authors' code, 256 pixels but where it says so, on an A100: RAR's own table (batch
# 128, arXiv 2411.00776), VAR (batch 1, arXiv 2404.02905), and LlamaGen under vLLM (its repository).
PUBLISHED = {
    "var:d16": dict(images_per_second=8.3, batch=1),
    "var:d30": dict(images_per_second=17.3, batch=128),
    "rar:b": dict(images_per_second=17.0, batch=128),
    "rar:xl": dict(images_per_second=8.3, batch=128),
    "rar:xxl": dict(images_per_second=6.4, batch=128),
    "mar:b": dict(images_per_second=0.8, batch=128),
    "mar:l": dict(images_per_second=0.5, batch=128),
    "mar:h": dict(images_per_second=0.3, batch=128),
    "llamagen:b": dict(images_per_second=3.35, batch=8, pixels=384),
}

# Training: without a GPU to tune on the compiler takes Triton's products everywhere; with one it mostly chooses
# cuBLAS's for products as large as these. Sampling takes Triton's, but where none of its tilings fits some product.
CUBLAS = {"xla_gpu_enable_triton_gemm": False}
OPTIONS = {("train", "h100"): CUBLAS}
UNTILED = "Couldn't find output tile sizes"


def built(
    name: str, dtype: str = "bfloat16", changes: Sequence[tuple[str, str]] = ()
) -> tuple[Any, Any, Generator]:
    """A config with changes of its fields, its tokenizer and its generator."""
    c = config.load(name, changes)
    c.compute_dtype = dtype
    tokenizer = models.build_tokenizer(c)
    return c, tokenizer, models.build_generator(c, tokenizer)


def paper(c: Any) -> Sampling:
    """The paper's sampling settings; the config's own where it has no others."""
    presets = c.get("presets", {})
    own = c.sampling.to_dict()
    return Sampling.make(**(own | presets["paper"].sampling.to_dict() if "paper" in presets else own))


def sampler(c: Any, tokenizer: Any, generator: Generator, batch: int, devices: list[Any]) -> Any:
    """The sampler, lowered for the first of the devices: parameters and labels to contents."""
    mesh = make_mesh(devices=devices[:1])
    place = functools.partial(_placed, NamedSharding(mesh, PartitionSpec()))
    key = jax.eval_shape(lambda: jax.random.key(0))
    # As a `Model` holds them.
    platform = devices[0].platform
    params = jax.eval_shape(lambda key: weights.ready(generator, generator.init(key), platform), key)
    quantizer = jax.eval_shape(tokenizer.init, key)["quantizer"]
    labels = jax.eval_shape(
        lambda: jax.tree.map(lambda x: jnp.repeat(x, batch, 0), generator.condition.example())
    )
    run = jax.jit(functools.partial(decode, generator))
    return run.lower(place(params), place(quantizer), place(labels), place(key), paper(c))


def decoder(tokenizer: Any, dtype: str, batch: int, devices: list[Any]) -> Any:
    """The tokenizer's way from contents to images, lowered likewise."""
    mesh = make_mesh(devices=devices[:1])
    place = functools.partial(_placed, NamedSharding(mesh, PartitionSpec()))
    params = jax.eval_shape(tokenizer.init, jax.eval_shape(lambda: jax.random.key(0)))
    content = jax.eval_shape(lambda: tokenizer.slot.zeros(batch, tokenizer.grid.size))
    return jax.jit(tokenizer.decode).lower(place(params), place(content))


def trainer(c: Any, tokenizer: Any, generator: Generator, batch: int, devices: list[Any], **mesh: int) -> Any:
    """The generator's training step, lowered for a mesh of the devices."""
    settings, mesh = c.training, make_mesh(**mesh, devices=devices)
    settings.batch_size = batch
    task = GeneratorTask(generator, tokenizer)
    optimizers = optimizer.build(settings, state.boxed(task))
    where = state.shardings(task, optimizers, mesh)
    now = jax.tree.map(lambda x, s: _placed(s, x), state.shapes(task, optimizers), where)
    whole, key = NamedSharding(mesh, PartitionSpec()), jax.eval_shape(lambda: jax.random.key(0))
    frozen = _placed(whole, dict(quantizer=jax.eval_shape(tokenizer.init, key)["quantizer"]))

    def examples(key):
        labels = jax.tree.map(lambda x: jnp.repeat(x, batch, 0), generator.condition.example())
        images = jnp.zeros((batch, *tokenizer.image_size, c.data.channels))
        return dict(content=tokenizer.stored(tokenizer.init(key), images), label=labels)

    rows = _placed(batch_sharding(mesh), jax.eval_shape(examples, key))
    return make_step(task, settings, mesh).lower(now, frozen, rows, _placed(whole, key))


def _placed(sharding: NamedSharding, tree: Any) -> Any:
    return jax.tree.map(lambda s: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=sharding), tree)


def counted(
    lowered: Any, target: str, save: pathlib.Path | None = None, options: dict | None = None
) -> dict[str, Any]:
    """What the compiler makes of a lowered program: counts, memory, predicted seconds, and seconds that it took."""
    begin = time.perf_counter()
    try:
        compiled = targets.compiled(lowered, options)
    except jax.errors.JaxRuntimeError as error:
        if UNTILED not in str(error):
            raise
        options = CUBLAS
        compiled = targets.compiled(lowered, options)
    seconds = time.perf_counter() - begin
    text, device = compiled.as_text(), targets.sheet(target)
    if save is not None:
        save.write_text(text)
    program, memory = hlo.Program(text, device), compiled.memory_analysis()
    found = hlo.summary(program.total) | dict(
        temporary_mbytes=memory.temp_size_in_bytes / 1e6,
        argument_mbytes=memory.argument_size_in_bytes / 1e6,
        predicted_seconds=dict(
            one_after_another=program.total.seconds, overlapped=device.overlapped(program.total)
        ),
        by_part=hlo_names.by_part(program),
        compile_seconds=seconds,
        **(dict(products="cublas") if options == CUBLAS else {}),
    )
    if program.loops():
        loop = program.main_loop()
        found["loop"] = dict(name=loop.name, trips=loop.trips, times=loop.times, **hlo.summary(loop.body))
    return found


@functools.cache
def least(name: str, batch: int, changes: Sequence[tuple[str, str]]) -> list[floors.Work]:
    """The work that sampling needs at least, of transformer and head."""
    c, tokenizer, generator = built(name, changes=changes)
    with dispatch.lowered_for(()):  # a kernel doesn't tell what it looks at
        return list(floors.drawing(generator, tokenizer, batch, paper(c)).values())


def floor_of_sampling(
    name: str, batch: int, changes: Sequence[tuple[str, str]], target: str
) -> dict[str, Any]:
    """Weights and cache read once a step, with what products move of the rows where `activations` knows it, useful
    FLOPs, and the seconds that a target takes for them."""
    work, device = least(name, batch, tuple(changes)), targets.sheet(target)
    rates = dict(flops=device.flops, bytes=device.bytes)
    mbytes = float(sum(np.sum(w.bytes) for w in work)) / 1e6
    c, _, generator = built(name, changes=changes)
    rows = {}
    if activations.knows(generator):
        moved = activations.sampling(generator, batch, paper(c)) / 1e6
        rows = dict(mbytes_with_activations=mbytes + moved)
    return dict(
        mbytes=mbytes,
        **rows,
        gflop=float(sum(np.sum(w.flops) for w in work)) / 1e9,
        seconds=sum(w.seconds(rates) for w in work),
    )


def renew_floors(out: str, names: Sequence[str]) -> None:
    """The floors of the programs that results hold, all or those of some configs; nothing is compiled."""
    results = json.loads((timing.RESULTS / f"{out}.json").read_text())
    del results["environment"]
    for label, found in results["programs"].items():
        name, what, _, target, *others = label.split()
        if what == "sample" and (name in names or not names):
            changes = tuple(tuple(change.split("=", 1)) for change in others)
            found["floor"] = floor_of_sampling(name, found["batch"], changes, target)
            print(label, found["floor"], flush=True)
    timing.save(out, results)


def useful(
    generator: Generator, tokenizer: Any, batch: int, count: int, target: str, found: dict[str, Any]
) -> dict[str, float]:
    """FLOPs of a training step that its products ask for, and the share of the devices' peak in the predicted time."""
    flops = batch * work.of_generator(generator, tokenizer).flops
    seconds = found["predicted_seconds"]["one_after_another"]
    return dict(gflop=flops / 1e9, mfu=flops / seconds / targets.sheet(target).flops / count)


def main() -> None:
    """Compiles, prints a line a program, and writes the results."""
    args = _parse()
    if args.floors:
        return renew_floors(args.out, args.names)
    file = timing.RESULTS / f"{args.out}.json"
    kept: dict[str, Any] = json.loads(file.read_text()) if args.append and file.is_file() else {}
    results: dict[str, Any] = kept.pop("programs", {})
    kept.pop("environment", None)
    if args.text:
        args.text.mkdir(parents=True, exist_ok=True)
    names = args.names or [size for size, _, _ in SIZES.values()]
    for name, target, changes, what in itertools.product(
        names, args.target, itertools.product(*args.set), args.what
    ):
        c, tokenizer, generator = built(name, changes=changes)
        _, few, many = SIZES.get(name.partition(":")[0], (name, 1, 32))
        devices = targets.devices(target)
        batch = (args.train_batch or many) if what == "train" else (args.batch or few)
        mesh = [f"fsdp={args.fsdp}"] if what == "train" and args.fsdp > 1 else []
        label = " ".join([name, what, f"batch={batch}", target, *mesh, *map("=".join, changes)])
        save = args.text / (re.sub("[ :=]", "_", label) + ".hlo") if args.text else None
        if what == "train":
            devices = devices[: args.devices or None]
            lowered = trainer(c, tokenizer, generator, batch, devices, fsdp=args.fsdp)
        elif what == "sample":
            lowered = sampler(c, tokenizer, generator, batch, devices)
        else:
            lowered = decoder(tokenizer, "bfloat16", batch, devices)
        found = dict(batch=batch) | counted(lowered, target, save, OPTIONS.get((what, target)))
        if what == "train":
            found["useful"] = useful(generator, tokenizer, batch, len(devices), target, found)
        if what == "sample":
            found["floor"] = floor_of_sampling(name, batch, changes, target)
            found["published"] = PUBLISHED.get(name, {})
        print(_line(label, found), flush=True)
        del found["compile_seconds"]  # by a clock that others disturb: `first_call` measures it
        results[label] = found
        if args.against:
            _compare(found, json.loads(args.against.read_text())["programs"].get(label))
    timing.save(args.out, kept | dict(programs=results))


def _line(label: str, found: dict[str, Any]) -> str:
    loop = found.get("loop", found)
    seconds = found["predicted_seconds"]["one_after_another"]
    return (
        f"{label}: {found['launches']:.0f} launches, {found['mbytes']:.0f} MB, {found['gflop']:.0f} GFLOP, "
        f"{seconds * 1e3:.1f} ms predicted, temporaries {found['temporary_mbytes']:.0f} MB; in the loop "
        f"{loop['launches']:.0f} launches, {loop['mbytes']:.1f} MB, of which unchanged "
        f"{loop['unchanged']['launches']:.0f}, {loop['unchanged']['mbytes']:.1f} MB; "
        f"compiled in {found['compile_seconds']:.0f} s"
        + (f"; MFU {found['useful']['mfu']:.3f}" if "useful" in found else "")
    )


def _compare(found: dict[str, Any], before: dict[str, Any] | None) -> None:
    if before is None:
        return
    for key in ("launches", "mbytes", "gflop", "temporary_mbytes"):
        if before[key]:
            print(f"  {key}: {found[key] / before[key]:.3f} of before")


def _changes(text: str) -> list[tuple[str, str]]:
    field, _, values = text.partition("=")
    return [(field, value) for value in values.split(",")]


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "names", nargs="*", help=f"configs, of {', '.join(bundled.names())}; default one of each"
    )
    parser.add_argument("--target", action="append", default=[], help="h100, v5e:2x2, ...; default h100")
    parser.add_argument(
        "--what", nargs="+", default=["sample", "train"], choices=["sample", "decode", "train"]
    )
    parser.add_argument("--batch", type=int, default=0, help="at sampling")
    parser.add_argument("--train-batch", type=int, default=0)
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        type=_changes,
        help="a field of the config, and what it is in turn: training.remat=none,blocks",
    )
    parser.add_argument("--devices", type=int, default=0, help="so many of the target's; default all")
    parser.add_argument(
        "--fsdp", type=int, default=1, help="of these, how many split the parameters in training"
    )
    parser.add_argument("--against", type=pathlib.Path, help="results of before")
    parser.add_argument("--text", type=pathlib.Path, help="a folder for the programs' texts")
    parser.add_argument("--append", action="store_true", help="keep what else the results hold")
    parser.add_argument("--floors", action="store_true", help="renew the floors in the results, and no more")
    parser.add_argument("--out", default="compiled", help="the name of the results")
    args = parser.parse_args()
    args.target = args.target or ["h100"]
    return args


if __name__ == "__main__":
    main()
