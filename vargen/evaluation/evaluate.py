"""One dictionary of numbers for a trained model: samples, reconstructions, likelihood, speed."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax
import numpy as np

from vargen import inputs
from vargen.data import pipeline
from vargen.data.sources import Source
from vargen.errors import UserError
from vargen.evaluation import metrics
from vargen.evaluation.classifier import Classifier
from vargen.evaluation.nearest import nearest, small
from vargen.samplers import likelihood
from vargen.tokenizers import usage

NEIGHBOURS = 3  # of precision and recall
ORDERS = 4  # drawn for each image, for a bound on the likelihood where orders are
Progress = Callable[[Iterable[np.ndarray], int, str], Iterable[np.ndarray]]


@dataclasses.dataclass
class Measured:
    """Numbers, and some of the images that they were taken on: float32 [M, H, W, C] in [-1, 1].

    Attributes:
      metrics: as `evaluate` returns them.
      originals, reconstructions: held-out images, and what the tokenizer makes of them.
      samples, labels: drawn images and the labels int32 [M] asked for; None without a generator.
      nearest: the training images nearest to the samples.
      by_class: of each class asked for, the share of its samples that the classifier recognises; empty without one,
        and where there is one class.
    """

    metrics: dict[str, float]
    originals: np.ndarray
    reconstructions: np.ndarray
    samples: np.ndarray | None = None
    labels: np.ndarray | None = None
    nearest: np.ndarray | None = None
    by_class: dict[int, float] = dataclasses.field(default_factory=dict)


def evaluate(
    model: Any, source_train: Source, source_test: Source, classifier: Classifier | None, **options: Any
) -> dict[str, float]:
    """Measures a model against held-out images; arguments as for `measure`.

    Returns:
      Of the tokenizer, on held-out images, `psnr_db`, `ssim`, `mse` (means over images, in
      [-1, 1]), and for codes `codebook_use`, `codebook_perplexity`, both also of each level
      (`codebook_use_level_1` and so on, see `tokenizers.usage.statistics`).
      Of the samples, `label_accuracy` (the classifier sees the label asked for; not of one class, where it could see
      nothing else); `precision`, `recall` and
      `frechet_distance_classifier` against held-out images; `images_per_second` after warm-up; their number,
      `samples`; `valid`, the share of their contents that could be an image's, where not all could.
      `nearest_distance`: the median over samples of the distance to the nearest training image (see
      `vargen.evaluation.nearest`), and `real_nearest_distance` that of held-out images.
      `sampling_passes` through the blocks of an image, mean, and where it is known beforehand `sampling_flops` of an
      image, in products.
      Where there is an explicit likelihood, of the held-out images' codes, `bits_per_dimension` (per image
      value) and `bits_per_code` (padding not counted); where the order is drawn the same names with `_bound`, of which
      they are at most the mean over `ORDERS` orders of each image (see `samplers.likelihood.kind`).
      For comparison, `real_precision`, `real_recall` and `real_frechet_distance_classifier` with as many
      training images in the samples' place, and `real_label_accuracy` of held-out images.
    """
    return measure(model, source_train, source_test, classifier, **options).metrics


def measure(
    model: Any,
    source_train: Source,
    source_test: Source,
    classifier: Classifier | None,
    *,
    samples: int = 500,
    batch_size: int = 100,
    key: jax.Array | int = 0,
    limit: int = 10_000,
    keep: int = 500,
    progress: Progress = lambda batches, total, name: batches,
    watch: Callable[[np.ndarray], object] = lambda batch: None,
    **sampling: Any,
) -> Measured:
    """As `evaluate`, with pictures.

    Every call into the model has `batch_size` images (the last batch is padded): each function compiles once.

    Args:
      model: what `vargen.load` returns; without a generator, only the tokenizer is measured.
      source_train, source_test: the data, un-augmented.
      classifier: of the same data; judges labels and gives the features (penultimate layer). None leaves out
        what needs one.
      samples: how many images to draw, with the labels of the test set in its proportions.
      batch_size: images at once.
      key: PRNG key, or an int seed.
      limit: the most held-out images that are used, and the most training images.
      keep: how many images of each kind to return.
      progress: wraps an iterable of batches, given also their total length and a name: a progress bar.
      watch: called with every batch of samples, float32 [b, H, W, C], in their order.
      **sampling: for `model.sample`: guidance, temperature, top_k, top_p, steps.

    Raises:
      UserError: too few samples or held-out images for these metrics.
    """
    key = inputs.key(key)
    images, labels = pipeline.arrays(source_test, limit)
    for name, count in (("held-out images", len(images)), ("samples", samples)):
        if count <= NEIGHBOURS:
            raise UserError(f"evaluation: expected more than {NEIGHBOURS} {name}, found {count}")
    found, reconstructions = reconstruct(model, images, labels, batch_size, keep, key, progress)
    measured = Measured(found, pipeline.to_float(images[:keep]), reconstructions)
    several = len(source_train.classes) > 1
    if classifier is not None:
        real, real_logits = classifier.features_and_logits(images)
        if several:
            found["real_label_accuracy"] = _accuracy(real_logits, labels)
    if model.generator is None:
        return measured

    # The same labels for every model: the test set's, shuffled, over and over.
    asked = np.resize(np.random.default_rng(0).permutation(labels), samples)
    timer = _Timer()
    valid: list[np.ndarray] = []
    passes: list[np.ndarray] = []
    drawn = progress(
        _draw(model, asked, batch_size, key, sampling, timer, valid, passes), samples, "sampling"
    )
    training, _ = pipeline.arrays(source_train, limit)
    averaged = small(training)
    kept, features, logits, places, distances = [], [], [], [], []
    for batch in drawn:
        watch(batch)
        kept.append(batch[: max(0, keep - sum(len(k) for k in kept))])
        for values, batches in zip(nearest(batch, averaged), (places, distances)):
            batches.append(values)
        if classifier is not None:
            for values, batches in zip(classifier.features_and_logits(batch), (features, logits)):
                batches.append(values)
    measured.samples, measured.labels = np.concatenate(kept), asked[:keep]
    measured.nearest = pipeline.to_float(training[np.concatenate(places)[:keep]])
    found["nearest_distance"] = float(np.median(np.concatenate(distances)))
    found["real_nearest_distance"] = float(np.median(nearest(images, averaged)[1]))
    if classifier is not None:
        if several:
            right = np.concatenate(logits).argmax(axis=-1) == asked
            measured.by_class = {int(c): float(right[asked == c].mean()) for c in np.unique(asked)}
            found["label_accuracy"] = float(right.mean())
        found |= _compare(real, np.concatenate(features), "")
        some = training[np.arange(min(samples, len(training))) * len(training) // min(samples, len(training))]
        found |= _compare(real, classifier.features(some), "real_")
    if valid:
        found["valid"] = float(np.mean(np.concatenate(valid)))
    found |= dict(images_per_second=timer.images / max(timer.seconds, 1e-9), samples=samples)
    found["sampling_passes"] = float(np.mean(np.concatenate(passes)))
    if (flops := model.sampling_flops(min(batch_size, samples), **sampling)) is not None:
        found["sampling_flops"] = flops
    return measured


def _accuracy(logits: np.ndarray, labels: np.ndarray) -> float:
    return float(np.mean(logits.argmax(axis=-1) == labels))


def _compare(real: np.ndarray, features: np.ndarray, prefix: str) -> dict[str, float]:
    precision, recall = metrics.precision_recall(real, features, NEIGHBOURS)
    return {
        f"{prefix}frechet_distance_classifier": metrics.frechet_distance(real, features),
        f"{prefix}precision": precision,
        f"{prefix}recall": recall,
    }


def reconstruct(
    model: Any,
    images: np.ndarray,
    labels: np.ndarray,
    batch_size: int,
    keep: int,
    key: jax.Array,
    progress: Progress,
    watch: Callable[[np.ndarray, np.ndarray], object] = lambda real, reconstruction: None,
) -> tuple[dict[str, float], np.ndarray]:
    """What reconstructions and codes of uint8 images [M, H, W, C] show, and `keep` of the former.

    Args:
      model, batch_size, keep, key, progress: as of `measure`.
      images, labels: held out.
      watch: called with each batch of images and of reconstructions, float32 [b, H, W, C] in [-1, 1].
    """
    measured: dict[str, list[np.ndarray]] = dict(psnr_db=[], ssim=[], mse=[])
    codes, nats, kept = [], [], []
    coded = model.generator is not None and model.tokenizer.slot.kind == "codes"
    kind = model.likelihood[0] if coded else likelihood.NONE
    batch_size = min(batch_size, len(images))
    split = (images[start : start + batch_size] for start in range(0, len(images), batch_size))
    for i, batch in enumerate(progress(split, len(images), "reconstructing")):
        real, count = pipeline.to_float(batch), len(batch)
        content = model.encode(pipeline.padded(real, batch_size))
        reconstruction = np.asarray(model.decode(content))[:count]
        for name, metric in (("psnr_db", metrics.psnr), ("ssim", metrics.ssim), ("mse", metrics.mse)):
            measured[name].append(metric(real, reconstruction))
        watch(real, reconstruction)
        kept.append(reconstruction[: max(0, keep - i * batch_size)])
        if (some := model.tokenizer.slot.codes(content)) is not None:
            codes.append(np.asarray(some)[:count])
        if kind != likelihood.NONE:
            given = pipeline.padded(labels[i * batch_size :][:count], batch_size)
            keys: list[Any] = [None]
            if kind == likelihood.BOUND:
                keys = [jax.random.fold_in(key, i * ORDERS + k) for k in range(ORDERS)]
            each = [np.asarray(model.log_likelihood(content, given, k), np.float64) for k in keys]
            nats.append(-np.mean(each, axis=0)[:count])
    result = {name: float(np.mean(np.concatenate(values))) for name, values in measured.items()}
    codes_of_image = 0.0  # without padding
    if codes:
        content, t = np.concatenate(codes), model.tokenizer
        exists = t.slot.exists(content)
        slots = content.shape[1] if exists is None else float(exists.sum()) / len(content)
        codes_of_image = slots * math.prod(content.shape[2:])
        result |= usage.statistics(usage.count(content, t.grid.level_sizes, t.vocab, exists))
    if nats:
        mean, name = float(np.mean(np.concatenate(nats))), "_bound" * (kind == likelihood.BOUND)
        result[f"bits_per_dimension{name}"] = metrics.bits(mean, images[0].size)
        result[f"bits_per_code{name}"] = metrics.bits(mean, codes_of_image)
    return result, np.concatenate(kept)


@dataclasses.dataclass
class _Timer:
    images: int = 0
    seconds: float = 0.0


def _draw(
    model: Any,
    labels: np.ndarray,
    batch_size: int,
    key: jax.Array,
    sampling: dict[str, Any],
    timer: _Timer,
    valid: list[np.ndarray],
    passes: list[np.ndarray],
) -> Iterator[np.ndarray]:
    """Samples float32 [b, H, W, C] in [-1, 1] for labels int [M]; all but the first batch timed.

    Which of their contents are valid is appended, bool [b], where that is a question; and how many passes they took.
    """
    batch_size = min(batch_size, len(labels))
    starts = list(range(0, len(labels), batch_size))
    # The first batch compiles and is not timed; where it is the only one, it is drawn once more for the time.
    for i, start in enumerate(starts if len(starts) > 1 else starts * 2):
        asked = labels[start : start + batch_size]
        began = time.perf_counter()
        batch_key = jax.random.fold_in(key, start)
        content, _, took = model.drawn(pipeline.padded(asked, batch_size), batch_key, **sampling)
        drawn = np.asarray(model.decode(content), np.float32)
        if i > 0:
            timer.seconds += time.perf_counter() - began
            timer.images += batch_size
        if i < len(starts):
            found = model.valid(content)
            passes.append(np.asarray(took)[: len(asked)])
            if found is not None:
                valid.append(np.asarray(found)[: len(asked)])
            yield drawn[: len(asked)]
