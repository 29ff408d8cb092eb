"""The residual block around a mixer, and the norm before a head; both may be modulated by a condition."""

from __future__ import annotations

import itertools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from vargen.kernels import Onto, Part, gated, keeps_inputs
from vargen.layers import Dense, Initial, Mlp, Norm, logical
from vargen.mixers.mixer import Mixer
from vargen.mixers.rollback import mix

# gamma (mixer, mlp), scale (mixer, mlp), shift (mixer, mlp): the official VAR code's order.
MODULATIONS = 6
NEUTRAL = (1.0, 1.0, 0.0, 0.0, 0.0, 0.0)  # those of a row that nothing modulates
GATES_AND_SCALES = NEUTRAL[:4]


class Block(nn.Module):
    """x + mixer(norm(x)), then x + mlp(norm(x)), with adaptive modulation where asked; or norms elsewhere.

    With cross-attention x + cross(norm(x)) comes between the two.

    Attributes:
      mixer: the mixer, already built.
      width: D.
      mlp: kind of the position-wise network (`Mlp`), of inner width `mlp_width`.
      norm, affine, eps: the norms (`Norm`).
      norm_position: "pre"; "post", norm(x + mixer(x)) (BERT, arXiv 1810.04805); "res_post", x + norm(mixer(x))
        (Swin v2, arXiv 2111.09883).
      adaln_zero: modulations start at zero, and so every block as the identity (DiT's adaLN-Zero).
      adaptive: "none"; "adaln": the six modulations are a linear map of silu(condition) per block
        (DiT, arXiv 2212.09748); "shared": that map is shared by all blocks, and each adds a learned offset; "rounds":
        gates and scales alone, of `RoundModulation` times a factor and plus an offset of the block's own for each
        round (Hi-MAR, arXiv 2505.20288), whose gates start at 1 and scales at 0.
      rounds: R, of "rounds".
      kinds: of rows that "adaln" modulates apart: the map gives six for each (FlexTok, arXiv 2502.13967), and `owner`
        of `modulate` says which rows are which.
      initial, out_init: of the parameters, and the initialiser of projections out of the residual branches.
      gate_gain: factor on the initial modulations that gate the branches.
      dropout: in the position-wise network.
      cross: the cross-attention over `Layout.context`, already built; None for none.
      dtype: compute dtype.
    """

    mixer: Mixer
    width: int
    mlp: str
    mlp_width: int
    initial: Initial
    out_init: Any
    norm: str = "layer"
    affine: bool = True
    eps: float = 1e-6
    norm_position: str = "pre"
    bias: bool = True
    adaptive: str = "none"
    rounds: int = 1
    kinds: int = 1
    adaln_zero: bool = False
    gate_gain: float = 1e-5
    dropout: float = 0.0
    cross: nn.Module | None = None
    dtype: Any = jnp.float32

    def setup(self):
        if self.cross is not None:
            self.norm_cross = Norm(self.norm, self.affine, self.eps)
        self.norm_1 = Norm(self.norm, self.affine, self.eps)
        self.norm_2 = Norm(self.norm, self.affine, self.eps)
        init = self.initial.kernel()
        self.feed_forward = Mlp(
            self.mlp_width, self.mlp, init, self.out_init, self.bias, self.dropout, self.dtype
        )
        if self.adaptive == "adaln":
            self.modulation = Dense(
                self.kinds * MODULATIONS * self.width,
                ("embed", "mlp"),
                nn.initializers.zeros
                if self.adaln_zero
                else _adaptive_init(init, self.gate_gain, self.kinds),
                dtype=self.dtype,
            )
        elif self.adaptive == "shared":
            init = _offset_init(self.gate_gain)
            self.offset = self.param("offset", logical(init, None, "embed"), (MODULATIONS, self.width))
        elif self.adaptive == "rounds":
            shape, names = (self.rounds, len(GATES_AND_SCALES), self.width), (None, None, "embed")
            self.factor = self.param("factor", logical(nn.initializers.zeros, *names), shape)
            self.offset = self.param("offset", logical(_neutral_init, *names), shape)

    def modulate(self, condition, owner=None) -> jax.Array | None:
        """The block's modulations [B, M, 6, D], or [B, M * kinds, 6, D]; None where it has none.

        Args:
          condition: [B, M, D] ("adaln"), [B, M, 6, D] ("shared": the shared map's result); M is 1 for a condition
            that all rows share. Of "rounds" [R, 4, D], and the result is [R, 1, 1, 6, D].
          owner: None, or int [N], see `spread`: the result is [B, N, 6, D].
        """
        if self.adaptive == "none":
            return None
        if self.adaptive == "rounds":
            y = condition * self.factor.astype(self.dtype) + self.offset.astype(self.dtype)
            return jnp.pad(y, ((0, 0), (0, MODULATIONS - y.shape[1]), (0, 0)))[:, None, None]
        if self.adaptive == "adaln":
            y = self.modulation(nn.silu(condition))
            y = y.reshape(*y.shape[:-2], -1, MODULATIONS, self.width)
        else:
            y = condition + self.offset.astype(self.dtype)
        return spread(y, owner, jnp.repeat(jnp.array(NEUTRAL, y.dtype), self.width).reshape(y.shape[2:]))

    def __call__(self, x, modulation, layout, cache=None, train: bool = False, drop_path=None, at=None):
        """Runs the block.

        Args:
          x: [B, N, D].
          modulation: what `modulate` gave.
          at: None, or int [], traced: by which of the modulations' M all rows are modulated.
          layout, cache, train: as for the mixer.
          drop_path: probability of skipping a residual branch per example (stochastic depth), in training; None: it
            never is.

        Returns:
          [B, N, D] and the mixer's cache.
        """
        parts: list[Any] = [None] * MODULATIONS
        if modulation is not None:
            parts = [Part(modulation, at, i) for i in range(MODULATIONS)]
        pre, res_post, post = (self.norm_position == p for p in ("pre", "res_post", "post"))
        # But in training the products make the norms before them and the residuals behind.
        ahead = pre and not train
        gamma, scale, shift = parts[0:2], parts[2:4], parts[4:6]
        if ahead and self.mixer.reads_ahead:
            y = self.norm_1.ahead(x, scale[0], shift[0])
            x, cache = mix(self.mixer, y, layout, cache, onto=Onto(x, gamma[0]))
        else:
            y = self.norm_1(x, scale[0], shift[0]) if pre else x
            y, cache = mix(self.mixer, y, layout, cache, train)
            x = x + self._branch(self.norm_1(y) if res_post else y, gamma[0], train, drop_path)
        x = self.norm_1(x) if post else x
        if self.cross is not None:
            y = self.cross(self.norm_cross(x), *layout.context)
            x = x + self._branch(y, None, train, drop_path)
        if ahead:
            y = self.norm_2.ahead(x, scale[1], shift[1])
            return self.feed_forward(y, onto=Onto(x, gamma[1])), cache
        y = self.feed_forward(self.norm_2(x, scale[1], shift[1]) if pre else x, train)
        x = x + self._branch(self.norm_2(y) if res_post else y, gamma[1], train, drop_path)
        return self.norm_2(x) if post else x, cache

    def _branch(self, y, gamma, train, drop_path):
        y = y if gamma is None else gated(y, gamma.rows())
        if not train or drop_path is None:
            return y
        keep = jax.random.bernoulli(self.make_rng("dropout"), 1.0 - drop_path, (y.shape[0], 1, 1))
        return _skipped(y, keep, drop_path)


