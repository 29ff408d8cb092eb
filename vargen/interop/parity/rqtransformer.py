"""RQ-Transformer against its authors' outputs: as published, and with a caption, tables and maps of its own."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vargen.draws import Recorded
from vargen.heads import Depth, Sample
from vargen.heads.categorical import filtered
from vargen.interop.parity.golden import REPRODUCED, Golden, Result, close, exact, gradient_norms
from vargen.interop.parity.recording import instead, margin, softmax
from vargen.interop.parity.rqtransformer_case import TABLE, Case, build
from vargen.orders import Order
from vargen.samplers import Sampling, decode


def matches(golden: Golden) -> bool:
    """Whether it is a golden of RQ-Transformer."""
    return TABLE in golden.weights


class Logits(Depth):
    """Its score is what it knew when it drew: [B, n, Q, 2, K], the logits, and these after temperature and filters."""

    def sample(self, hidden, draws, layout, settings, guidance=None, quantizer=None, around=None) -> Sample:
        """As `Depth.sample`."""
        codes, logits = self.drawn(hidden, draws, settings, guidance, quantizer)
        return Sample(codes, jnp.stack([logits, filtered(logits, settings)], axis=-2))


def results(golden: Golden) -> Iterator[Result]:
    """All comparisons that the golden's arrays allow."""
    for name in [key.split("/")[1] for key in golden.arrays if key.startswith("in/") and key.endswith("/xs")]:
        case = build(golden, name)
        yield from _whole(case)
        for run, settings in golden.meta["config"]["runs"].items():
            if f"out/{name}/gen/{run}/codes" in golden:
                yield from _sampled(case, run, settings)


def _forward(case: Case, params, soft=None) -> dict[str, Any]:
    """Everything of a whole pass, by the authors' names; `loss` last is what they take gradients of."""
    g, codes, labels = case.generator, jnp.asarray(case.codes), jnp.asarray(case.labels)
    condition = g.condition.apply({"params": params["condition"]}, labels)
    order = Order(np.arange(codes.shape[1]), np.arange(codes.shape[1]))
    rows = g.feed.apply({"params": params["feed"]}, codes, condition, order, case.quantizer, method="inputs")
    body, _ = g.stages[0](params, rows.x, rows.layout, None, None)
    context = g.feed.apply({"params": params["feed"]}, body, rows, method="outputs")
    bare = g.head.blocks.norm.clone(norm="none")
    head = g.head.clone(blocks=dataclasses.replace(g.head.blocks, norm=bare))

    def of(head, method, *args, **kwargs):
        return head.apply({"params": params["head"]}, *args, method=method, **kwargs)

    vectors = g.tokenizer.vectors(case.quantizer, codes) if head.vectors else None
    inputs = of(head, "rows", context, codes, vectors)
    known = of(g.head, "known", context, codes, case.quantizer)
    loss, metrics = of(g.head, "loss", context, codes, train=False, quantizer=case.quantizer)

    def by_depth(metrics):
        return jnp.stack([metrics[f"nats_{d + 1}"] for d in range(codes.shape[-1])])

    found = {
        "body_out": body,
        "head_in": inputs.reshape(-1, *inputs.shape[2:]),
        "head_out": of(head, "through", inputs).reshape(-1, *inputs.shape[2:]),
        "logits": known,
        "loss": loss,
        "codebook_loss": by_depth(metrics),
    }
    if soft is not None:
        value, metrics = of(
            g.head,
            "loss",
            context,
            codes,
            train=False,
            quantizer=case.quantizer,
            soft=soft.reshape(known.shape),
        )
        found |= {"soft_loss": value, "soft_codebook_loss": by_depth(metrics)}
    if case.words is None:
        return found | {"trained": loss}
    logits: Any = case.words.apply({"params": params["words"]}, body[:, : labels.shape[1] - 1])
    log_p = jnp.take_along_axis(jax.nn.log_softmax(logits), labels[:, 1:, None], axis=-1)
    found |= {"cond_logits": logits, "cond_loss": -jnp.mean(log_p)}
    found["total_loss"] = 0.9 * loss + 0.1 * found["cond_loss"]
    return found | {"trained": found["total_loss"]}


def _whole(case: Case) -> Iterator[Result]:
    """A whole pass over known codes: hidden vectors, logits, losses and gradients."""
    soft = case.golden[f"in/{case.name}/soft"] if f"in/{case.name}/soft" in case.golden else None

    def loss(params):
        found = _forward(case, params, soft)
        return found.pop("trained"), found

    norms = f"{case.name}/gradnorm/"
    graded = bool(case.golden.outputs(norms))
    run = jax.jit(jax.value_and_grad(loss, has_aux=True) if graded else lambda params: (loss(params), None))
    (_, found), gradients = run(case.params)
    for name, value in found.items():
        output = f"out/{case.name}/{name}"
        if output in case.golden:
            expected = case.golden[output]
            yield close(output, np.reshape(value, expected.shape), expected, REPRODUCED)
    if graded:
        yield from gradient_norms(case.golden, case.table, gradients, 1e-4, norms)


def _sampled(case: Case, run: str, settings: dict[str, Any]) -> Iterator[Result]:
    """One of the authors' sampling runs: codes, the logits behind them, and how near they came to others."""
    golden, out = case.golden, f"out/{case.name}/gen/{run}/"
    (batch, n, depth), (_, columns) = case.codes.shape, golden[f"in/{case.name}/xs"].shape[1:3]
    row, column = settings.get("start", (0, 0))
    known = np.arange(n) < row * columns + column
    random = settings.get("random", False)
    sampling = Sampling.make(
        temperature=settings.get("temperature", 1.0) if random else 0.0,
        top_k=settings.get("top_k", 0),
        top_p=settings.get("top_p", 1.0),
    )
    uniforms, draws = None, None
    if random:
        uniforms = golden[f"in/{case.name}/u/{run}"]
        draws = Recorded(uniforms=jnp.asarray(uniforms.reshape(batch, n, depth)))
    generator = dataclasses.replace(case.generator, head=instead(case.generator.head, Logits))

    @jax.jit
    def go(params, labels, codes):
        given = (codes, known) if known.any() else None
        key, args = jax.random.key(0), (labels,)
        return decode(
            generator, params, case.quantizer, *args, key, sampling, given, draws=draws, scored=True
        )

    found = go(case.params, jnp.asarray(case.labels), jnp.asarray(case.codes))
    yield exact(out + "codes", np.reshape(found.content, golden[out + "codes"].shape), golden[out + "codes"])
    logits = np.asarray(found.score)[:, known.sum() :].reshape(batch, -1, *found.score.shape[3:])
    yield close(out + "logits", logits[..., 0, :], golden[out + "logits"], REPRODUCED)
    if out + "probs" in golden:
        yield close(out + "probs", softmax(logits[..., 1, :]), golden[out + "probs"], REPRODUCED)
    if out + "margin" in golden:
        yield Result(out + "margin", abs(margin(logits, uniforms) - float(golden[out + "margin"])), 1e-4)
