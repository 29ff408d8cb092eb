"""A generator: condition, feed, stacks of blocks, head, put together over a tokenizer's slots."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from vargen.conditioning import Condition
from vargen.feeds.rows import take_slots
from vargen.mixers.block import Block, FinalNorm, SharedModulation
from vargen.mixers.layout import Layout


@dataclasses.dataclass(frozen=True, eq=False)
class Generator:
    """Static configuration of a generator, with pure functions over its parameters.

    Parameters are a dict: `condition`, `feed`, `head`, for each stack of the feed the blocks' parameters
    stacked along a first axis of layers (`blocks`, or `encoder` and `decoder`) and `<stack>_norm`, and
    `modulation` where it is shared.

    Attributes:
      tokenizer: whose slots it generates.
      order, condition, feed, block, norm, head: the parts.
      layers: L of each stack of the feed.
      modulation: the shared modulation, or None.
      drop_path: stochastic depth of the last layer, growing linearly from 0.
      remat: whether training recomputes each block in the backward pass.
    """

    tokenizer: Any
    order: Any
    condition: nn.Module
    feed: nn.Module
    block: Block
    norm: FinalNorm
    head: nn.Module
    layers: tuple[int, ...]
    modulation: SharedModulation | None = None
    drop_path: float = 0.0
    remat: bool = False

    def init_boxed(self, key: jax.Array):
        """Parameters, each boxed with its logical axis names."""
        keys = dict(zip(("condition", "feed", "head", "modulation"), jax.random.split(key, 4), strict=True))
        labels = self.condition.example()
        params = {"condition": self.condition.init(keys["condition"], labels)["params"]}
        condition = jnp.zeros((1, 1, self.block.width))
        if self.modulation is not None:
            params["modulation"] = self.modulation.init(keys["modulation"], condition)["params"]
        params["feed"] = self.feed.init(keys["feed"], self, method=_touch_feed)["params"]
        params["head"] = self.head.init(keys["head"], jnp.zeros((1, 1, self.block.width)))["params"]
        for i, (name, layers) in enumerate(zip(self.feed.stacks, self.layers, strict=True)):
            stack_key, norm_key = jax.random.split(jax.random.fold_in(key, i))
            init = functools.partial(self.block.init, method=_touch_block)
            boxed = jax.vmap(lambda k, init=init: init(k)["params"])(jax.random.split(stack_key, layers))
            params[name] = jax.tree.map(_add_layers_axis, boxed, is_leaf=_is_box)
            params[f"{name}_norm"] = self.norm.init(norm_key, condition, condition).get("params", {})
        return params

    def init(self, key: jax.Array):
        """Parameters as a plain pytree of float32 arrays."""
        return nn.meta.unbox(self.init_boxed(key))

    # Training.

    def loss(self, params, quantizer, content, labels, key, train: bool = True, progress=None):
        """The training loss.

        Args:
          params: parameters.
          quantizer: the tokenizer's quantiser parameters (which feeds with levels need).
          content: codes [B, N] or latents [B, N, C].
          labels: int32 [B], or whatever the conditioning's `parse` gives.
          key: PRNG key.
          train: label dropout, dropout and stochastic depth on.
          progress: float32 [], the share of the training that is done, which orders may depend on; None for the
            order that they end with.

        Returns:
          A float32 scalar, and the head's metrics.
        """
        key_order, key_labels, key_rows, key_head = jax.random.split(key, 4)
        if train:
            labels = self.condition.drop(labels, key_labels)
        order = self.order.training(key_order, len(content), progress)
        hidden, rows = self.hidden(params, quantizer, content, labels, order, key_rows if train else None)
        target = take_slots(content, rows.slots)
        return self.head.apply(
            {"params": params["head"]},
            hidden,
            target,
            rows.weight,
            train,
            method="loss",
            rngs={"head": key_head},
        )

    def log_likelihood(self, params, quantizer, content, labels) -> jax.Array:
        """float32 [B], nats: log p(codes [B, N] | labels [B]) in the order of generation.

        Raises:
          ValueError: the head has no explicit likelihood, or generation is in random order.
        """
        if not hasattr(self.head, "log_prob") or self.order.random_decoding:
            raise ValueError("log_likelihood: needs a head with an explicit likelihood and a fixed order")
        order = self.order.decoding(None, len(content))
        hidden, rows = self.hidden(params, quantizer, content, labels, order)
        target = take_slots(content, rows.slots)
        return jnp.sum(self.head.apply({"params": params["head"]}, hidden, target, method="log_prob"), axis=1)

    def hidden(self, params, quantizer, content, labels, order, key=None):
        """The whole pass in parallel: hidden vectors [B, N, D] of the feed's rows, and those rows.

        With a key, training's dropout is on.
        """
        condition = self.condition.apply({"params": params["condition"]}, labels)
        rngs = None if key is None else {"dropout": jax.random.fold_in(key, len(self.feed.stacks))}
        rows = self.feed.apply(
            {"params": params["feed"]},
            content,
            condition,
            order,
            quantizer,
            key is not None,
            method="inputs",
            rngs=rngs,
        )
        modulations = self.modulations(params, condition)
        return self.through(params, rows, condition, modulations, key=key)[0], rows

    # Decoding.

    def modulations(self, params, condition):
        """Every block's modulations by the condition's vector: per stack [L, B, 1, 6, D].

        None where blocks have none, or where rows bring conditions of their own (`Rows.condition`).
        """
        if self.block.adaptive == "none" or self.feed.step_condition:
            return dict.fromkeys(self.feed.stacks)
        shared = self._shared(params, condition.vector[:, None])
        return {
            name: jax.lax.map(lambda p: self._modulate(p, shared), params[name]) for name in self.feed.stacks
        }

    def _shared(self, params, condition):
        """[B, M, D], or through the map that all blocks share [B, M, 6, D]."""
        if self.modulation is None:
            return condition
        return self.modulation.apply({"params": params["modulation"]}, condition)

    def _modulate(self, params, shared):
        return self.block.apply({"params": params}, shared, method="modulate")

    def init_cache(self, batch: int, length: int):
        """Empty caches of all layers, [L, ...] per leaf; None for feeds that remember nothing."""
        if not self.feed.cached:
            return None
        one = self.block.mixer.init_cache(batch, length)
        return jax.tree.map(lambda x: jnp.broadcast_to(x, (self.layers[0], *x.shape)), one)

    def step(
        self, params, quantizer, state, cache, content, condition, modulations, order, step, layers=None
    ):
        """One step of decoding.

        Args:
          params, quantizer: as for `loss`.
          state: the feed's state.
          cache: all layers' caches, stacked, or with `layers` a list of them.
          content: the contents so far, [B, N] or [B, N, C], canonical.
          condition: `Condition` with R conditions per example (with and without label under guidance).
          modulations: what `modulations` gave for it.
          order: the order; slots may differ per example.
          step: the step.
          layers: the single stack's parameters and modulations per layer, as a list: unrolls the layers.

        Returns:
          Hidden vectors [R B, rows, D] of the step's slots, and the cache.
        """
        args = (state, content, condition, order, step, quantizer)
        rows = self.feed.apply({"params": params["feed"]}, *args, method="step_inputs")
        hidden, cache = self.through(params, rows, condition, modulations, cache, layers=layers)
        if not self.feed.cached:
            slots = jnp.take(order.slots, jnp.minimum(step.positions(), order.slots.shape[-1] - 1), axis=-1)
            hidden = take_slots(hidden, jnp.tile(slots, (len(hidden) // len(slots), 1)))
        return hidden, cache

    def through(self, params, rows, condition, modulations, cache=None, key=None, layers=None):
        """Rows through all stacks and norms to hidden vectors, and the cache."""
        hidden, own = rows.x, None
        vector = None if condition.vector is None else condition.vector[:, None]
        if rows.condition is not None:
            vector, own = rows.condition, self._shared(params, rows.condition)
        for i, name in enumerate(self.feed.stacks):
            if i:
                rows = self.feed.apply({"params": params["feed"]}, hidden, rows, method="between")
                hidden = rows.x
            stack_key = None if key is None else jax.random.fold_in(key, i)
            if layers is not None:
                caches = []
                for layer, ((p, m), c) in enumerate(zip(layers, cache, strict=True)):
                    layout = dataclasses.replace(rows.layout, layer=layer)
                    m = m if own is None else self._modulate(p, own)
                    hidden, c = self.block.apply({"params": p}, hidden, m, layout, c)
                    caches.append(c)
                cache = caches
            else:
                stack = (params[name], modulations[name])
                hidden, cache = self._scan(stack, hidden, rows.layout, cache, stack_key, own)
            hidden = self.norm.apply({"params": params[f"{name}_norm"]}, hidden, vector)
        return self.feed.apply({"params": params["feed"]}, hidden, rows, method="outputs"), cache

    def _scan(self, stack, x, layout, cache, key, own):
        train = key is not None
        layers = len(jax.tree.leaves(stack)[0])
        rates = np.linspace(0.0, self.drop_path, layers).astype(np.float32)
        keys = jax.random.split(key, layers) if train else None

        def body(x, inputs):
            params, modulation, cache, rate, key, layer = inputs
            rngs = {"dropout": key} if train else None
            here = dataclasses.replace(layout, layer=layer)
            modulation = modulation if own is None else self._modulate(params, own)
            return self.block.apply({"params": params}, x, modulation, here, cache, train, rate, rngs=rngs)

        body = jax.checkpoint(body) if self.remat and train else body
        return jax.lax.scan(body, x, (*stack, cache, rates, keys, np.arange(layers)))


def _touch_feed(feed, generator):
    """Runs every parameter of a feed once, for its initialisation."""
    batch = 1
    tokenizer = generator.tokenizer
    shape = (batch, tokenizer.grid.size)
    content = jnp.zeros(shape, jnp.int32) if tokenizer.vocab else jnp.zeros((*shape, tokenizer.channels))
    vector = jnp.zeros((batch, generator.block.width))
    condition = Condition(jnp.zeros((batch, generator.condition.rows, generator.block.width)), vector)
    if generator.condition.hides:
        condition = dataclasses.replace(condition, hidden=jnp.zeros(condition.rows.shape[:2], bool))
    order = generator.order.training(jax.random.key(0), batch)
    quantizer = None
    if hasattr(tokenizer, "resample"):
        abstract = jax.eval_shape(tokenizer.init, jax.random.key(0))["quantizer"]
        quantizer = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), abstract)
    rows = feed.inputs(content, condition, order, quantizer)
    hidden = rows.x
    if len(feed.stacks) > 1:
        rows = feed.between(hidden, rows)
        hidden = rows.x
    return feed.outputs(hidden, rows)


def _touch_block(block):
    """Runs every parameter of a block once, for its initialisation."""
    x = jnp.zeros((1, 1, block.width))
    condition = jnp.zeros((1, 1, 6, block.width) if block.adaptive == "shared" else (1, 1, block.width))
    coords = np.zeros((1, 2), np.int32)
    return block(x, block.modulate(condition), Layout(np.zeros(1, np.int32), coords))


def _is_box(x):
    return isinstance(x, nn.meta.AxisMetadata)


def _add_layers_axis(box):
    return box.replace(names=("layers", *box.names))
