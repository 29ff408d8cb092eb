"""RQ-Transformer against its authors' outputs: as published, and with a caption, tables and maps of its own."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from vargen.conditioning import Condition
from vargen.config import part
from vargen.draws import Recorded
from vargen.heads import Depth, Sample
from vargen.heads.categorical import filtered
from vargen.interop import mapping as m
from vargen.interop import rqtransformer, systems
from vargen.interop.parity.golden import REPRODUCED, Golden, Result, close, exact, gradient_norms, stand_in
from vargen.interop.parity.recording import margin
from vargen.layers import Dense, Embed, Norm
from vargen.orders import Order
from vargen.samplers import Sampling, decode

TABLE = "aux.quantizer.codebooks.0.weight"
CAPTION = "cond_classifier.linear.weight"


def matches(golden: Golden) -> bool:
    """Whether it is a golden of RQ-Transformer."""
    return TABLE in golden.weights


class Numbers(nn.Module):
    """A condition of a row for each of some numbers int32 [B, P]."""

    size: int
    width: int

    @nn.compact
    def __call__(self, numbers) -> Condition:
        return Condition(Embed(self.size, self.width, nn.initializers.zeros, name="words")(numbers))


class Words(nn.Module):
    """Logits of the next number from a condition's rows: the authors' second loss, which vargen doesn't have."""

    size: int
    width: int

    @nn.compact
    def __call__(self, hidden):
        return Dense(self.size, (None, None), name="out")(Norm(eps=1e-5, name="norm")(hidden))


class Logits(Depth):
    """Its score is what it knew when it drew: [B, n, Q, 2, K], the logits, and these after temperature and filters."""

    def sample(self, hidden, draws, layout, settings, guidance=None, quantizer=None) -> Sample:
        """As `Depth.sample`."""
        codes, logits = self.drawn(hidden, draws, settings, guidance, quantizer)
        return Sample(codes, jnp.stack([logits, filtered(logits, settings)], axis=-2))


@dataclasses.dataclass(frozen=True)
class Case:
    """One of the golden's models.

    Attributes:
      name: its prefix.
      golden: the file.
      generator, params: ours.
      table: of its parameters.
      quantizer: the tables of the codes.
      words: of the second loss, or None.
    """

    name: str
    golden: Golden
    generator: Any
    params: Any
    table: list[m.Entry]
    quantizer: Any
    words: Words | None

    @property
    def codes(self) -> np.ndarray:
        """int32 [B, N, Q]."""
        codes = self.golden[f"in/{self.name}/xs"]
        return codes.reshape(len(codes), -1, codes.shape[-1])

    @property
    def labels(self) -> np.ndarray:
        """What the condition is made of."""
        found = self.golden[f"in/{self.name}/cond"]
        return found if self.words else found[:, 0]


def results(golden: Golden) -> Iterator[Result]:
    """All comparisons that the golden's arrays allow."""
    for name in [key.split("/")[1] for key in golden.arrays if key.startswith("in/") and key.endswith("/xs")]:
        case = _case(golden, name)
        yield from _whole(case)
        for run, settings in golden.meta["config"]["runs"].items():
            if f"out/{name}/gen/{run}/codes" in golden:
                yield from _sampled(case, run, settings)


def _case(golden: Golden, name: str) -> Case:
    """A model of the golden as vargen builds it."""
    weights = {k.removeprefix(f"{name}."): w for k, w in golden.weights.items() if k.startswith(f"{name}.")}
    config = golden.meta["config"][name]
    own = CAPTION in weights
    height, width, depth = config["block_size"]
    codebook = golden.weights[TABLE][None, :-1]
    vocab = config["vocab_size"]
    c = stand_in((height, width), name="rq", vocab=vocab, channels=config["input_embed_dim"], depth=depth)
    heads, inner = (config[stack]["block"]["n_head"] for stack in ("body", "head"))
    if own:
        _fill(c, config, heads)
    else:
        rqtransformer.fill(c, weights, heads)
    c.head.mixer = part("attention", heads=inner, bias="qkv")
    _, generator = systems.build(c)
    words, table = None, rqtransformer.table(generator) if not own else []
    if own:
        size, width = weights["cond_emb.weight"].shape
        words = Words(size, width)
        generator = dataclasses.replace(generator, condition=Numbers(size, width))
        table = _table(generator, depth, vocab, len(golden[f"in/{name}/cond"][0]))
    like = jax.eval_shape(
        lambda key: _init(generator, words, key, golden[f"in/{name}/cond"]), jax.random.key(0)
    )
    params = m.read(table, weights, like, what=rqtransformer.WHAT)
    params = jax.tree.map(jnp.asarray, {stage: {} for stage in like} | params)
    return Case(name, golden, generator, params, table, {"codebook": jnp.asarray(codebook)}, words)


