"""A code, and numbers beside it given the code (HART, arXiv 2410.10812)."""

from __future__ import annotations

from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from vargen import content as contents
from vargen.heads.categorical import Codes
from vargen.heads.head import Head, Sample
from vargen.heads.plain import Plain
from vargen.kernels import filter_logits
from vargen.layers import Norm
from vargen.segments import rows_of
from vargen.slots import Slot

EMBEDDING = "feed/content/latents"  # the feed's map of a tokenizer's vectors to rows


class Hybrid(Plain):
    """p(code | hidden) p(numbers | hidden, code), by a head of codes and one of numbers.

    The numbers' head reads norm(hidden + E(v)), of the code's vector v and the map E through which the feed takes such
    vectors. Slots that hold a code alone have no numbers drawn.

    In HART numbers are what codes leave of latents, so that to draw another code is to leave other numbers. Training
    tells the numbers' head a code that is drawn as in sampling, and its target is what that one leaves.

    Attributes:
      tokenizer: whose slots they are.
      codes, numbers: the heads, already built.
      weight: of the numbers' loss beside the codes'.
      scale: what numbers are divided by for their head.
      told: the code of training, "drawn" by the codes' head (HART), or the "true" one.
      top_k, top_p: filters of the code that is drawn in training, see `filter_logits`.
      norm, eps: of the rows of the numbers' head.
      dtype: compute dtype.
    """

    tokenizer: Any
    codes: Codes
    numbers: Head
    weight: float = 1.0
    scale: float = 1.0
    told: str = "drawn"
    top_k: int = 0
    top_p: float = 1.0
    norm: str = "rms"
    eps: float = 1e-6
    dtype: Any = jnp.float32

    filters = True
    shares: ClassVar[tuple[str, ...]] = (f"{EMBEDDING}/kernel", f"{EMBEDDING}/bias")
    called = "hybrid"

    @property
    def slot(self) -> Slot:
        """What each slot holds."""
        return self.tokenizer.slot

    def check(self, slot) -> None:
        """Raises ValueError for slots that hold anything but a code and numbers, and for heads that don't model these
        or need more than the rows of their own slots."""
        if not slot.coded:
            raise ValueError(
                "head hybrid: expected a tokenizer of a code and numbers beside it, such as hybrid_multiscale "
                f"(beside=True), found slots of {slot}"
            )
        if not isinstance(self.codes, Codes) or self.codes.shares:
            raise ValueError(
                "config field head.heads.codes: expected a head of one code that shares nothing, such as categorical, "
                f"found {self.codes.called}"
            )
        self.numbers.check(Slot((slot.shape[-1] - 1,)))
        if self.numbers.noise_levels is not None or self.numbers.around or self.numbers.rounds > 1:
            raise ValueError(
                "config field head.heads.numbers: expected a head that reads the rows of its own slots alone, in one "
                f"pass, such as diffusion, found {self.numbers.called}"
            )

    def setup(self):
        self.row_norm = Norm(self.norm, eps=self.eps)

    def __call__(self, hidden):
        """Touches all parameters (for initialisation): [B, n, D] -> what each head makes of it."""
        vectors = jnp.zeros((*hidden.shape[:-1], self.tokenizer.channels))
        return self.codes(hidden), self.numbers(self.rows(hidden, vectors))

    def rows(self, hidden, vectors):
        """What the numbers' head reads: [.., n, D] of hidden vectors [.., n, D] and codes' vectors [.., n, C]."""
        kernel, bias = (self.get_variable("shared", name).astype(self.dtype) for name in self.shares)
        return self.row_norm(hidden + (vectors.astype(self.dtype) @ kernel + bias).astype(hidden.dtype))

    def loss(self, hidden, target, layout, weight=None, train: bool = True, quantizer=None, soft=None):
        """The codes' loss and the weighted one of the numbers, see `Head.loss`.

        Returns:
          The loss, and metrics: of each head its `loss`, and its own, with "codes_" or "numbers_" before them.
        """
        codes, numbers = self.slot.apart(target)
        nats, of_codes = self.codes.loss(hidden, codes, layout, weight, train, quantizer)
        found = {f"codes_{name}": x for name, x in dict(of_codes, loss=nats).items()}
        # A whole pass has all slots of a code alone, and of the others those that it has.
        rows, there = self._with_numbers(layout.slots, hidden.shape[:2], hidden.shape[1] - self.slot.bare)
        if not rows.shape[-1]:
            return nats, found
        hidden, codes, numbers = (contents.take(x, rows) for x in (hidden, codes, numbers))
        weight = there if weight is None else there * contents.take(weight, rows)
        vectors = self.tokenizer.vectors(quantizer, codes)
        if self.told == "drawn":
            told = self.tokenizer.vectors(quantizer, self._drawn(hidden))
            numbers, vectors = numbers + vectors - told, told
        error, of_numbers = self.numbers.loss(
            self.rows(hidden, vectors), numbers / self.scale, layout.part(rows), weight, train, quantizer
        )
        found |= {f"numbers_{name}": x for name, x in dict(of_numbers, loss=error).items()}
        return nats + self.weight * error, found

    def sample(self, hidden, draws, layout, settings, guidance=None, quantizer=None, around=None) -> Sample:
        """Draws contents float32 [B, n, 1 + C], see `Head.sample`; settings and guidance are those of both heads."""
        batch, n = draws.shape
        codes = self.codes.sample(hidden, draws.of(0), layout, settings, guidance, quantizer).content
        numbers = jnp.zeros((batch, n, self.slot.shape[-1] - 1))
        most = min(n, self.tokenizer.grid.size - self.slot.bare)
        rows, there = self._with_numbers(layout.slots, draws.shape, most)
        if rows.shape[-1]:
            both = rows if rows.ndim == 1 else contents.repeat_to(rows, len(hidden))
            vectors = self.tokenizer.vectors(quantizer, contents.take(codes, rows))
            told = self.rows(contents.take(hidden, both), contents.repeat_to(vectors, len(hidden)))
            every = jnp.broadcast_to(rows, (batch, rows.shape[-1]))
            own = draws.of(1).at(every)
            drawn = self.numbers.sample(told, own, layout.part(rows), settings, guidance, quantizer).content
            numbers = contents.put(numbers, jnp.where(there > 0, every, n), self.scale * drawn)
        return Sample(self.slot.joined(codes, numbers), None)

    def _with_numbers(self, slots, shape, most: int):
        """Rows int [m] or [B, m] of slots int [n] or [B, n], of which at most so many have numbers: those first; and
        which do, float32 [B, m]."""
        has = slots >= self.slot.bare
        rows = rows_of(has, True, most)
        there = contents.take(jnp.broadcast_to(jnp.asarray(has, jnp.float32), shape), rows)
        return rows, there

    def _drawn(self, hidden):
        """Codes int32 [B, m] as training draws them of hidden vectors [B, m, D], which get no gradient of it."""
        logits = jax.lax.stop_gradient(self.codes.codes(hidden))
        logits = filter_logits(logits, self.top_k, self.top_p if self.top_p < 1 else None)
        return jax.random.categorical(self.make_rng("head"), logits).astype(jnp.int32)
