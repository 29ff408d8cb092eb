"""The decode engine: one loop for every system, derived from the order and the feed."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from vargen import static, weights
from vargen.draws import keyed
from vargen.orders import Order
from vargen.samplers.call import Call, Decoded, Decoding
from vargen.samplers.policies import POLICIES
from vargen.samplers.settings import Sampling
from vargen.samplers.step import keeping


def decode(
    generator,
    params,
    quantizer,
    labels,
    key,
    sampling: Sampling,
    given=None,
    order=None,
    draws=None,
    scored: bool = False,
    kept=None,
    unseen=None,
) -> Decoded:
    """Generates contents for labels.

    Every slot's randomness depends on the key, the example's place in the batch and the slot alone (with the policy
    "jacobi" also on the pass), so that the result doesn't change with how steps are grouped or examples sharded.

    Args:
      generator: a `Generator`.
      params: its parameters.
      quantizer: the tokenizer's quantiser parameters.
      labels: int32 [B], or whatever the conditioning's `parse` gives.
      key: PRNG key.
      sampling: `Sampling`.
      given: (content [B, N, *slot.shape], bool [N] NumPy): slots whose contents are known beforehand; None for what
        the labels tell of the sequence (`Generator.given_by`), mostly nothing.
      order: an `Order` in the place of the ordering's own.
      draws: `Draws` for [B, N] in the place of the key's.
      scored: whether the scores are wanted, which heads with an explicit likelihood have.
      kept: None, or (content [B, N, *slot.shape], bool [N] NumPy): slots that hold this content from their step on,
        whatever is drawn there; unlike given ones they needn't come first, and tell nothing to the steps before.
      unseen: None, or bool [B, N]: under guidance those of the given codes that are left out for
        `Sampling.spatial_guidance`, by feeds that can (`Feed.hides`).
    """
    args = (generator, params, quantizer, labels, key, sampling, given, order, draws, scored, kept, unseen)
    call, start = begin(*args)
    check(generator, call.order, sampling, kept)
    found, passes = POLICIES[sampling.policy].run(call, start)
    order = call.order
    if found.slots is not None:
        order = dataclasses.replace(order, slots=found.slots)
    content = generator.tokenizer.slot.padded(found.content)
    return Decoded(content, order, found.score, jnp.broadcast_to(passes, len(call.slots)))


def begin(
    generator,
    params,
    quantizer,
    labels,
    key,
    sampling: Sampling,
    given=None,
    order=None,
    draws=None,
    scored: bool = False,
    kept=None,
    unseen=None,
) -> tuple[Call, Decoding]:
    """What stays through a decoding, and what it changes before the first step; see `decode`."""
    batch, sequence, other = jax.tree.leaves(labels)[0].shape[0], generator.sequence, None
    params = weights.ready(generator, params)
    generator = dataclasses.replace(generator, ordering=sampling.ordering(generator.ordering))
    given = generator.given_by(labels) if given is None else given
    key_order, key_slots = jax.random.split(key)
    if order is None:
        known, stays = (None if x is None else x[1] for x in (given, kept))
        order = _order(generator, sampling, key_order, batch, known, stays)
    _check_slots(order, sequence.grid.size)
    if sampling.guided:
        without = generator.condition.without(labels)
        other = generator.given_by(without)
        if other is not None and (given is None or not given[1][other[1]].all()):
            other = None  # what is drawn is the same for both
        all_labels = (labels, without) if unseen is None else (labels, without, without)
        labels = jax.tree.map(lambda *x: jnp.concatenate(x), *all_labels)
    condition = generator.condition.apply({"params": params["condition"]}, labels)
    call = Call(
        generator,
        params,
        quantizer,
        condition,
        generator.modulations(params, condition),
        order,
        jnp.broadcast_to(jnp.asarray(order.slots), (batch, sequence.grid.size)),
        draws or keyed(key_slots, batch, sequence.grid.size),
        sampling.scales(order.sizes, order.parts, order.segments) if sampling.guided else None,
        sampling,
        kept,
        other,
        unseen if sampling.guided else None,
    )
    content = keeping(given, sequence.slot.zeros(batch, sequence.grid.size))
    start = Decoding(
        content,
        call.feed("begin", batch),
        generator.init_cache(params, len(condition.prefix)),
        _no_scores(call) if scored else None,
        call.slots if generator.ordering.proposes != "step" else None,
    )
    return call, start


def check_ahead(generator, sampling: Sampling, given=None, kept=None) -> None:
    """Whether `decode` would take the settings, by shapes alone: nothing is drawn, no backend is started.

    Args:
      generator: a `Generator`.
      sampling: `Sampling`.
      given, kept: None, or bool [N] NumPy: which slots they are of, as of `decode`.

    Raises:
      ValueError: no such steps, or slots that can't be given; filters, guidance or a policy that parts don't allow.
    """

    def begun(key):
        condition = generator.condition
        labelled = None if condition.segment is None else generator.sequence.known(condition.segment.name)
        order = _order(generator, sampling, key, 1, labelled if given is None else given, kept)
        check(generator, order, sampling, kept)
        if sampling.guided:
            condition.without(condition.example())
            sampling.scales(order.sizes, order.parts, order.segments)
        return order.slots

    jax.eval_shape(begun, jax.eval_shape(lambda: jax.random.key(0)))  # steps are known without a key


def check(generator, order: Order, sampling: Sampling, kept=None) -> None:
    """Raises ValueError for filters that the head doesn't know or slots have no codes for, steps of the likeliest codes
    where feeds pad them, and a policy that parts, the order or what is kept don't allow."""
    sampling.check(generator.tokenizer.slot)
    if not generator.head.filters and (sampling.top_k or sampling.nucleus):
        field = "top_k" if sampling.top_k else "top_p"
        raise ValueError(f"sampling.{field}: expected none, as filters need a categorical head, found one")
    if sampling.random_sides and not (generator.head.explicit and generator.feed.cached):
        raise ValueError(
            "sampling.random_sides: expected none, as they need a categorical head and a feed with a cache, found some"
        )
    policy = POLICIES[sampling.policy]
    policy.check(generator, order)
    if kept is not None and not policy.keeps:
        raise ValueError(
            f"sampling.policy: {sampling.policy} can't put what is kept into its lookahead; expected scheduled"
        )


