"""Examples that end with a stop code: what counts in the loss, and when drawing ends."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from systems import jpeglm, make

from vargen import models
from vargen.draws import Keyed, keyed
from vargen.errors import UserError
from vargen.model import Model
from vargen.samplers import Sampling, decode
from vargen.slots import Slot
from vargen.tokenizers.jpeg import STOP, Jpeg

LABELS = jnp.array([1, 2, 3, 4])


class Endless(Jpeg):
    """Whose stop code is one like the others."""

    @property
    def slot(self):
        return Slot((), self.vocab)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Counted(Keyed):
    """Draws that tell how many there were."""

    counts: list = dataclasses.field(default_factory=list, metadata={"static": True})

    def at(self, slots):
        return Counted(super().at(slots).keys, self.counts)

    def choose(self, logits, greedy=False):
        jax.debug.callback(lambda: self.counts.append(1))
        return super().choose(logits, greedy)

    __hash__ = object.__hash__


@functools.cache
def biased():
    """A generator that stops at about every third slot; its parameters, the tokenizer's."""
    _, generator, params, tokenizer_params = make("jpeglm")
    generator = dataclasses.replace(generator, head=generator.head.clone(bias=True))
    out = params["head"]["out"]
    logits = jnp.zeros(generator.tokenizer.vocab).at[STOP].set(5.3)
    return generator, params | {"head": {"out": {**out, "bias": logits}}}, tokenizer_params


def before_stop(content) -> np.ndarray:
    """Everything after the first stop code replaced by it, row by row."""
    rows = []
    for row in np.asarray(content).tolist():
        end = row.index(STOP) if STOP in row else len(row)
        rows.append(row[:end] + [STOP] * (len(row) - end))
    return np.array(rows)


@pytest.mark.parametrize("guidance", [pytest.param(1.0, marks=pytest.mark.slow), 2.0])
def test_drawing_ends_with_the_last_example_and_draws_what_a_padded_scan_draws(guidance):
    generator, params, tokenizer_params = biased()
    sampling, key = Sampling.make(guidance=guidance), jax.random.key(3)
    n, counts = generator.tokenizer.grid.size, []
    draws = Counted(keyed(jax.random.split(key)[1], len(LABELS), n).keys, counts)

    def run(generator, draws):
        args = (params, tokenizer_params["quantizer"], LABELS, key, sampling)
        found = jax.jit(lambda d: decode(generator, *args, draws=d, scored=True))(draws)
        jax.effects_barrier()
        return np.asarray(found.content), np.asarray(found.score)

    found, score = run(generator, draws)
    t = generator.tokenizer
    endless = dataclasses.replace(generator, tokenizer=Endless(t.frame, t.length, t.slots, t.merges))
    whole, _ = run(endless, keyed(jax.random.split(key)[1], len(LABELS), n))
    np.testing.assert_array_equal(found, before_stop(whole))
    ends = [row.index(STOP) for row in found.tolist()]
    assert len(set(ends)) > 1 and max(ends) + 1 < n, "they end at different slots, all of them early"
    assert len(counts) == max(ends) + 1
    # What was drawn has the likelihood that its draws had, and padding has none.
    exists = np.arange(n) <= np.array(ends)[:, None]
    assert not score[~exists].any() and (score[exists] < 0).all()
    if guidance == 1.0:
        nats = jax.jit(generator.log_likelihood)(params, tokenizer_params["quantizer"], found, LABELS)
        np.testing.assert_allclose(nats, score.sum(axis=1), rtol=1e-4)
        # Looking ahead by no slot draws the same, and no example goes on behind its stop code.
        args = params, tokenizer_params["quantizer"], LABELS, key, Sampling.make(policy="jacobi", lookahead=1)
        ahead = jax.jit(functools.partial(decode, generator))(*args)
        np.testing.assert_array_equal(ahead.content, found)
        np.testing.assert_array_equal(ahead.passes, np.array(ends) + 1)


