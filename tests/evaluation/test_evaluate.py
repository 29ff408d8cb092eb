"""The whole evaluation, on models whose numbers are known."""

import dataclasses
import types

import jax
import numpy as np
import pytest
from easy_images import QUICK, bars

from vargen import data
from vargen.errors import UserError
from vargen.evaluation import classifier, evaluate, measure
from vargen.slots import Grid, Slot
from vargen.tokenizers import usage

VOCAB = 32
TEST = bars(60, 1)
TRAIN = bars(90)
NATS = 7.0


class Known:
    """Codes are indices of stored images; decoding adds a constant; samples are real images."""

    def __init__(self, error=0.0, mistakes=0.0, likelihood="exact", kind="codes", generator=True):
        slot = Slot((), VOCAB) if kind == "codes" else Slot((4,))
        self.tokenizer = types.SimpleNamespace(slot=slot, vocab=VOCAB, grid=Grid(((1, 1), (1, 1))))
        self.generator = object() if generator else None
        self.error, self.mistakes, self.kind, self.keys = error, mistakes, likelihood, []
        self.questionable = False
        self.real = data.to_float(TEST.images)
        self.shapes, self.calls, self.options = set(), 0, []

    def encode(self, images):
        self.shapes.add(("encode", images.shape))
        index = np.array([np.abs(self.real - image).sum(axis=(1, 2, 3)).argmin() for image in images])
        return np.stack([index // VOCAB, index % VOCAB], axis=1)

    def decode(self, content):
        return np.clip(self.real[content[:, 0] * VOCAB + content[:, 1]] + self.error, -1, 1)

    def valid(self, content):
        return content[:, 1] % 2 == 0 if self.questionable else None

    @property
    def likelihood(self):
        return self.kind, "for a test"

    def sampling_flops(self, batch, **options):
        return 1e6 * batch

    def drawn(self, labels, key, **options):
        self.shapes.add(("sample", labels.shape))
        self.options.append(options)
        rng = np.random.default_rng(self.calls)
        self.calls += 1
        wrong = rng.random(len(labels)) < self.mistakes
        labels = np.where(wrong, (labels + 1) % 3, labels)
        index = np.array([rng.choice(np.flatnonzero(TEST.labels == label)) for label in labels])
        return np.stack([index // VOCAB, index % VOCAB], axis=1), None, 2 + np.arange(len(labels)) % 2

    def log_likelihood(self, content, labels, key=None):
        assert (key is None) == (self.kind == "exact")
        self.shapes.add(("likelihood", content.shape))
        self.keys.append(key)
        return np.full(len(content), -NATS)


@pytest.fixture(scope="module")
def judge():
    return classifier.fit(TRAIN, TEST, None, QUICK)


def run(model, judge, **options):
    return evaluate(model, TRAIN, TEST, judge, **dict(samples=90, batch_size=16) | options)


class Several(Known):
    """The same with two codes a slot."""

    def __init__(self):
        super().__init__()
        self.tokenizer.slot = Slot((2,), VOCAB)

    def encode(self, images):
        return np.stack([super().encode(images)] * 2, axis=-1)

    def decode(self, content):
        return super().decode(content[..., 0])

    def drawn(self, labels, key, **options):
        content, order, passes = super().drawn(labels, key, **options)
        return np.stack([content] * 2, axis=-1), order, passes


def test_several_codes_a_slot(judge):
    found, one = run(Several(), judge), run(Known(), judge)
    assert found["bits_per_code"] == pytest.approx(NATS / np.log(2) / 4)
    assert found["codebook_perplexity"] == pytest.approx(one["codebook_perplexity"])
    for level, depths in ((1, (1, 2)), (2, (3, 4))):  # each depth of a level by itself
        for depth in depths:
            for name in ("codebook_use", "codebook_perplexity"):
                assert found[f"{name}_level_{depth}"] == pytest.approx(one[f"{name}_level_{level}"])


def still(source):
    """Clips of each picture, twice."""
    found = data.ArraySource(source.name, source.classes, source.images, source.labels)
    found.images = np.stack([source.images] * 2, axis=1)
    return found


def test_clips_that_stand_still(judge):
    """All is as of their pictures, but that there are twice as many values for the same bits."""
    model = Known(error=0.05)
    model.real = np.stack([model.real] * 2, axis=1)
    options = dict(samples=90, batch_size=16)
    measured = measure(model, still(TRAIN), still(TEST), judge, **options)
    found, expected = measured.metrics, run(Known(error=0.05), judge)
    assert found.pop("bits_per_dimension") == pytest.approx(expected.pop("bits_per_dimension") / 2)
    for numbers in (found, expected):
        numbers.pop("images_per_second")
    assert found == pytest.approx(expected, abs=1e-4)
    assert measured.samples.shape == measured.nearest.shape == (90, 2, 8, 8, 1)


def test_a_perfect_model(judge):
    model = Known()
    found = run(model, judge)
    assert found["psnr_db"] == pytest.approx(10 * np.log10(4e10))
    assert found["ssim"] == pytest.approx(1) and found["mse"] == 0
    assert found["real_label_accuracy"] == judge.accuracy
    assert found["label_accuracy"] >= judge.accuracy - 0.05
    assert found["precision"] == 1
    assert found["recall"] > 0.9
    assert found["frechet_distance_classifier"] < found["real_frechet_distance_classifier"]
    assert found["codebook_use"] == 1  # indices 0 to 31 occur as second codes
    assert found["codebook_use_level_1"] == 2 / VOCAB and found["codebook_use_level_2"] == 1
    counts = usage.count(model.encode(model.real), (1, 1), VOCAB)
    assert usage.statistics(counts).items() <= found.items()
    assert found["bits_per_dimension"] == pytest.approx(NATS / np.log(2) / 64)
    assert found["bits_per_code"] == pytest.approx(NATS / np.log(2) / 2)
    assert found["images_per_second"] > 0 and found["samples"] == 90
    assert found["real_nearest_distance"] > 0
    assert found["sampling_passes"] == pytest.approx(2.5, abs=0.1) and found["sampling_flops"] == 16e6
    assert all(type(value) in (int, float) and np.isfinite(value) for value in found.values())


def test_one_shape_for_each_function(judge):
    model = Known()
    run(model, judge)
    assert model.shapes == {("encode", (16, 8, 8, 1)), ("sample", (16,)), ("likelihood", (16, 2))}


def test_errors_show(judge):
    model = Known(error=0.5, mistakes=0.5)
    found = run(model, judge)
    clipped = np.clip(model.real + 0.5, -1, 1)
    assert found["mse"] == pytest.approx(np.mean((clipped - model.real) ** 2))
    assert 0.35 < found["label_accuracy"] < 0.65
    assert found["ssim"] < 1


def test_latents_have_no_codes_and_no_bits(judge):
    found = run(Known(kind="latents"), judge)
    assert not any(name.startswith(("codebook", "bits")) for name in found)
    assert not any(name.startswith("bits") for name in run(Known(likelihood="none"), judge))


def test_a_bound_is_named_as_one(judge):
    """Each picture in several orders, no two of them by the same key."""
    model = Known(likelihood="bound")
    found = run(model, judge)
    assert found["bits_per_dimension_bound"] == pytest.approx(NATS / np.log(2) / 64)
    assert "bits_per_dimension" not in found and "bits_per_code" not in found
    keys = {tuple(np.asarray(jax.random.key_data(key))) for key in model.keys}
    assert len(keys) == len(model.keys) == 4 * -(-60 // 16)


def test_a_tokenizer_alone(judge):
    found = run(Known(generator=False), judge)
    assert set(found) == {
        "psnr_db", "ssim", "mse", "codebook_use", "codebook_perplexity", "codebook_use_level_1",
        "codebook_perplexity_level_1", "codebook_use_level_2", "codebook_perplexity_level_2", "real_label_accuracy",
    }  # fmt: skip


def test_pictures_and_options(judge):
    model = Known(error=0.1)
    names = []

    def progress(batches, total, name):
        names.append((name, total))
        return batches

    found = measure(
        model, TRAIN, TEST, judge, samples=10, batch_size=16, keep=20, progress=progress, temperature=0.5
    )
    assert found.originals.shape == found.reconstructions.shape == (20, 8, 8, 1)
    np.testing.assert_allclose(found.reconstructions, np.clip(found.originals + 0.1, -1, 1))
    assert found.samples.shape == (10, 8, 8, 1) and found.labels.shape == (10,)
    assert names == [("reconstructing", 60), ("sampling", 10)]
    assert set(found.by_class) == set(found.labels.tolist())
    # Samples are training pictures here, with an error of their own.
    assert found.nearest.shape == (10, 8, 8, 1) and 0 <= found.metrics["nearest_distance"] < 0.3
    # One batch is enough for ten samples: it is drawn again for the time.
    assert model.options == [dict(temperature=0.5)] * 2


def test_without_a_classifier():
    found = evaluate(Known(), TRAIN, TEST, None, samples=20, batch_size=16)
    assert "images_per_second" in found and "psnr_db" in found
    assert not any("label" in name or "frechet" in name for name in found)


def test_one_class_has_no_label_accuracy():
    """Every classifier would see it in everything; what rests on features stays."""
    train, test = (data.ArraySource("bars", ["bar"], s.images, 0 * s.labels) for s in (TRAIN, TEST))
    judge = classifier.fit(train, test, None, dataclasses.replace(QUICK, steps=1))
    found = measure(Known(), train, test, judge, samples=20, batch_size=16)
    assert not any("label" in name for name in found.metrics) and not found.by_class
    assert {"frechet_distance_classifier", "precision", "recall", "real_precision"} <= set(found.metrics)
    assert len(found.samples) == 20


def test_too_few(judge):
    with pytest.raises(UserError, match="more than 3 samples, found 2"):
        run(Known(), judge, samples=2)
    with pytest.raises(UserError, match="held-out images, found 3"):
        run(Known(), judge, limit=3)