def _check_slots(order: Order, n: int) -> None:
    """Raises ValueError for an order that isn't of all n slots, as what isn't there would be read in silence."""
    if order.slots.shape[-1] != n or len(order.steps) != n:
        found = f"{order.slots.shape[-1]} in {len(order.steps)} steps"
        raise ValueError(f"order: expected {n} slots and the step of each, found {found}")
    if static.known(order.slots) and not (np.sort(order.slots) == np.arange(n)).all():
        raise ValueError(f"order: expected each of {n} slots once, found {np.asarray(order.slots).tolist()}")


def _order(generator, sampling: Sampling, key, batch: int, given, kept) -> Order:
    """The order of a call, around the slots that are given and kept, bool [N] or None."""
    ordering = sampling.ordering(generator.ordering)
    order = ordering.decoding(key, batch, sampling.steps, given)
    return order if kept is None else ordering.around(order, kept)


def _no_scores(call: Call) -> jax.Array | None:
    """Zeros for the scores of all slots, in whatever shape the head gives them."""
    batch, n = call.slots.shape
    if call.generator.head.around:
        return None
    each = (1,) if call.generator.head.each_stage else ()
    hidden = jnp.zeros((len(call.condition.prefix), n, *each, call.generator.width))
    guidance = call.guidance(0)

    def sample():
        if call.generator.head.noise_levels is None:
            draws = call.draws.of(0) if call.generator.ordering.proposes != "step" else call.draws
            layout = call.generator.layout_of(call.order, call.order.slots)
            return call.head("sample", hidden, draws, layout, call.sampling, guidance, call.quantizer)
        draft = call.head("start", call.draws, call.sampling)
        return call.head("refine", hidden, draft, 0, call.sampling, guidance)

    return jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(sample).score)
