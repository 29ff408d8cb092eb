"""Sequences of several segments: rows, losses and heads against dense references in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.core import meta
from parameters import noisy
from systems import jpeglm, labels_for, llamagen, make, orthus, rqtransformer

from vargen import models
from vargen.config import part
from vargen.errors import UserError
from vargen.feeds.contents import SoftCodes
from vargen.heads import VDiffusion
from vargen.heads.v_diffusion import signal_shares, trailing
from vargen.layers import Initial
from vargen.layout import Layout
from vargen.model import Model
from vargen.orders import SegmentOrder
from vargen.samplers import Sampling, decode
from vargen.slots import Grid


@pytest.fixture(scope="module")
def made():
    _, generator, params, tokenizer_params = make("orthus")
    picture = jax.random.normal(jax.random.key(3), (4, 16, 4))
    return generator, params, tokenizer_params["quantizer"], picture, labels_for(generator, 4)


def soft(x, codes, table, scale=1.0):
    """The formula, in float64, one vector at a time."""
    x, codes, table = (np.asarray(a, np.float64) for a in (x, codes, table))
    found = np.zeros((*x.shape[:-1], table.shape[1]))
    for at in np.ndindex(x.shape[:-1]):
        logits = -np.sum((scale * x[at] - codes) ** 2, axis=1)
        weights = np.exp(logits - logits.max())
        found[at] = weights / weights.sum() @ table
    return found


def test_every_row_carries_the_content_before(made):
    """Dense: by hand for each example, in the sequence that it was dealt."""
    generator, params, _, picture, captions = made
    content, _ = generator.joined(picture, captions)
    order = generator.ordering.training(jax.random.key(1), content)
    condition = generator.condition.apply({"params": params["condition"]}, captions)
    rows = generator.feed.apply({"params": params["feed"]}, content, condition, order, method="inputs")
    of = params["feed"]["content"]
    text = np.pad(captions, [(0, 0), (1, 1)])
    text[:, 0], text[:, -1] = 5, 6
    embedded = dict(
        text=np.asarray(of["text"]["codes"]["table"], np.float64)[text],
        picture=soft(picture, of["picture"]["codes"], of["picture"]["table"]),
    )
    begun = set()
    for b in range(4):
        names = ["text", "picture"] if order.slots[b, 0] == 0 else ["picture", "text"]
        begun.add(names[0])
        sequence = np.concatenate([embedded[name][b] for name in names])
        expected = np.concatenate([np.asarray(params["condition"]["start"], np.float64), sequence[:-1]])
        np.testing.assert_allclose(rows.x[b], expected, atol=1e-5)
        slots = dict(text=np.arange(6), picture=np.arange(6, 22))
        np.testing.assert_array_equal(rows.slots[b], np.concatenate([slots[name] for name in names]))
    assert begun == {"text", "picture"}
    np.testing.assert_array_equal(rows.layout.times, np.arange(22))


def test_losses_by_hand(made):
    """The text's cross-entropy, of captions that are there, and the picture's error: each of its own rows, weighted."""
    generator, params, quantizer, picture, captions = made
    captions = jnp.asarray(generator.condition.parse(["a b", None, "c", "b"]))
    total, metrics = generator.loss(params, quantizer, picture, captions, jax.random.key(2), train=False)
    content, _ = generator.joined(picture, captions)
    order = generator.ordering.training(jax.random.split(jax.random.key(2), 4)[0], content)
    hidden, _ = generator.hidden(params, quantizer, content, captions, order)
    kernel = np.asarray(params["head"]["heads_text"]["out"]["kernel"], np.float64)
    text, nats = np.asarray(generator.sequence.part(content, "text")), []
    for b in (0, 2, 3):
        for i, slot in enumerate(np.asarray(order.slots[b])):
            if slot < 6:
                logits = np.asarray(hidden[b, i], np.float64) @ kernel
                nats.append(np.log(np.exp(logits).sum()) - logits[text[b, slot]])
    assert len(nats) == 18
    np.testing.assert_allclose(metrics["text_loss"], np.mean(nats), rtol=1e-4)
    np.testing.assert_allclose(total, metrics["text_loss"] + 2 * metrics["picture_loss"], rtol=1e-6)


def test_each_loss_reaches_its_own_head_alone(made):
    generator, params, quantizer, picture, captions = made

    @jax.jit
    def gradients(params):
        def of(name):
            return jax.grad(
                lambda p: generator.loss(p, quantizer, picture, captions, jax.random.key(2), False)[1][name]
            )(params)

        return of("text_loss"), of("picture_loss")

    for own, found in enumerate(gradients(params)):
        norms = [
            max(float(jnp.abs(x).max()) for x in jax.tree.leaves(found["head"][f"heads_{k}"]))
            for k in ("text", "picture")
        ]
        assert norms[own] > 1e-4 and norms[1 - own] == 0.0
        # Both teach the backbone, and through it both embeddings, the codes' places among them.
        for leaf in jax.tree.leaves((found["blocks"], found["feed"])):
            assert np.abs(leaf).max() > 0


def test_soft_codes():
    module = SoftCodes(8, 5, Initial(1.0), 0.3, jnp.float32)
    x = jax.random.normal(jax.random.key(0), (2, 3, 4))
    params = module.init(jax.random.key(1), x)["params"]
    params = meta.unbox(params)
    codes, table = params["codes"], params["table"]
    np.testing.assert_allclose(module.apply({"params": params}, x), soft(x, codes, table, 0.3), atol=1e-5)
    far = dict(codes=100 * codes, table=table)  # of which the nearest alone counts
    cold = module.clone(scale=100.0).apply({"params": far}, x)
    nearest = np.argmin(np.sum((np.asarray(x)[:, :, None] - np.asarray(codes)) ** 2, axis=-1), axis=-1)
    np.testing.assert_allclose(cold, np.asarray(table)[nearest], atol=1e-5)
    gradient = jax.grad(lambda p: jnp.sum(module.apply({"params": p}, x) ** 2))(params)
    assert np.all(np.any(np.abs(gradient["codes"]) > 1e-6, axis=1))


def test_signal_shares():
    """Values by an independent computation; the last is exactly 0."""
    at = [0, 9, 99, 249, 499, 749, 989, 998, 999]
    expected = [0.99915, 0.990748, 0.888086, 0.654189, 0.242359, 0.0331715, 2.05006e-5, 1.96789e-7, 0]
    np.testing.assert_allclose(signal_shares(1000)[at], expected, rtol=2e-5, atol=0)
    np.testing.assert_array_equal(trailing(1000, 100), np.arange(999, 0, -10))
    np.testing.assert_array_equal(trailing(1000, 4), [999, 749, 499, 249])
    assert len(trailing(10, 3)) == 3 and trailing(10, 3)[0] == 9


class Perfect:
    """A denoiser that knows the content."""

    def __init__(self, content, shares):
        self.content, self.shares = content, shares

    def unbind(self):
        return self, None

    def apply(self, variables, x, *args, method=""):
        if method == "modulations":  # of times [1, S]: those of one step are its time
            return x
        t = jnp.reshape(args[0][0, args[1]], (-1, 1))
        signal, spread = (jnp.asarray(np.sqrt(a), jnp.float32)[t] for a in (self.shares, 1 - self.shares))
        noise = (x - signal * self.content) / spread
        return signal * noise - spread * self.content


def test_perfect_velocities_lead_from_noise_to_the_content():
    head = VDiffusion(4)
    content = jax.random.normal(jax.random.key(0), (3, 4))
    noise = jax.random.normal(jax.random.key(1), (3, 4))

    class Told(VDiffusion):
        def setup(self):
            self.denoiser = Perfect(content, signal_shares(1000))

    found = Told(4).apply({}, noise, jnp.zeros((3, 8)), method="denoise")
    np.testing.assert_allclose(found, content, atol=2e-3)
    assert head.sample_steps == 100


def test_the_loss_is_the_velocity_s_error():
    """At the start the denoiser says 0: what is left is v itself, in float64; every patch has `repeat` times."""
    head = VDiffusion(4, depth=1, width=8, repeat=3)
    hidden, x = (jax.random.normal(jax.random.key(i), s) for i, s in ((0, (2, 5, 6)), (1, (2, 5, 4))))
    params = head.init(jax.random.key(2), hidden)["params"]
    t, noise = jnp.arange(10) * 111, jax.random.normal(jax.random.key(3), (10, 4))
    args = (hidden.reshape(10, 6), x.reshape(10, 4), t, noise)
    found = head.apply({"params": params}, *args, method="errors")
    a = signal_shares(1000)[np.asarray(t)][:, None]
    v = np.sqrt(a) * np.asarray(noise, np.float64) - np.sqrt(1 - a) * np.asarray(x, np.float64).reshape(10, 4)
    np.testing.assert_allclose(found, np.mean(v**2, axis=1), rtol=1e-5)
    one = head.apply({"params": params}, hidden, x, rngs={"head": jax.random.key(4)}, method="loss")[0]
    assert one == pytest.approx(1.0, abs=0.35)  # 30 draws of about unit variance


def test_orders_over_segments():
    """Each sequence as often; in decoding the first that begins with what is given."""
    order = SegmentOrder(Grid(((1, 3), (2, 2))), (3, 4))
    drawn = order.training(jax.random.key(0), np.zeros((4000, 7)))
    np.testing.assert_array_equal(np.unique(drawn.slots, axis=0), [np.arange(7), [3, 4, 5, 6, 0, 1, 2]])
    assert abs(np.mean(drawn.slots[:, 0] == 0) - 0.5) < 0.04
    np.testing.assert_array_equal(drawn.segments, np.asarray(drawn.slots) >= 3)
    known = np.arange(7)
    for given, first, count in (
        (None, 0, 0),
        (known < 3, 0, 3),
        (known >= 3, 3, 4),
        (known < 5, 0, 5),
        ((known >= 3) & (known < 5), 3, 2),
        (known < 0, 0, 0),
    ):
        found = order.decoding(None, 2, 0, given)
        assert (found.slots[0], found.given, found.segments[0]) == (first, count, int(first > 0))
    with pytest.raises(ValueError, match="expected the first ones of a sequence of segments"):
        order.decoding(None, 2, 0, known == 4)
    with pytest.raises(ValueError, match="this order has 7 steps, found 3"):
        order.decoding(None, 2, 3)
    one = SegmentOrder(order.grid, (3, 4), ((1, 0),))
    assert not one.random and one.training(None, np.zeros((2, 7))).slots.tolist() == [3, 4, 5, 6, 0, 1, 2]


def test_mistakes():
    for changes, text in (
        (
            dict(order=dict(sequences=((0, 1), (1, 1)))),
            "order.sequences: expected each of the segments [0, 1] once",
        ),
        (dict(head=dict(weights=(1.0,))), "head.weights: expected one for each of text, picture, found 1"),
    ):
        c = orthus()
        for axis, fields in changes.items():
            c[axis].update(fields)
        with pytest.raises(UserError, match=text.replace("[", r"\[").replace("]", r"\]")):
            models.build_generator(c, models.build_tokenizer(c))
    c = orthus()
    c.head.heads.text, c.head.heads.picture = c.head.heads.picture, c.head.heads.text
    with pytest.raises(UserError, match="head v_diffusion: expected a tokenizer of latents"):
        models.build_generator(c, models.build_tokenizer(c))
    c = orthus()
    del c.head.heads.picture
    with pytest.raises(UserError, match="head.heads: expected one for each of text, picture, found 1"):
        models.build_generator(c, models.build_tokenizer(c))
    c = orthus()
    c.feed.name = "instruct"
    del c.feed.soft_codes
    with pytest.raises(
        UserError, match="makes slots of the sequence, which needs the feed shift, found instruct"
    ):
        models.build_generator(c, models.build_tokenizer(c))
    assert Layout(np.zeros(1), np.zeros((1, 2))).segments is None


def with_codes(head, **options):
    """Captions, and a picture of two codes a slot."""
    c = orthus()
    c.tokenizer, c.feed = rqtransformer().tokenizer, part("shift")
    c.head = part("segments", heads=dict(text=part("categorical"), picture=part(head, **options)))
    return c


def without_soft_codes(**changes):
    """Orthus, whose latents enter by a linear map, with other parts."""
    c = orthus()
    del c.feed.soft_codes
    for axis, fields in changes.items():
        c[axis].update(fields)
    return c


def changed(c, **parts):
    """A config with other parts."""
    for axis, value in parts.items():
        c[axis] = value
    return c


@pytest.mark.parametrize(
    "c, message",
    [
        (
            changed(without_soft_codes(), tokenizer=jpeglm().tokenizer),
            "segments: expected slots without a stop code beside others, found picture",
        ),
        (changed(orthus(), order=part("raster")), "order.name: expected segments, .* has 2, found raster"),
        (
            changed(llamagen(), order=part("segments", sequences=((0,),))),
            "order.name: expected an order of one segment, such as raster, .* has 1, found segments",
        ),
        (without_soft_codes(feed=dict(vectors=True)), "feed.vectors: expected False for .* several segments"),
        (without_soft_codes(feed=dict(name="staged")), "feed staged: expected a tokenizer of several codes"),
        (
            changed(llamagen(), feed=part("shift", soft_codes=8)),
            "feed.soft_codes: expected 0 for slots of one of",
        ),
        (
            changed(orthus(), head=part("depth", layers=1)),
            "head depth: expected a tokenizer of several codes",
        ),
        (
            changed(orthus(), head=part("categorical")),
            "head categorical: .* found .*; the head segments takes",
        ),
        (
            changed(
                orthus(),
                head=part("segments", heads=dict(text=part("masked_lm"), picture=part("v_diffusion"))),
            ),
            "head.heads.text: expected a head that reads the rows of its own slots alone, .* found masked_lm",
        ),
        (
            changed(
                orthus(), head=part("segments", heads=dict(text=part("categorical"), picture=part("epsilon")))
            ),
            "head.heads.picture: .* found epsilon",
        ),
        (with_codes("staged"), "head.heads.picture: .* found staged"),
    ],
)
def test_misfits(c, message):
    with pytest.raises(UserError, match=message):
        models.build_generator(c, models.build_tokenizer(c))


@pytest.mark.slow
def test_several_codes_beside_words():
    """A head that gives a row for each code stands beside one that gives one; soft codes are the picture's."""
    c = with_codes("depth", layers=1)
    c.model.layers, c.model.dropout, c.compute_dtype = 1, 0.0, "float32"
    tokenizer = models.build_tokenizer(c)
    generator = models.build_generator(c, tokenizer)
    params, quantizer = noisy(generator.init), noisy(tokenizer.init)["quantizer"]
    rng = np.random.default_rng(0)
    codes, captions = jnp.asarray(rng.integers(0, 16, (3, 16, 2))), labels_for(generator, 3)

    @jax.jit
    def losses(soft):
        key = jax.random.key(2)
        return [
            generator.loss(params, quantizer, codes, captions, key, False, None, x)[1] for x in (None, soft)
        ]

    hard, same = losses(jax.nn.one_hot(codes, 16))
    np.testing.assert_allclose(same["picture_loss"], hard["picture_loss"], rtol=1e-6)
    other = losses(jnp.full((3, 16, 2, 16), 1 / 16))[1]
    assert (
        abs(other["picture_loss"] - hard["picture_loss"]) > 0.01 and other["text_loss"] == hard["text_loss"]
    )
    decoded = jax.jit(
        lambda key: decode(generator, params, quantizer, captions, key, Sampling.make()).content
    )
    found = generator.sequence.part(decoded(jax.random.key(3)), "picture")
    assert found.shape == (3, 16, 2) and all(len(np.unique(found[..., i])) > 4 for i in range(2))


def test_numbers_are_not_described():
    c = changed(orthus(), conditioning=part("text", numbers=9, tokens=4))
    tokenizer = models.build_tokenizer(c)
    parts = [
        jax.eval_shape(x.init, jax.random.key(0)) for x in (tokenizer, models.build_generator(c, tokenizer))
    ]
    words = "captions: expected a generator that writes words, found conditioning text, whose captions are numbers"
    with pytest.raises(UserError, match=words):
        Model(c, *parts).describe(np.zeros((1, 16, 16, 1), np.float32))
