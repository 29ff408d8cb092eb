"""What heads have in common."""

from __future__ import annotations

from typing import ClassVar

import flax.linen as nn
import jax.numpy as jnp


class Plain(nn.Module):
    """What a head says of itself (see `Head`) unless it says otherwise: nothing."""

    explicit = False
    enumerable = False
    each_stage = False
    around = False
    rounds = 1
    noise_levels = None
    shares: ClassVar[tuple[str, ...]] = ()
    called = ""  # in messages

    @property
    def filters(self) -> bool:
        """What has a likelihood draws codes."""
        return self.explicit


class OfLatents(Plain):
    """Heads over latents."""

    def check(self, slot) -> None:
        """Raises ValueError for slots that hold codes, or belong to several segments."""
        if slot.vocab or slot.coded or len(slot.shape) != 1:
            raise ValueError(f"head {self.called}: expected a tokenizer of latents, found slots of {slot}")


class OfSeveralCodes(Plain):
    """Heads over slots that hold several codes each."""

    def check(self, slot) -> None:
        """Raises ValueError for slots that hold anything else."""
        if not slot.vocab or len(slot.shape) != 1:
            raise ValueError(
                f"head {self.called}: expected a tokenizer of several codes a slot, such as rq, found slots of {slot}"
            )


def check_steps(sample_steps: int, train_steps: int) -> None:
    """Raises ValueError for more steps of sampling than the process has in training."""
    if sample_steps > train_steps:
        raise ValueError(f"head.sample_steps: expected 1 to {train_steps}, found {sample_steps}")


def guided(x, guidance=None):
    """u + w (c - u) of what was made of rows with the condition, then of those without: [2B, ...] -> [B, ...].

    Args:
      guidance: w, [] or broadcast to a half of x; None for x itself, [B, ...]; a pair (w, v) for
        u' + w (c - u) + v (u - u') of x [3B, ...], whose last rows see less of what is known.
    """
    if guidance is None:
        return x
    if isinstance(guidance, tuple):
        scale, spatial = guidance
        with_condition, without, less = jnp.split(x, 3)
        return less + scale * (with_condition - without) + spatial * (without - less)
    with_condition, without = jnp.split(x, 2)
    return without + guidance * (with_condition - without)


def mean(x, weight=None):
    """The mean of x [...], or the weighted one; weights [...] that add up to less than 1 count as 1 together."""
    return jnp.mean(x) if weight is None else jnp.sum(x * weight) / jnp.maximum(jnp.sum(weight), 1.0)