@keeps_inputs
def _skipped(y, keep, rate):
    return jnp.where(keep, y / (1.0 - rate), 0.0).astype(y.dtype)


class FinalNorm(nn.Module):
    """The norm before a head: plain, or modulated by a condition [B, M, D] (scale, then shift), M rows or 1; with
    `owner` each row by the one that `spread` gives it.

    With the norm "none" there is none, as behind blocks that end with theirs.
    """

    width: int
    initial: Initial
    norm: str = "layer"
    affine: bool = True
    eps: float = 1e-6
    adaptive: bool = False
    adaln_zero: bool = False
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x, condition, owner=None):
        if self.norm == "none":
            return x
        norm = Norm(self.norm, self.affine, self.eps, name="norm")
        if not self.adaptive:
            return norm(x)
        init = nn.initializers.zeros
        if not self.adaln_zero:
            init = self.initial.kernel(0.5)
        both = Dense(2 * self.width, ("embed", "mlp"), init, dtype=self.dtype, name="modulation")(
            nn.silu(condition)
        )
        scale, shift = jnp.split(spread(both, owner, jnp.zeros(both.shape[2:], both.dtype)), 2, axis=-1)
        return norm(x, scale, shift)


class SharedModulation(nn.Module):
    """The map shared by all blocks under adaptive "shared": [B, M, D] -> [B, M, 6, D]."""

    width: int
    initial: Initial
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, condition):
        init = self.initial.kernel()
        y = Dense(MODULATIONS * self.width, ("embed", "mlp"), init, dtype=self.dtype, name="map")(
            nn.silu(condition)
        )
        return y.reshape(*y.shape[:-1], MODULATIONS, self.width)


