"""The models of RQ-Transformer's goldens: as published, and with a caption, tables and maps of its own."""

from __future__ import annotations

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from vargen.conditioning import Condition
from vargen.conditioning.conditioning import Apart
from vargen.config import part
from vargen.interop import mapping as m
from vargen.interop import rqtransformer, systems
from vargen.interop.parity.golden import Golden, stand_in
from vargen.layers import Dense, Embed, Norm

TABLE = "aux.quantizer.codebooks.0.weight"
CAPTION = "cond_classifier.linear.weight"


class Numbers(Apart, nn.Module):
    """A condition of a row for each of some numbers int32 [B, P]."""

    size: int
    width: int
    length: int

    pads = False

    @nn.compact
    def __call__(self, numbers) -> Condition:
        return Condition(Embed(self.size, self.width, nn.initializers.zeros, name="words")(numbers))

    def example(self):
        """The first numbers."""
        return np.zeros((1, self.length), np.int32)


class Words(nn.Module):
    """Logits of the next number from a condition's rows: the authors' second loss, which vargen doesn't have."""

    size: int
    width: int

    @nn.compact
    def __call__(self, hidden):
        return Dense(self.size, (None, None), name="out")(Norm(eps=1e-5, name="norm")(hidden))


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


def build(golden: Golden, name: str) -> Case:
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
        words, length = Words(size, width), len(golden[f"in/{name}/cond"][0])
        generator = dataclasses.replace(generator, condition=Numbers(size, width, length))
        table = _table(generator, depth, vocab, length)
    like = jax.eval_shape(lambda key: _init(generator, words, key), jax.random.key(0))
    params = jax.tree.map(jnp.asarray, m.read(table, weights, like, what=rqtransformer.WHAT))
    return Case(name, golden, generator, params, table, {"codebook": jnp.asarray(codebook)}, words)


def _init(generator, words, key):
    params = generator.init(key)
    if words is None:
        return params
    return params | {"words": nn.meta.unbox(words.init(key, jnp.zeros((1, 1, words.width)))["params"])}


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
        final_norm="none",
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