def test_padding_counts_nowhere():
    """The loss is the dense one over codes and stops, whatever stands in the padding, of examples that end."""
    generator, params, tokenizer_params = biased()
    n, rng = generator.tokenizer.grid.size, np.random.default_rng(0)
    content = rng.integers(0, STOP, (4, n))
    ends = np.array([0, 5, n - 1, n])  # the last has no stop code: it was cut off
    content[np.arange(3), ends[:3]] = STOP
    other = np.where(np.arange(n) > ends[:, None], rng.integers(0, STOP, content.shape), content)
    other[3] = (content[3] + 1) % STOP
    content = np.where(np.arange(n) > ends[:, None], STOP, content)
    quantizer = tokenizer_params["quantizer"]

    @jax.jit
    def measured(params, content):
        order = generator.ordering.decoding(None, 4)
        hidden, _ = generator.hidden(params, quantizer, content, LABELS, order)
        loss = lambda p: generator.loss(p, quantizer, content, LABELS, jax.random.key(0), False)[0]  # noqa: E731
        value, gradient = jax.value_and_grad(loss)(params)
        nats = generator.log_likelihood(params, quantizer, content, LABELS)
        return generator.head.apply({"params": params["head"]}, hidden), value, gradient, nats

    logits, loss, gradient, nats = measured(params, content)
    logits = np.asarray(logits, np.float64)
    log_probs = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
    rows = [sum(log_probs[i, j, content[i, j]] for j in range(min(end + 1, n))) for i, end in enumerate(ends)]
    np.testing.assert_allclose(nats, rows, rtol=1e-5)
    np.testing.assert_allclose(loss, -sum(rows[:3]) / (ends[:3] + 1).sum(), rtol=1e-5)
    _, loss_other, gradient_other, nats_other = measured(params, other)
    np.testing.assert_array_equal(nats_other[:3], nats[:3])
    assert loss_other == loss
    jax.tree.map(np.testing.assert_array_equal, gradient_other, gradient)


def test_continued():
    """The first codes stay, of every example; the rest follows from them, and a stop among them is the end."""
    generator, params, tokenizer_params = biased()
    model = Model(jpeglm(), tokenizer_params, params)
    model.generator = generator
    n = generator.tokenizer.grid.size
    content = np.arange(4 * n).reshape(4, n) % 50
    content[2, 3] = STOP
    found = np.asarray(model.continued(content, 5, LABELS, 0))
    np.testing.assert_array_equal(found[[0, 1, 3], :5], content[[0, 1, 3], :5])
    np.testing.assert_array_equal(found[2], [*content[2, :3], *[STOP] * (n - 3)])
    np.testing.assert_array_equal(found, before_stop(found))
    again = np.asarray(model.continued(np.where(np.arange(n) < 5, content, 7), 5, LABELS, 0))
    np.testing.assert_array_equal(again, found)
    other = np.asarray(model.continued((content + 1) % 50, 5, LABELS, 0))
    assert not np.array_equal(found[:2, 5:], other[:2, 5:])
    for wrong, words in ((0, "count: expected a whole number from 1 to 16, found 0"), (n + 1, "found 17")):
        with pytest.raises(UserError, match=words):
            model.continued(content, wrong, LABELS, 0)
    with pytest.raises(UserError, match="kept: expected a tokenizer whose slots are patches of the image"):
        model.complete(
            np.zeros((4, 16, 16, 1), np.float32), np.arange(16)[:, None] < np.full(16, 8), LABELS, 0
        )
    with pytest.raises(UserError, match="labels: expected 4, one for each of the contents, found 2"):
        model.continued(content, 5, LABELS[:2], 0)


@pytest.mark.slow
def test_one_picture_learnt_by_heart():
    """A tiny model draws its file, byte by byte, at temperature 0."""
    c = jpeglm()
    c.tokenizer.update(dict(length=40, merges=0, quality=15))
    c.model.dropout = 0.0
    tokenizer = models.build_tokenizer(c)
    generator = models.build_generator(c, tokenizer)
    y, x = np.mgrid[:16, :16] / 8 - 1
    image = jnp.asarray(np.cos(4 * x + y * y)[None, ..., None], jnp.float32)
    tokenizer_params = tokenizer.init(jax.random.key(0))
    content, labels = jax.jit(tokenizer.encode)(tokenizer_params, image), jnp.array([3])
    assert tokenizer.slot.stopped(content).all()
    optimizer = optax.adam(2e-2)

    @jax.jit
    def learn(params):
        def update(carry, _):
            loss = lambda p: generator.loss(p, None, content, labels, jax.random.key(0), False)[0]  # noqa: E731
            value, gradient = jax.value_and_grad(loss)(carry[0])
            updates, state = optimizer.update(gradient, carry[1])
            return (optax.apply_updates(carry[0], updates), state), value

        return jax.lax.scan(update, (params, optimizer.init(params)), length=120)

    (params, _), losses = learn(generator.init(jax.random.key(1)))
    assert losses[-1] < 0.05
    model = Model(c, tokenizer_params, params)
    drawn, _ = model.generate(labels, 0, temperature=0.0)
    np.testing.assert_array_equal(drawn, content)
    assert model.files(drawn) == tokenizer.files(tokenizer_params, content)
