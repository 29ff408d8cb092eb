"""Step-masked multi-head attention, parallel and cached."""

from __future__ import annotations

import functools
import math
from typing import Annotated, Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from vargen import static
from vargen.kernels import Norming, Onto
from vargen.kernels.few_rows import alone
from vargen.kernels.step_attention.call import FEW
from vargen.layers import Ahead, Dense, Dropout, Norm, logical, parameter, product, products
from vargen.layout import Layout, View
from vargen.limits import COUNT, EPS, RATE, SIZE, Above, AtLeast, Between, OneOf, check_heads
from vargen.mixers.primitives import cached_attention, merge, placed, step_attention
from vargen.mixers.rope import mix_halves, rotate, shares, squeeze
from vargen.slots import Grid

SHORTEST = 1e-12  # what shorter queries and keys are divided by to be unit vectors


class Attention(nn.Module):
    """Attention over the rows whose step is not later (`step_attention`).

    Attributes:
      width: D, size of input and output.
      heads: H, query heads.
      grid: the slots, whose sides rope "halves" needs.
      kv_heads: G, key and value heads (0: as many as heads).
      qk_norm: "none"; "layer" or "rms": norms of queries and keys per head, with a learned scale (and bias for
        "layer"); "l2": unit queries and keys, logits scaled by a learned factor per head of at most 100 (VAR's
        larger models).
      norm_each: whether every head has a scale (and bias) of its own in "layer" and "rms", or all the same (Chameleon's
        are its own, arXiv 2405.09818).
      norm_affine: whether "layer" and "rms" have a learned scale (and bias) at all.
      bias: biases of the projections in: "none", "qv" or "qkv".
      out_bias: whether the projection out has a bias.
      rope: rotary positions: "none", "sequence" (the place in the generation sequence), "places" (2-D, or 3-D where
        there are frames: from `layout.coords`) or "halves" (places too, as ACDiT mixes them, see `mix_halves`).
      trained_side: side of the square grid that rope "places" was trained on, where this one is larger (see `rotate`);
        0: this one.
      window: sees no more than this many steps back (0: its own step alone); None sees all.
      scale: factor on the logits over 1/sqrt(D/H); ignored with qk_norm "l2".
      eps: of the norms of queries and keys.
      kernel_init, out_init: kernel initialisers.
      in_gain: factor on the initial projections in; sqrt(1/2) is Xavier's rule for one matrix of all three (timm's).
      dropout: rate on the result.
      weight_dropout: rate on the attention weights in training.
      dtype: compute dtype.
    """

    width: Annotated[int, SIZE]
    heads: Annotated[int, COUNT]
    kernel_init: Any
    out_init: Any
    grid: Grid | None = None
    kv_heads: Annotated[int, Between(0, 4096)] = 0
    qk_norm: Annotated[str, OneOf("none", "layer", "rms", "l2")] = "none"
    norm_each: bool = False
    norm_affine: bool = True
    bias: Annotated[str, OneOf("none", "qv", "qkv")] = "none"
    out_bias: bool = True
    rope: Annotated[str, OneOf("none", "sequence", "places", "halves")] = "none"
    trained_side: Annotated[int, Between(0, 4096)] = 0
    window: Annotated[int | None, AtLeast(0)] = None
    scale: Annotated[float, Above(0)] = 1.0
    eps: Annotated[float, EPS] = 1e-6
    in_gain: Annotated[float, Above(0)] = 1.0
    dropout: Annotated[float, RATE] = 0.0
    weight_dropout: Annotated[float, RATE] = 0.0
    dtype: Any = jnp.float32

    keeps_rows = True
    reads_ahead = True

    @property
    def head_dim(self) -> int:
        """D/H."""
        return self.width // self.heads

    @property
    def groups(self) -> int:
        """G."""
        return self.kv_heads or self.heads

    def check(self, layout) -> None:
        """Raises ValueError for heads that don't fit; attention honours every layout."""
        check_heads(self.heads, self.width)
        if self.heads % self.groups:
            raise ValueError(
                f"config field mixer.kv_heads: expected a divisor of the {self.heads} heads, found {self.groups}"
            )
        if self.norm_each and self.qk_norm not in ("layer", "rms"):
            raise ValueError(
                f"config field mixer.norm_each: needs qk_norm layer or rms, found {self.qk_norm}"
            )
        axes = layout.coords.shape[-1]
        if self.trained_side and (self.rope != "places" or axes != 2):
            raise ValueError(
                "config field mixer.trained_side: expected 0 but for rope places in two dimensions, found "
                f"{self.trained_side}"
            )
        turned = dict(none=1, sequence=2, places=2 * axes, halves=2 * sum(shares(axes)))[self.rope]
        if self.head_dim % turned:
            raise ValueError(
                f"config field mixer.heads: expected heads of a multiple of {turned} channels for rope {self.rope}, "
                f"found {self.head_dim}"
            )

    def init_cache(self, batch: int, length: int) -> dict[str, jax.Array]:
        """An empty cache for `length` rows: key and value [B, M, G, D/H]."""
        shape = (batch, length, self.groups, self.head_dim)
        return {"key": jnp.zeros(shape, self.dtype), "value": jnp.zeros(shape, self.dtype)}

    @nn.compact
    def __call__(self, x, layout: Layout, cache=None, train: bool = False, onto: Onto | None = None):
        """Mixes rows.

        Args:
          x: [B, N, D]; but in training also `Ahead`.
          layout: times and places of the rows and, in the cached form, their place in the cache; with a memory they
            look at that instead of each other, and nothing is remembered.
          cache: None (parallel form) or a cache that holds all rows before `layout.start`.
          train: whether dropout is on (needs the rng "dropout").
          onto: what the result is added to, of x that is `Ahead`.

        Returns:
          [B, N, D], and the cache with these rows in it (None in the parallel form). One without room
          for them, whose `layout.start` is an int, grows until the new ones are its last; else it keeps its length.
        """
        sizes = dict(query=self.heads, key=self.groups, value=self.groups)

        def project(*names):
            """[B, N, heads, D/H] by each of the names."""
            layers = []
            for name in names:
                bias = name[0] in self.bias if self.bias != "none" else False
                features, axes = sizes[name] * self.head_dim, ("embed", "heads")
                layers.append(Dense(features, axes, self._init_in, bias, self.dtype, name=name))
            found = [layer(x) for layer in layers] if train else products(x, *layers)
            heads = (sizes[name] for name in names)
            return [y.reshape(*x.shape[:-1], n, self.head_dim) for y, n in zip(found, heads, strict=True)]

        memory = layout.memory
        if memory is None:
            q, k, v = project("query", "key", "value")
        else:
            (q,), k, v = project("query"), memory.key, memory.value
        windows = [w for w in (self.window, layout.window) if w is not None]
        key_times = layout.times if layout.key_times is None else layout.key_times
        if memory is not None:
            key_times = memory.times
        views = [View(layout.times, key_times, min(windows, default=None)), *layout.views]
        in_place = (
            cache is not None and memory is None and _in_place(views, layout.start, cache["key"].shape[1])
        )
        scale = 1.0 if self.qk_norm == "l2" else self.scale / math.sqrt(self.head_dim)
        of_query = of_key = norms = None
        if self.qk_norm != "none":
            of_query, of_key = self._norm("query", q), None if memory is not None else self._norm("key", k)
        room = cache is not None and memory is None and _has_room(layout, cache["key"].shape[1])
        if (in_place or room) and of_query is not None and self.rope == "none" and alone():
            norms = of_query, of_key
        else:
            q, k = (y if norm is None else Ahead(y, norm).made() for y, norm in ((q, of_query), (k, of_key)))
        if self.rope != "none":
            coords = layout.sequence if self.rope == "sequence" else layout.coords
            if self.rope == "halves":
                turn = functools.partial(mix_halves, grid=self.grid)
            else:
                turn = functools.partial(rotate, squeezed=squeeze(self.grid, self.trained_side))
            q, k = turn(q, coords), turn(k, coords) if memory is None else k
        key = self.make_rng("dropout") if train and self.weight_dropout else None
        if cache is None or memory is not None:
            y = self._attend(q, k, v, views, scale, key)
        elif in_place:
            view, new = views[0], [y.astype(self.dtype) for y in (k, v)]
            steps, options = (view.times, view.key_times), dict(window=view.window, scale=scale, norms=norms)
            y, cache = cached_attention(q, *new, cache, layout.start, *steps, **options)
        else:
            if room:
                q, cache = placed(q, k.astype(self.dtype), v.astype(self.dtype), cache, layout.start, norms)
            else:
                new = dict(key=k, value=v)
                cache = {name: static.append(x, new[name], layout.start) for name, x in cache.items()}
            y = self._attend(q, cache["key"], cache["value"], views, scale, key)
            cache = cache if layout.keep is None else _kept(cache, layout)
        out = Dense(self.width, ("heads", "embed"), self.out_init, self.out_bias, self.dtype, 2, name="out")
        if not train:
            return product(y.reshape(*x.shape[:-1], self.width), out, onto=onto), cache
        return Dropout(self.dropout)(out(y), train), cache

    def _norm(self, name: str, rows) -> Norming:
        """That of queries or keys [B, N, heads, D/H], still to be made."""
        if self.qk_norm != "l2":
            norm = Norm(self.qk_norm, self.norm_affine, self.eps, self.norm_each, name=f"{name}_norm")
            return norm.ahead(rows).norm
        own = {}
        if name == "query":
            init = logical(nn.initializers.constant(math.log(4.0)), "heads")
            log_scale = parameter(self, "log_scale", init, (self.heads,))
            own["scale"] = jnp.exp(jnp.minimum(log_scale, math.log(100.0)))[:, None]
        return Norming(own, None, None, "unit", SHORTEST)

    def _attend(self, q, k, v, views, scale, key):
        """The attention over a union of visibilities; with a key its weights are dropped, in each by other bits."""
        keys = [None] * len(views) if key is None else jax.random.split(key, len(views))
        found = [
            step_attention(
                q,
                k,
                v,
                view.times,
                view.key_times[..., : k.shape[1]],
                window=view.window,
                scale=scale,
                return_lse=len(views) > 1,
                steps_are_sorted=_sorted(view),
                dropout=0.0 if key is None else self.weight_dropout,
                key=one,
            )
            for view, one in zip(views, keys, strict=True)
        ]
        return found[0] if len(views) == 1 else merge(*zip(*found, strict=True))[0]

    def _init_in(self, key, shape, dtype=jnp.float32):
        return self.in_gain * self.kernel_init(key, shape, dtype)


