"""The parts that docs/extending.md shows are put where it says, and train and sample."""

import dataclasses
import importlib
import pathlib
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from parameters import noisy
from systems import labels_for, llamagen, some_slow

from vargen import models, tokenizers
from vargen.conditioning import CONDITIONINGS
from vargen.config import part
from vargen.draws import keyed
from vargen.feeds import FEEDS
from vargen.heads import HEADS
from vargen.mixers import MIXERS
from vargen.orders import ORDERS
from vargen.samplers import Sampling, decode, policies
from vargen.tokenizers import assembly
from vargen.tokenizers.autoencoder import latent_grid

PAGE = (pathlib.Path(__file__).parents[1] / "docs/extending.md").read_text()
# The module that is named last before a block of code.
SHOWN = {
    re.search(r"(?:class|def) (\w+)", code).group(1): (modules[-1], code)
    for before, code in re.findall(r"(.*?)```python\n(.*?)```", PAGE, flags=re.DOTALL)
    if (modules := re.findall(r"[Ii]n\s`vargen/([\w/]+)\.py`", before)) and re.search(r"(class|def) ", code)
}


def shown(name):
    """A part as the page has it, in the module that it names."""
    module, code = SHOWN[name]
    module = importlib.import_module("vargen." + module.replace("/", ".").removesuffix(".__init__"))
    scope = {**vars(module), "__name__": module.__name__}
    exec(compile(code, f"docs/extending.md, {name}", "exec", dont_inherit=True), scope)
    return scope[name]


def signs(image_size, image_channels, dtype, encoder=tokenizers.CONV, channels=4):
    """The part "signs"."""
    codec = assembly.codec(encoder, image_size, image_channels, channels, 1, dtype)
    return shown("Signs")(codec, image_size, image_channels, latent_grid(codec), 2**channels, channels)


PARTS = dict(
    columns=(ORDERS, "order", lambda: shown("columns")),
    average=(MIXERS, "mixer", lambda: shown("Average")),
    counted=(FEEDS, "feed", lambda: shown("Counted")),
    tempered=(HEADS, "head", lambda: shown("Tempered")),
    numbered=(CONDITIONINGS, "conditioning", lambda: shown("Numbered")),
    signs=(tokenizers.TOKENIZERS, "tokenizer", lambda: signs),
)


def test_every_axis_is_shown():
    assert SHOWN.keys() == {*"columns Average Counted Tempered Numbered Signs one_by_one".split()}


@pytest.mark.parametrize("name", some_slow(PARTS, ("columns", "counted", "numbered", "signs")))
def test_parts(name, monkeypatch):
    """Its loss falls on two pictures; decoding is what a pass over what was drawn says."""
    registry, axis, constructor = PARTS[name]
    monkeypatch.setitem(registry, name, constructor())
    c = llamagen()
    c.feed, c.model.dropout = part("shift", target_positions=True), 0.0
    c[axis] = part(name, encoder=c.tokenizer.encoder, channels=4) if axis == "tokenizer" else part(name)
    tokenizer = models.build_tokenizer(c)
    generator = models.build_generator(c, tokenizer)
    params_t = noisy(tokenizer.init)
    images = np.random.default_rng(1).uniform(-1, 1, (2, 16, 16, 1)).astype(np.float32)
    loss, (_, _, again) = jax.jit(
        lambda p: tokenizer.loss(
            p, tokenizer.init_stats(), images, jax.random.key(2), jnp.int32(1), dict(l2=1.0)
        )
    )(params_t)
    assert np.isfinite(loss) and again.shape == images.shape
    content, labels = jax.jit(tokenizer.encode)(params_t, images), labels_for(generator, 2)
    params = noisy(generator.init, scale=0.1)

    @jax.jit
    def trained(params):
        def loss(params):
            return generator.loss(params, params_t["quantizer"], content, labels, jax.random.key(4), False)[0]

        def update(params, _):
            value, gradient = jax.value_and_grad(loss)(params)
            return jax.tree.map(lambda p, g: p - 0.3 * g, params, gradient), value

        return jax.lax.scan(update, params, None, 30)

    params, losses = trained(params)
    assert losses[-1] < 0.7 * losses[0]

    # Greedy: each code is the likeliest of the whole pass over what came of it.
    sampling = Sampling.make(temperature=0.0)
    found = jax.jit(
        lambda p: decode(generator, p, params_t["quantizer"], labels, jax.random.key(5), sampling)
    )
    codes, order, *_ = found(params)

    @jax.jit
    def again(params, codes):
        hidden, rows = generator.hidden(params, params_t["quantizer"], codes, labels, order)
        layout = generator.layout_of(order, rows.slots)
        args = (hidden, keyed(jax.random.key(6), 2, 16), layout, sampling)
        whole = generator.head.apply(generator.of_head(params), *args, method="sample").content
        return whole, codes[:, jnp.asarray(rows.slots)]

    np.testing.assert_array_equal(*again(params, codes))


@pytest.mark.slow
def test_the_policy(monkeypatch):
    run = shown("one_by_one")
    monkeypatch.setitem(policies.POLICIES, "one_by_one", policies.Policy(run, lambda generator, order: None))
    c = llamagen()
    generator = models.build_generator(c, models.build_tokenizer(c))
    params, sampling = noisy(generator.init), Sampling.make(temperature=1.0)

    def drawn(sampling):
        draw = jax.jit(
            lambda p: decode(generator, p, None, labels_for(generator, 2), jax.random.key(1), sampling)
        )
        return draw(params).content

    found = drawn(dataclasses.replace(sampling, policy="one_by_one"))
    np.testing.assert_array_equal(found, drawn(sampling))
