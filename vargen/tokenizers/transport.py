"""Vector quantisation by optimal transport (VQ-WAE, arXiv 2302.05917): codes come to where latents are as one law does
to another, so that as many latents go to each as its weight says.

A table that is pulled to the nearest latents forgets the codes that are the nearest to none; transport has to bring
every code its share.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Annotated, Any

import jax
import jax.numpy as jnp

from vargen.layers import logical
from vargen.limits import SIZE, Above, AtLeast, Between
from vargen.tokenizers import assembly
from vargen.tokenizers.assembly import CONV
from vargen.tokenizers.autoencoder import latent_grid
from vargen.tokenizers.distances import distances
from vargen.tokenizers.vq import VQ


@dataclasses.dataclass(frozen=True)
class TransportVQ(VQ):
    """One code a latent, the nearest; latents and codes have no losses but the cost of transport between them.

    Attributes:
      per_slot: whether each slot of the grid has weights of its own over the codes (the paper), or all have the same.
      transport_weight: lambda, of the cost of transport of a batch's latents onto the weighted codes by squared
        distance, a mean over the slots.
      uniform_weight: lambda_r, of the divergence D(weights || uniform), in nats, a mean over the slots.
      epsilon: of the entropy of the transport, in units of the mean squared distance between latents and codes:
        latents are as large as training makes them.
      iterations: of Sinkhorn's algorithm.
    """

    per_slot: bool
    transport_weight: float
    uniform_weight: float
    epsilon: float
    iterations: int

    def init_quantizer(self, key: jax.Array) -> dict:
        """dict(codebook float32 [K, C], weights float32 [N or 1, K], whose softmax are the codes' weights)."""
        shape = (self.grid.size if self.per_slot else 1, self.vocab)
        weights = logical(jax.nn.initializers.zeros, None, "vocab")(key, shape, jnp.float32)
        return dict(super().init_quantizer(key), weights=weights)

    def further(self, qparams: dict, vectors: jax.Array, codes: jax.Array) -> dict:
        """The transport, and how far weights are from uniform ones; see `VQ.further`."""
        log_weights = jax.nn.log_softmax(qparams["weights"])
        # Each slot's latents are a law of their own, or all of them are one.
        cost = distances(vectors, codes).reshape(-1, len(log_weights), self.vocab).swapaxes(0, 1)
        epsilon = self.epsilon * jnp.maximum(jax.lax.stop_gradient(jnp.mean(cost)), 1e-12)
        moved = jax.vmap(lambda c, w: transport(c, w, epsilon, self.iterations))(cost, log_weights)
        uniform = jnp.sum(jnp.exp(log_weights) * (log_weights + jnp.log(self.vocab)), axis=-1)
        return dict(
            transport=(self.transport_weight, jnp.mean(moved)),
            uniform=(self.uniform_weight, jnp.mean(uniform)),
        )


def transport(
    cost: jax.Array, log_weights: jax.Array, epsilon: jax.Array | float, iterations: int
) -> jax.Array:
    """min over P of <P, cost> + epsilon D(P || a b), where P has the margins a = 1 / M and b.

    By the semi-dual max over phi of -epsilon mean_i log sum_j b_j exp((phi_j - cost_ij) / epsilon) + sum_j b_j phi_j
    (the paper's entropic form), at the phi of `potential`, through which no gradient goes: at the maximum it has none.

    Args:
      cost: float32 [M, K].
      log_weights: log b, float32 [K].
      epsilon: above 0.
      iterations: see `potential`.

    Returns:
      float32 []. It is a lower bound where the algorithm has not come to its end.
    """
    phi = potential(*jax.lax.stop_gradient((cost, log_weights, epsilon)), iterations)
    return jnp.mean(_other(cost, log_weights, phi, epsilon)) + jnp.sum(jnp.exp(log_weights) * phi)


def potential(
    cost: jax.Array, log_weights: jax.Array, epsilon: jax.Array | float, iterations: int
) -> jax.Array:
    """phi float32 [K] by Sinkhorn's algorithm on logarithms (Cuturi, arXiv 1306.0895); arguments as of `transport`."""
    even = jnp.full(len(cost), -jnp.log(len(cost)))

    def iteration(_, phi):
        psi = _other(cost, log_weights, phi, epsilon)
        return _other(cost.T, even, psi, epsilon)

    return jax.lax.fori_loop(0, iterations, iteration, jnp.zeros(cost.shape[1]))


def _other(cost, log_weights, phi, epsilon):
    """[M]: the rows' potential by the columns', -epsilon log sum_j b_j exp((phi_j - cost_ij) / epsilon)."""
    return -epsilon * jax.nn.logsumexp(log_weights + (phi - cost) / epsilon, axis=1)


def build_vq_wae(
    image_size: tuple[int, int],
    image_channels: int,
    dtype: Any,
    encoder: Mapping[str, Any] = CONV,
    vocab: Annotated[int, Between(2, 2**24)] = 512,
    channels: Annotated[int, SIZE] = 64,
    per_slot: bool = True,
    transport_weight: Annotated[float, AtLeast(0)] = 0.064,
    uniform_weight: Annotated[float, AtLeast(0)] = 0.125,
    epsilon: Annotated[float, Above(0)] = 0.05,
    iterations: Annotated[int, Between(1, 10**4)] = 20,
    kmeans: Annotated[int, Between(0, 1000)] = 0,
) -> TransportVQ:
    """The part "vq_wae": codes by optimal transport; options as `TransportVQ`'s attributes.

    The weights are the authors' for 64 slots and 512 codes, whose sums are means here; their transport is exact.
    """
    codec = assembly.codec(encoder, image_size, image_channels, channels, 1, dtype)
    own = dict(normalise=False, beta=0.0, codebook_weight=0.0, entropy_weight=0.0, entropy_temperature=1.0)
    never = dict(revive_every=0, revive_until=0.0, revive_threshold=0.03, temperature=0.0)
    return assembly.made(TransportVQ, locals(), grid=latent_grid(codec), **own, **never)
