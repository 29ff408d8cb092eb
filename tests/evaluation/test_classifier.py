"""The classifier learns, is kept, and is trained anew when what it was made of changes."""

import dataclasses

import numpy as np
import pytest
from easy_images import QUICK, bars

from vargen import config, data
from vargen.evaluation import classifier as c


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    cache = tmp_path_factory.mktemp("cache")
    return cache, c.fit(bars(90), bars(60, 1), cache, QUICK)


def test_it_learns(kept):
    _, judge = kept
    assert judge.accuracy >= 0.95
    test = bars(60, 1)
    assert np.mean(judge.labels(data.to_float(test.images)) == test.labels) == judge.accuracy


def test_features_do_not_depend_on_the_company(kept):
    _, judge = kept
    images = bars(300, 2).images
    features, logits = judge.features_and_logits(images)
    assert features.shape == (300, 16) and logits.shape == (300, 3)
    np.testing.assert_allclose(judge.features(data.to_float(images[270:])), features[270:], atol=1e-5)


def test_it_is_kept_by_what_it_was_made_of(kept, monkeypatch):
    cache, judge = kept
    monkeypatch.setattr(c, "_train", lambda *_: pytest.fail("trained again"))
    again = c.fit(bars(90), bars(60, 1), cache, QUICK)
    assert again.accuracy == judge.accuracy
    images = bars(20, 3).images
    np.testing.assert_array_equal(again.features(images), judge.features(images))
    for sources, settings in (
        ((bars(90, 5), bars(60, 1)), QUICK),
        ((bars(90), bars(60, 6)), QUICK),
        ((bars(90), bars(60, 1)), dataclasses.replace(QUICK, dropout=0.1)),
    ):
        with pytest.raises(pytest.fail.Exception):
            c.fit(*sources, cache, settings)


def test_a_broken_file_is_made_again(kept, monkeypatch):
    cache, judge = kept
    (file,) = cache.glob("*.npz")
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    monkeypatch.setattr(c, "_train", lambda *_: judge.params)
    assert c.fit(bars(90), bars(60, 1), cache, QUICK).accuracy == judge.accuracy
    assert [p.name for p in cache.iterdir()] == [file.name]
    assert c._read(file) is not None


def test_training_is_deterministic(kept):
    _, judge = kept
    again = c.fit(bars(90), bars(60, 1), None, QUICK)
    images = bars(20, 3).images
    np.testing.assert_allclose(again.features(images), judge.features(images), atol=1e-5)


@pytest.mark.parametrize("size, channels", [(16, 1), (32, 3), (28, 3), (64, 3)])
def test_the_network_takes_any_size(size, channels):
    import jax
    import jax.numpy as jnp

    network = c.Network(5, c.Settings())
    images = jax.ShapeDtypeStruct((2, size, size, channels), jnp.float32)
    (features, logits), params = jax.eval_shape(network.init_with_output, jax.random.key(0), images)
    assert features.shape == (2, 64) and logits.shape == (2, 5)
    assert sum(np.prod(x.shape) for x in jax.tree.leaves(params)) < 600_000


def test_large_sets_are_gone_through_three_times():
    settings = c.Settings()
    assert settings.updates(1437) == 500 and settings.updates(50_000) == 2343  # 3 x 50,000 / 64


@pytest.mark.slow
def test_digits(tmp_path):
    settings = config.digits()
    judge = c.fit(data.load(settings, "train"), data.load(settings, "test"), tmp_path)
    assert judge.accuracy >= 0.985


def test_clips(kept):
    """It is trained on frames, each with the label of its clip; a clip's answers are the means of its frames'."""
    _, judge = kept
    source = bars(90)
    clips = np.stack([source.images, np.roll(source.images, 1, axis=1)], axis=1)
    features, logits = judge.features_and_logits(clips)
    assert features.shape == (90, 16) and logits.shape == (90, 3)
    each = [judge.features_and_logits(clips[:, t]) for t in range(2)]
    for found, one, other in zip((features, logits), *each, strict=True):
        np.testing.assert_allclose(found, (one + other) / 2, atol=1e-5)
    of_clips = data.ArraySource("bars", source.classes, source.images, source.labels)
    of_clips.images = clips
    assert c.fit(of_clips, of_clips, None, QUICK).accuracy >= 0.95