class RoundModulation(nn.Module):
    """Gates and scales of every round for the blocks of a stage: a map of silu of a learned vector, [R, 4, D]."""

    rounds: int
    width: int
    initial: Initial
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self):
        table = self.param(
            "table", logical(nn.initializers.normal(1.0), None, "embed"), (self.rounds, self.width)
        )
        features = len(GATES_AND_SCALES) * self.width
        y = Dense(features, ("embed", "mlp"), self.initial.kernel(), dtype=self.dtype, name="map")(
            nn.silu(table.astype(self.dtype))
        )
        return y.reshape(self.rounds, -1, self.width)


def spread(x, owner, neutral):
    """x [B, G, ...] -> [B, N, ...]: for each row the one that `owner` int [N] names, `neutral` [...] where -1.

    With None for the owner x as it is. Runs of rows are repetitions, whose gradient is a sum: cheaper than a gather's.
    """
    if owner is None:
        return x
    x = jnp.concatenate([x, jnp.broadcast_to(neutral, (x.shape[0], 1, *x.shape[2:]))], axis=1)
    runs = np.split(owner, np.flatnonzero(np.diff(owner)) + 1)
    pieces = []
    for size, alike in itertools.groupby(runs, len):
        which = np.array([run[0] for run in alike]) % x.shape[1]  # the neutral one is the last
        pieces.append(jnp.repeat(jnp.take(x, which, axis=1), size, axis=1))
    return jnp.concatenate(pieces, axis=1)


def _gains(gate: float) -> list[float]:
    """Factors on the initial modulations: gates start near zero, scales and shifts at half."""
    return [gate] * 2 + [0.5] * 4


def _adaptive_init(base, gate: float, kinds: int):
    def init(key, shape, dtype=jnp.float32):
        gain = jnp.repeat(jnp.array(_gains(gate) * kinds, dtype), shape[1] // (MODULATIONS * kinds))
        return base(key, shape, dtype) * gain

    return init


def _neutral_init(key, shape, dtype=jnp.float32):
    return jnp.broadcast_to(jnp.array(GATES_AND_SCALES, dtype)[:, None], shape)


def _offset_init(gate: float):
    def init(key, shape, dtype=jnp.float32):
        gain = jnp.array(_gains(gate), dtype)[:, None]
        return jax.random.normal(key, shape, dtype) / shape[1] ** 0.5 * gain

    return init
