"""Runs in a process of its own with eight devices: kernels split by examples and heads, against whole ones."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec as P

from vargen import kernels, sharding
from vargen.kernels.dropout import draw_words
from vargen.mixers import primitives

ROWS = P(("fsdp", "data"), None, "tensor", None)
STEPS = np.repeat(np.arange(4), (1, 3, 5, 9))


def cases():
    """Name, the kernel by implementation, its arrays, their partition."""
    rng = np.random.default_rng(0)
    rows = [jnp.asarray(rng.normal(size=(4, 18, 4, 16)), jnp.float32) for _ in range(3)]
    of_example = jnp.asarray(np.stack([rng.permutation(18) for _ in range(4)]))
    attend = functools.partial(kernels.step_attention, q_step=STEPS, k_step=STEPS)
    yield "static steps", attend, rows, [ROWS] * 3
    words = draw_words(jax.random.key(0), (4, 4, 18))
    drop = lambda q, k, v, words, implementation: kernels.step_attention(  # noqa: E731
        q, k, v, STEPS, STEPS, dropout=0.3, words=words, implementation=implementation
    )
    yield "dropout", drop, [*rows, words], [ROWS] * 3 + [P(("fsdp", "data"), "tensor", None)]
    attend = lambda q, k, v, s, implementation: kernels.step_attention(  # noqa: E731
        q, k, v, s, s, implementation=implementation
    )
    yield "traced steps", attend, [*rows, of_example], [ROWS] * 3 + [P(("fsdp", "data"))]
    linear = functools.partial(kernels.linear_attention, scale=0.1)
    yield "linear attention", linear, [*rows, -jnp.abs(rows[0])], [ROWS] * 4
    yield "linear scan", kernels.linear_scan, [jnp.tanh(rows[0]), rows[1]], [ROWS] * 2


def main():
    mesh = sharding.make_mesh(2, 2, 2)
    errors = {}

    def of(function, arrays):
        """Values and gradients."""

        def loss(*floats):
            y = function(*floats, *arrays[len(floats) :])
            return jnp.sum(jnp.sin(y)), y

        floats = [x for x in arrays if jnp.issubdtype(x.dtype, jnp.floating)]
        grad = jax.jit(jax.value_and_grad(loss, tuple(range(len(floats))), has_aux=True))
        (_, y), grads = grad(*floats)
        return [np.asarray(y), *map(np.asarray, grads)]

    def error(whole, split):
        pairs = zip(whole, split, strict=True)
        return max(float(np.abs(a - b).max() / max(1.0, np.abs(a).max())) for a, b in pairs)

    def compare(name, whole, split, arrays):
        errors[name] = error(of(whole, arrays), of(split, arrays))

    for name, kernel, arrays, specs in cases():
        whole = of(functools.partial(kernel, implementation="xla"), arrays)
        for implementation in ("xla", "tpu_interpret", "gpu_interpret"):
            run = functools.partial(kernel, implementation=implementation)
            split = jax.shard_map(run, mesh=mesh, in_specs=tuple(specs), out_specs=ROWS, check_vma=False)
            errors[f"shard_map, {name}, {implementation}"] = error(whole, of(split, arrays))

    # As mixers call them: the mesh is found, heads that can't be split stay whole.
    q, k, v = (
        jnp.asarray(np.random.default_rng(1).normal(size=(4, 18, 4, 8)), jnp.float32) for _ in range(3)
    )
    with jax.set_mesh(mesh):
        for groups in (4, 1):
            run = functools.partial(step_attention_of, STEPS)
            compare(
                f"mixers, {groups} key heads",
                functools.partial(run, kernels.step_attention),
                functools.partial(run, primitives.step_attention),
                [q, k[:, :, :groups], v[:, :, :groups]],
            )
            key = jax.random.key(0)
            words = draw_words(key, (4, 4, 18))
            compare(
                f"mixers, dropout, {groups} key heads",
                lambda q, k, v, w=words: kernels.step_attention(q, k, v, STEPS, STEPS, dropout=0.3, words=w),
                lambda q, k, v, key=key: primitives.step_attention(
                    q, k, v, STEPS, STEPS, dropout=0.3, key=key
                ),
                [q, k[:, :, :groups], v[:, :, :groups]],
            )
        decay = -jnp.abs(q[..., 0])
        compare("mixers, linear", kernels.linear_attention, primitives.linear_attention, [q, k, v, decay])
        compare("mixers, scan", kernels.linear_scan, primitives.linear_scan, [jnp.tanh(q[:1]), k])

    # Keys spread over devices: each attends to its own, and the parts are merged.
    def spread(q, k, v, k_step):
        parts = kernels.step_attention(q, k, v, jnp.asarray(STEPS[2:]), k_step, return_lse=True)
        return kernels.merge(*(jax.lax.all_gather(x, "tensor") for x in parts))[0]

    keys, queries = P("data", "tensor"), P("data")
    specs = (queries, keys, keys, P("tensor"))
    split = jax.shard_map(spread, mesh=mesh, in_specs=specs, out_specs=queries, check_vma=False)
    compare(
        "keys spread over devices",
        lambda q, k, v: kernels.step_attention(q, k, v, STEPS[2:], STEPS),
        lambda q, k, v: split(q, k, v, jnp.asarray(STEPS)),
        [q[:, 2:], k, v],
    )
    print(json.dumps(errors))


def step_attention_of(steps, kernel, q, k, v):
    return kernel(q, k, v, steps, steps)


if __name__ == "__main__":
    main()