def _init(generator, words, key, numbers):
    if words is None:
        return generator.init(key)
    params = {k: v for k, v in _parts(generator, key).items() if k != "condition"}
    params["condition"] = nn.meta.unbox(generator.condition.init(key, numbers)["params"])
    return params | {"words": nn.meta.unbox(words.init(key, jnp.zeros((1, 1, words.width)))["params"])}


def _parts(generator, key):
    """All parameters but for the condition, whose stand-in has no example."""
    from vargen.conditioning import LabelEmbedding

    usual = LabelEmbedding(num_classes=1, width=generator.width, initial=generator.feed.initial)
    lead = dataclasses.replace(generator, condition=usual.clone(lead=generator.feed.prefix - 1))
    return lead.init(key)


def _fill(c, config: dict[str, Any], heads: int) -> None:
    """A model of captions with a table for each depth, which the authors' program knows and nobody has published."""
    c.conditioning = part("words", vocabulary=("a",), tokens=config["block_size_cond"])
    c.order, c.feed = part("raster"), part("shift", positions=True)
    c.mixer = part("attention", heads=heads, bias="qkv")
    c.head = part("depth", layers=config["head"]["n_layer"], vectors=False, shared=False)
    kinds = {"v1": "gelu", "v2": "gelu_sigmoid"}
    c.model = dict(
        layers=config["body"]["n_layer"],
        width=config["embed_dim"],
        mlp=kinds[config["body"]["block"].get("gelu", "v1")],
        eps=1e-5,
        final_norm=False,
    )


def _table(generator, depth: int, vocab: int, prefix: int) -> list[m.Entry]:
    """The authors' one table of codes is two of ours, whose gradients add up to its."""
    entries = m.array("condition/words/table", "cond_emb.weight") + rqtransformer.stacks(generator)
    entries += rqtransformer.places(prefix)
    targets = ("feed/content/codes/table", "head/codes/table")
    entries.append(m.Entry(targets, ("tok_emb.weight",), lambda w: (w, w), lambda a, b: (a + b,)))
    entries += m.buffer("tok_emb.offsets", lambda: vocab * np.arange(depth))
    entries += m.norm("head/stage/blocks_norm/norm", "classifier.layer_norm")
    entries += m.array("head/kernel", "classifier.linear.weight") + m.array(
        "head/bias", "classifier.linear.bias"
    )
    entries += m.array("head/places", "pos_emb_d", m.LEADING)
    return (
        entries
        + m.norm("words/norm", "cond_classifier.layer_norm")
        + m.dense("words/out", "cond_classifier.linear")
    )


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

    @jax.jit
    def run(params):
        def loss(params):
            found = _forward(case, params, soft)
            return found.pop("trained"), found

        return jax.value_and_grad(loss, has_aux=True)(params)

    (_, found), gradients = run(case.params)
    for name, value in found.items():
        output = f"out/{case.name}/{name}"
        if output in case.golden:
            expected = case.golden[output]
            yield close(output, np.reshape(value, expected.shape), expected, REPRODUCED)
    yield from gradient_norms(case.golden, case.table, gradients, 1e-4, f"{case.name}/gradnorm/")


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
    fields = {f.name: getattr(case.generator.head, f.name) for f in dataclasses.fields(Depth) if f.init}
    head = Logits(**{k: v for k, v in fields.items() if k not in ("parent", "name")})
    generator = dataclasses.replace(case.generator, head=head)

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
        yield close(out + "probs", jax.nn.softmax(logits[..., 1, :]), golden[out + "probs"], REPRODUCED)
    if out + "margin" in golden:
        yield Result(out + "margin", abs(margin(logits, uniforms) - float(golden[out + "margin"])), 1e-4)
