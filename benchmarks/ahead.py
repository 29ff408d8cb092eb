"""What the compiler for TPUs says of the kernels, without a TPU."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from benchmarks import targets
from vargen.kernels.step_attention import step_attention


def compiler(target: str = "v5e:2x2") -> Callable:
    """(function, *shapes) -> the program compiled for one device of a target, see `targets.devices`.

    Raises:
      RuntimeError: its compiler isn't installed.
    """
    sharding = NamedSharding(Mesh(np.array(targets.devices(target)[:1]), ("x",)), PartitionSpec())

    def run(function, *shapes):
        shapes = [jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=sharding) for s in shapes]
        return targets.compiled(jax.jit(function).lower(*shapes))

    return run


def attention_for_tpu(shapes: dict) -> dict:
    """What the TPU compiler says of step attention and of the dense form at `shapes` (by name); nothing is run."""
    try:
        compile_for_tpu = compiler()
    except RuntimeError as error:
        return dict(skipped=str(error))
    note = (
        "Inside a kernel the compiler counts what the kernel says: the blocks that it visits, padding included. "
        "Temporaries are those in HBM; what fits lies in on-chip memory and isn't counted."
    )
    out = dict(device="v5e", dtype="bfloat16", note=note)
    for name, shape in shapes.items():
        q, k, v = (jax.ShapeDtypeStruct(s, jnp.bfloat16) for s in shape.shapes)
        mask = jax.ShapeDtypeStruct((1, 1, shape.slots, shape.slots), bool)
        systems = dict(
            ours=(lambda q, k, v, s=shape.steps: step_attention(q, k, v, s, s), (q, k, v)),
            dense=(lambda q, k, v, m: jax.nn.dot_product_attention(q, k, v, mask=m), (q, k, v, mask)),
        )
        useful = 4.0 * shape.batch * shape.heads * shape.dim * shape.visible
        out[name] = dict(sizes=dict(batch=shape.batch, slots=shape.slots, heads=shape.heads, dim=shape.dim))
        for direction, factor in (("forward", 1.0), ("forward_backward", 3.5)):
            found, total = dict(useful_gflop=factor * useful / 1e9), {}
            for who, (function, args) in systems.items():

                def both(grad, q, k, v, *m, function=function):
                    result, pull = jax.vjp(lambda q, k, v: function(q, k, v, *m), q, k, v)
                    return result, pull(grad)

                program = compile_for_tpu(function, *args) if factor == 1 else compile_for_tpu(both, q, *args)
                memory, cost = program.memory_analysis(), program.cost_analysis() or {}
                counted = {key: cost.get(key, -1.0) for key in ("flops", "bytes accessed")}
                counted = {key: x / 1e9 if x >= 0 else None for key, x in counted.items()}
                sizes = [
                    getattr(memory, f"{x}_size_in_bytes") / 2**20 for x in ("temp", "argument", "output")
                ]
                found[who] = dict(
                    temporary_mib=sizes[0],
                    argument_mib=sizes[1],
                    output_mib=sizes[2],
                    compiler_gflop=counted["flops"],
                    compiler_gbytes=counted["bytes accessed"],
                    kernels=program.as_text().count('custom_call_target="tpu_custom_call"'),
                )
                total[who] = sum(sizes)
            found["dense_memory_over_ours"] = total["dense"] / total["ours"]
            told = ", ".join(f"{who} {mib:.1f} MiB" for who, mib in total.items())
            print(f"tpu {name} {direction}: in all {told}", flush=True)
            out[name][direction] = found
    return out