def _kept(cache, layout: Layout):
    """The cache without the rows that don't stay; one with room for more has later rows in their place."""
    if static.known(layout.start) and layout.start + layout.times.shape[-1] == cache["key"].shape[1]:
        return {name: x[:, : layout.start + layout.keep] for name, x in cache.items()}
    return cache


def _has_room(layout: Layout, length: int) -> bool:
    """Whether a cache of this length needn't grow for the rows of a pass, which begin at a number that is known."""
    start = layout.start
    return static.known(start) and not np.ndim(start) and start + layout.times.shape[-1] <= length


def _in_place(views, start, length: int) -> bool:
    """Whether the kernel puts the rows of a pass into the caches: with a start for all that is traced, or with room
    for a few."""
    view = views[0]
    if len(views) > 1:
        return False
    if not static.known(start):
        return not start.ndim and _sorted(view)
    times = view.times, view.key_times
    n = view.times.shape[-1]
    fits = n <= FEW and start + n <= length == view.key_times.shape[-1]
    return fits and static.known(*times) and all(np.all(np.diff(x) >= 0) for x in times)


def _sorted(view: View) -> bool:
    """Whether times needn't be sorted: those that are known are looked at, and sorted where they aren't; those that are
    traced are in sequence but for padding, which comes last of all, wherever it lies."""
    return not static.known(view.times, view.key_times) and not _pads(view)


def _pads(view: View) -> bool:
    """Whether rows may be hidden: times that differ per example, where those that look have none of their own."""
    return not static.known(view.key_times) and view.key_times is not view.times
