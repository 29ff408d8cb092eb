"""A part of a picture that stays: its codes are bit-equal under every order that can have it, others say why not."""

import functools

import jax
import numpy as np
import pytest
from systems import SYSTEMS, make, some_slow
from uncached import uncached

from vargen.errors import UserError
from vargen.model import Model

DOWN, ACROSS = np.mgrid[:16, :16]
MIDDLE = (abs(2 * DOWN - 15) < 9) & (abs(2 * ACROSS - 15) < 9)
MASKS = dict(border=~MIDDLE, middle=MIDDLE, top=DOWN < 8)
LAST = "expected whole steps of the order, from the first one on, found others"
FIXED = "llamagen rar acdit bits xar rqtransformer dnd mamba axial gla_chain".split()  # each in one sequence
BYTES = ["jpeglm", "dq"]  # whose slots are no patches
OF_CLASSES = [
    name for name in SYSTEMS if name not in "llamagen_text llamagen_words llamagen_memory orthus".split()
]
SLOW = [name for name in OF_CLASSES if name not in "randar maskgit var".split()]


@functools.cache
def model(name):
    c, _, params, tokenizer_params = make(name)
    return Model(c, tokenizer_params, params)


@pytest.mark.parametrize("name", OF_CLASSES)
def test_which_orders_have_which_parts(name):
    """Random ones and levels any part, fixed ones what comes first; it is said before anything is drawn."""
    for part, mask in MASKS.items():
        refused = ""
        if name in BYTES:
            refused = "expected a tokenizer whose slots are patches of the image"
        elif name in FIXED and part != "top":
            refused = LAST
        if not refused:
            assert model(name).kept(mask)[1].any()
            continue
        with pytest.raises(UserError) as found:
            model(name).kept(mask, "--keep mask.png")
        assert str(found.value).startswith(f"--keep mask.png: {refused}")
        with pytest.raises(UserError):
            model(name).complete(np.zeros((1, 16, 16, 1), np.float32), mask, [1], 0)


@pytest.mark.parametrize("name", some_slow([n for n in OF_CLASSES if n not in BYTES], SLOW))
def test_codes_inside_stay_to_the_bit(name):
    """What isn't kept plays no role and is drawn; the class is asked for anew."""
    own, mask = model(name), MASKS["top" if name in FIXED else "middle"]
    images = np.asarray(jax.random.uniform(jax.random.key(1), (2, 16, 16, 1), minval=-1))
    content = np.asarray(own.encode(np.where(mask[..., None], images, 0)))
    slots = own.kept(mask)[1]
    found = np.asarray(own.redrawn(images, mask, [1, 2], 0))
    assert found.dtype == content.dtype and found.shape == content.shape
    np.testing.assert_array_equal(found[:, slots], content[:, slots])
    assert (found[:, ~slots] != content[:, ~slots]).any()
    np.testing.assert_array_equal(own.complete(images, mask, [1, 2], 0), own.decode(found))
    if name in FIXED:  # random orders and levels: tests/samplers/test_engine.py, test_levels.py
        given, key = (jax.numpy.asarray(content), slots), jax.random.key(0)
        params, quantizer = own.parameters[0], own.tokenizer_params["quantizer"]
        whole = uncached(
            own.generator, params, quantizer, jax.numpy.array([1, 2]), key, own.sampling(), given
        )
        close = np.testing.assert_allclose if found.dtype.kind == "f" else np.testing.assert_array_equal
        close(found, whole, **(dict(atol=1e-4) if found.dtype.kind == "f" else {}))
    noise = np.where(mask[..., None], images, -images)
    np.testing.assert_array_equal(own.redrawn(noise, mask, [1, 2], 0), found)
    other = np.asarray(own.redrawn(images, mask, [3, 4], 1))
    np.testing.assert_array_equal(other[:, slots], content[:, slots])
    assert (other != found).any()


def test_codes_tell_nothing_of_what_is_taken_away():
    """Those of the whole picture would: the encoder looks beyond a slot's patch. Of levels that stay they are these."""
    own, mask = model("mar"), MASKS["middle"]
    images = np.asarray(jax.random.uniform(jax.random.key(1), (2, 16, 16, 1), minval=-1))
    others = np.where(mask[..., None], images, -images)
    slots = own.kept(mask)[1]
    whole, other = (np.asarray(own.encode(x))[:, slots] for x in (images, others))
    assert (whole != other).any()
    found, again = (np.asarray(own.redrawn(x, mask, [1, 2], 0)) for x in (images, others))
    np.testing.assert_array_equal(found, again)
    assert (found[:, slots] != whole).any()
    leveled = model("var")
    kept = np.asarray(leveled.redrawn(images, 2, [1, 2], 0))[:, :5]
    np.testing.assert_array_equal(kept, np.asarray(leveled.encode(images))[:, :5])
