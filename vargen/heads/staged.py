"""Several codes a slot, each read off the rows after another stage of blocks (DnD, arXiv 2410.01912)."""

from __future__ import annotations

from typing import Annotated, Any

import jax.numpy as jnp

from vargen.heads.categorical import Categorical
from vargen.heads.head import Sample
from vargen.heads.plain import OfSeveralCodes
from vargen.layers import Initial, Norm
from vargen.limits import EPS, Between, OneOf


class Staged(OfSeveralCodes):
    """A norm and a linear map to logits of its own for each code, from what its stage has made of the rows.

    Attributes:
      tokenizer: whose codes they are.
      norm, eps: of the norms (`Norm`).
      bias: whether the maps have a bias.
      init_std: deviation of the maps at the start (0: zeros, a uniform distribution).
      initial: of the model's parameters.
      dtype: compute dtype of the maps; logits are float32.
    """

    tokenizer: Any
    norm: Annotated[str, OneOf("layer", "rms")] = "rms"
    eps: Annotated[float, EPS] = 1e-5
    bias: bool = False
    init_std: Annotated[float, Between(0, 100)] = 0.0
    initial: Initial = Initial()  # noqa: RUF009
    dtype: Any = jnp.float32

    explicit = True
    each_stage = True
    called = "staged"

    def setup(self):
        depths, vocab = self.tokenizer.slot.shape[0], self.tokenizer.vocab
        self.norms = [Norm(self.norm, eps=self.eps) for _ in range(depths)]
        options = dict(bias=self.bias, init_std=self.init_std, initial=self.initial, dtype=self.dtype)
        self.codes = [Categorical(vocab, **options) for _ in range(depths)]

    def __call__(self, hidden):
        """Logits of all codes from one vector (for initialisation): [..., D] -> float32 [..., Q, K]."""
        return self.logits(jnp.stack([hidden] * len(self.codes), axis=-2))

    def logits(self, hidden):
        """[..., Q, D] -> float32 [..., Q, K]."""
        each = [code(norm(hidden[..., d, :])) for d, (code, norm) in enumerate(self._pairs())]
        return jnp.stack(each, axis=-2)

    def loss(self, hidden, target, layout=None, weight=None, train: bool = True, quantizer=None, soft=None):
        """Mean cross-entropy in nats, over slots and codes; see `Head.loss`.

        Returns:
          The loss, and metrics: accuracy (of the likeliest code), and nats_1 to nats_Q of the depths.
        """
        losses, accuracies = [], []
        for d, (code, norm) in enumerate(self._pairs()):
            wanted = None if soft is None else soft[..., d, :]
            args = (layout, weight, train, quantizer, wanted)
            nats, metrics = code.loss(norm(hidden[..., d, :]), target[..., d], *args)
            losses.append(nats)
            accuracies.append(metrics["accuracy"])
        depths = {f"nats_{d + 1}": nats for d, nats in enumerate(losses)}
        return sum(losses) / len(losses), {"accuracy": sum(accuracies) / len(losses)} | depths

    def log_prob(self, hidden, target, quantizer=None):
        """float32 [B, n], nats: log-probability of codes [B, n, Q]."""
        return sum(
            code.log_prob(norm(hidden[..., d, :]), target[..., d])
            for d, (code, norm) in enumerate(self._pairs())
        )

    def sample(self, hidden, draws, layout, settings, guidance=None, quantizer=None, around=None) -> Sample:
        """Draws the code int32 [B, n] after the last of the stages in hidden [B, n, s, D]; see `Head.each_stage`."""
        last = hidden.shape[-2] - 1
        x = self.norms[last](hidden[..., last, :])
        return self.codes[last].sample(x, draws.of(last), layout, settings.of(last), guidance)

    def _pairs(self):
        return zip(self.codes, self.norms, strict=True)
