"""A stage: blocks that are alike, one after another, and the norm behind them."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vargen.kernels import dispatch
from vargen.layers import Dense, stacked
from vargen.layout import Layout, Memory
from vargen.mixers.block import GATES_AND_SCALES, MODULATIONS, Block, FinalNorm, RoundModulation
from vargen.mixers.rollback import rollback
from vargen.sharding import by_batch

# What of a block is computed again in the backward pass: nothing but what `keeps_inputs` marks; all but what products
# and kernels gave; all.
REMAT: dict[str, Callable] = dict(
    none=lambda body, **_: body,
    products=functools.partial(
        jax.checkpoint,
        policy=jax.checkpoint_policies.save_from_both_policies(
            jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
            jax.checkpoint_policies.save_only_these_names(dispatch.KEPT),
        ),
    ),
    blocks=jax.checkpoint,
)


@dataclasses.dataclass(frozen=True, eq=False)
class Stage:
    """Static configuration of a stage. Parameters are `<name>`, stacked along an axis of layers, `<name>_norm`,
    `<name>_rounds` where the round modulates, and `<name>_skips`, stacked, where blocks take what earlier ones gave.

    Attributes:
      name: what parameters are called by: `<name>` and `<name>_norm`.
      block: every block of it.
      layers: L.
      norm: after the last block.
      drop_path: stochastic depth of the first and of the last layer, between which it grows linearly.
      remat: what of a block training computes again in the backward pass, of `REMAT`.
      scanned: whether a pass is a loop over the layers; unrolled they take longer to compile, and on GPUs less time, as
        what is kept for the backward pass needn't be copied into stacks.
      reads_memory: whether its rows look at `Layout.memory` instead of each other.
      rounds: what modulates the blocks by the round; None where nothing does.
      skip: the product before each block of the second half, of its rows and those that the block as far from the
        other end gave (U-ViT, arXiv 2209.12152); None for none.
    """

    name: str
    block: Block
    layers: int
    norm: FinalNorm
    drop_path: tuple[float, float] = (0.0, 0.0)
    remat: str = "none"
    scanned: bool = True
    reads_memory: bool = False
    rounds: RoundModulation | None = None
    skip: Dense | None = None

    @property
    def skips(self) -> int:
        """How many blocks, the last ones, take what as many of the first gave; one or two lie between."""
        return 0 if self.skip is None else (self.layers - 1) // 2

    def init_boxed(self, key: jax.Array) -> dict[str, Any]:
        """Parameters, each boxed with its logical axis names."""
        block_key, norm_key = jax.random.split(key)
        init = functools.partial(self.block.init, method=_touch, memory=self.reads_memory)
        blocks = stacked(lambda k: init(k)["params"], block_key, self.layers)
        vector = jnp.zeros((1, 1, self.block.width))
        norm = self.norm.init(norm_key, vector, vector).get("params")
        found = {self.name: blocks} | ({f"{self.name}_norm": norm} if norm else {})
        if self.rounds is not None:
            found[f"{self.name}_rounds"] = self.rounds.init(jax.random.fold_in(key, 0))["params"]
        if self.skip is not None:
            init = functools.partial(self.skip.init, x=jnp.zeros((1, 1, 2 * self.block.width)))
            found[f"{self.name}_skips"] = stacked(
                lambda k: init(k)["params"], jax.random.fold_in(key, 1), self.skips
            )
        return found

    def modulate(self, params, condition, owner=None):
        """The modulations of one block, see `Block.modulate`."""
        return self.block.apply({"params": params}, condition, owner, method="modulate")

    def split(self, params):
        """Parameters with this stage's blocks as a list of one per layer: cut out of a stack inside a loop, each would
        be a copy."""
        if isinstance(params[self.name], list):
            return params
        counts = {self.name: self.layers} | ({f"{self.name}_skips": self.skips} if self.skips else {})
        return params | {
            name: [jax.tree.map(lambda x, i=i: x[i], params[name]) for i in range(count)]
            for name, count in counts.items()
        }

    def modulations(self, params, condition):
        """Those of all blocks by [B, M, ...]: [L, B, M, 6, D], or by the round: [L, R, 1, 1, 6, D]; of a split stage a
        list of one per layer."""
        if self.rounds is not None:
            condition = self.rounds.apply({"params": params[f"{self.name}_rounds"]})
        blocks = params[self.name]
        if isinstance(blocks, list):
            found = []
            for p in blocks:
                found.append(self.modulate(p, condition))
                condition, found[-1] = _in_turn(condition, found[-1])
            return found
        return jax.lax.map(lambda p: self.modulate(p, condition), blocks)

    def of_round(self, modulations, at: int):
        """Of modulations by the round those of one, [L, 1, 1, 6, D], or of a split stage a list."""
        if isinstance(modulations, list):
            return [y[at] for y in modulations]
        return modulations[:, at]

    def init_cache(self, params, batch: int, length: int):
        """Empty caches of all layers: of a split stage a list of one per layer, each for `length` rows, which are
        written in place; else [L, ...] per leaf, which grow, as every pass copies the stack."""
        split = isinstance(params[self.name], list)
        one = {} if self.reads_memory else self.block.mixer.init_cache(batch, length if split else 0)
        if split:
            return [one] * self.layers
        return jax.tree.map(lambda x: jnp.broadcast_to(x, (self.layers, *x.shape)), one)

    def __call__(
        self,
        params,
        x,
        layout: Layout,
        vector,
        modulations,
        own=None,
        cache=None,
        key=None,
        owner=None,
        row=None,
    ):
        """Rows through the blocks, in a scan; one block after another where the stage is split.

        Args:
          params: of the whole generator.
          x: [B, M, D].
          layout: of the rows.
          vector: [B, 1 or M, D] for the norm, or None.
          modulations: of `modulations`, or None.
          own: None, or [B, M, ...]: what each row is modulated by instead.
          cache: as of `init_cache`, or None (the parallel form).
          key: PRNG key of dropout, which is on where there is one; for stages that aren't split.
          owner: None, or int [M]: by which of `vector` and `own` each row is modulated, see `Rows.owner`.
          row: None, or int [M]: by which of the modulations' M each row is.

        Returns:
          [B, M, D], and the cache with the rows that stay in it.
        """
        train = key is not None
        rates = np.linspace(*self.drop_path, self.layers).astype(np.float32) if any(self.drop_path) else None
        keys = jax.random.split(key, self.layers) if train else None

        def body(x, inputs, own=own):
            params, modulation, cache, rate, key, layer, skip = inputs
            x = by_batch(x)
            if skip is not None:
                x = self.joined(*skip, x)
            rngs = {"dropout": key} if train else None
            here, at = dataclasses.replace(layout, layer=layer), None
            if own is not None:
                modulation = self.modulate(params, own, owner)
            elif row is not None and row.shape == (1,):
                at = jnp.asarray(row[0])
            elif row is not None:
                modulation = jnp.take(modulation, row, axis=1, mode="clip")
            args = (x, modulation, here, cache, train, rate, at)
            return self.block.apply({"params": params}, *args, rngs=rngs)

        blocks, half = params[self.name], self.layers - self.skips
        if isinstance(blocks, list):
            caches, one_layer = [], jax.jit(body)  # traced once, or once with skips and once without
            seen: list[jax.Array] = []
            for i, block in enumerate(blocks):
                modulation, one = (None if y is None else y[i] for y in (modulations, cache))
                skip = None if i < half else (params[f"{self.name}_skips"][i - half], seen.pop())
                if own is not None:
                    own, x = _in_turn(own, x)
                x, one = one_layer(x, (block, modulation, one, None, None, i, skip), own)
                caches.append(one)
                seen += [x] if i < self.skips else []
            return self.normed(params, x, vector, owner), None if cache is None else caches
        if train:
            # Between bodies of loops the compiler can't take one pass's work for the other's anyway.
            body = REMAT[self.remat](body, prevent_cse=not self.scanned)
        every = blocks, modulations, cache, rates, keys, np.arange(self.layers)
        loop = functools.partial(self._loop, body, grows=cache is not None and layout.keep != 0)
        if not self.skips:
            x, cache, _ = loop(x, (*every, None))
            return self.normed(params, x, vector, owner), cache
        first, last = (jax.tree.map(lambda y, i=i: y[i], every) for i in (slice(half), slice(half, None)))
        x, begun, seen = loop(x, (*first, None), seen=True)
        x, ended, _ = loop(x, (*last, (params[f"{self.name}_skips"], seen[: self.skips][::-1])))
        return self.normed(params, x, vector, owner), jax.tree.map(
            lambda *y: jnp.concatenate(y), begun, ended
        )

    def joined(self, params, earlier, x):
        """[B, M, D] of those that a block gave, `earlier`, and x, by the parameters of one of the skips."""
        assert self.skip is not None
        return self.skip.apply({"params": params}, jnp.concatenate([x, earlier], axis=-1))

    def _loop(self, body, x, every, grows: bool, seen: bool = False):
        """Rows through some layers in a scan: x [B, M, D], the caches [L, ...], and the rows [L, B, M, D] that each
        layer gave where they are to be `seen`, or None.

        Args:
          body: of a layer, see `__call__`.
          x: [B, M, D].
          every: what `body` takes beside x, of these layers; the third is the cache.
          grows: whether the caches get room for the rows.
          seen: see above.
        """
        layers = len(every[5])
        unroll = 1 if self.scanned else layers
        if grows:
            blocks, modulations, cache, *others = every
            inputs = blocks, modulations, *others
            growing, cache = _remembering(body, x, inputs, cache, seen)
            (x, cache), given = jax.lax.scan(growing, (x, cache), (inputs, np.arange(layers)), unroll=unroll)
            return x, cache, given

        def turn(x, inputs):
            x, one = body(x, inputs)
            return x, (one, x if seen else None)

        x, (cache, given) = jax.lax.scan(turn, x, every, unroll=unroll)
        return x, cache, given

    def rollback(self, cache, kept):
        """The caches of a split stage after the first `kept` int [B] rows of a speculative pass."""
        return [rollback(self.block.mixer, c, kept) for c in cache]

    def normed(self, params, x, vector, owner=None):
        """The norm behind the blocks."""
        return self.norm.apply({"params": params.get(f"{self.name}_norm", {})}, x, vector, owner)


def _in_turn(condition, x):
    """Both, the condition's next use after x: products of all layers with one would be made one, weights copied."""
    return jax.lax.optimization_barrier((condition, x))


