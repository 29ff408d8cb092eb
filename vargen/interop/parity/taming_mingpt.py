"""The transformer over VQGAN's codes against its authors' outputs."""

from __future__ import annotations

from collections.abc import Iterator

import jax
import jax.numpy as jnp

from vargen.interop import systems, taming_mingpt
from vargen.interop.parity.golden import SINGLE, Golden, Result, close, gradient_norms, stand_in


def matches(golden: Golden) -> bool:
    """Whether it is a golden of VQGAN's transformer."""
    return taming_mingpt.PLACES in golden.weights


def results(golden: Golden) -> Iterator[Result]:
    """All comparisons that the golden's arrays allow: of its sequences the first code is the class."""
    codes, targets = jnp.asarray(golden["in/idx"]), jnp.asarray(golden["in/targets"])
    vocab = golden.weights[taming_mingpt.CODES].shape[0]
    c = stand_in((1, codes.shape[1]), name="vq", vocab=vocab, channels=8)
    taming_mingpt.fill(c, golden.weights, golden.meta["args"]["n_head"])
    _, generator = systems.build(c)
    params = jax.tree.map(jnp.asarray, systems.read(taming_mingpt, generator, golden.weights))

    def loss(params):
        order = generator.ordering.decoding(None, len(codes))
        content = jnp.roll(codes, -1, axis=1)  # the last is not looked at
        hidden, _ = generator.hidden(params, None, content, codes[:, 0], order)
        head = {"params": params["head"]}
        nats = generator.head.apply(head, hidden, targets, method="log_prob")
        return -jnp.mean(nats), generator.head.apply(head, hidden)

    (value, logits), gradients = jax.jit(jax.value_and_grad(loss, has_aux=True))(params)
    for name, found in (("logits", logits), ("loss", value)):
        if f"out/{name}" in golden:
            yield close(f"out/{name}", found, golden[f"out/{name}"], SINGLE)
    # One table there is two here.
    table, classes = gradients["feed"]["content"]["codes"], gradients["condition"]["classes"]["table"]
    table["table"] = table["table"].at[: len(classes)].add(classes)
    yield from gradient_norms(golden, taming_mingpt.table(generator), gradients, SINGLE)