def _remembering(body, x, inputs, cache, seen: bool):
    """A scan's body with the caches of all layers in its carry, and these, with room for the rows that it adds.

    As results of the scan they would be zeros before it, which the CPU's compiler makes for all passes at the start.

    Args:
      body: of a scan over (parameters, modulation, cache, ...), see `Stage.__call__`.
      x: [B, M, D].
      inputs: what it is over but the caches; the scan is over these and 0, 1, ...
      cache: [L, ...] per leaf.
      seen: whether the scan gives the rows of each layer.
    """

    def run(x, inputs, one):
        params, modulation, *others = inputs
        return body(x, (params, modulation, one, *others))

    first = jax.tree.map(lambda y: y[0], (inputs, cache))
    after = jax.eval_shape(lambda x, first: run(x, *first)[1], x, first)

    def with_room(y, new):
        more = [max(b - a, 0) for a, b in zip(y.shape[1:], new.shape, strict=True)]
        return jnp.pad(y, [(0, n) for n in (0, *more)])

    def turn(carry, inputs):
        (x, caches), (inputs, at) = carry, inputs

        def of_layer(y, old):
            return jax.lax.dynamic_slice(y, (at, *[0] * (old.ndim - 1)), (1, *old.shape[1:]))[0]

        x, one = run(x, inputs, jax.tree.map(of_layer, caches, cache))
        put = functools.partial(jax.lax.dynamic_update_index_in_dim, index=at, axis=0)
        return (x, jax.tree.map(put, caches, one)), x if seen else None

    return turn, jax.tree.map(with_room, cache, after)


def _touch(block, memory: bool):
    """Runs every parameter of a block once, for its initialisation."""
    x = jnp.zeros((1, 1, block.width))
    shapes = dict(shared=(1, 1, MODULATIONS), rounds=(block.rounds, len(GATES_AND_SCALES)))
    condition = jnp.zeros((*shapes.get(block.adaptive, (1, 1)), block.width))
    times = np.zeros(1, np.int32)
    layout = Layout(times, np.zeros((1, 2), np.int32))
    if memory:
        rows = jnp.zeros((1, 1, block.mixer.groups, block.mixer.head_dim))
        layout = dataclasses.replace(layout, memory=Memory(rows, rows, times))
    if block.cross is not None:
        layout = dataclasses.replace(layout, context=(x, None))
    modulation = block.modulate(condition)
    return block(x, modulation[0] if block.adaptive == "rounds" else modulation, layout)
