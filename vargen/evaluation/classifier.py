"""A small classifier, trained on the spot: judges the labels of samples, and its features serve metrics.

Of clips it sees single frames; a clip's features and logits are the means over its frames.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import os
import pathlib
import zipfile
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import traverse_util

from vargen import paths
from vargen.clips import as_pictures
from vargen.data import pipeline, transforms
from vargen.data.sources import Source

# Raise when the network or its training changes: cached classifiers of other versions are not used.
VERSION = 2


@dataclasses.dataclass(frozen=True)
class Settings:
    """How the classifier is built and trained.

    Attributes:
      width: channels after the first layer; each further one doubles them.
      features: length of the feature vectors.
      steps, batch_size, learning_rate, weight_decay, dropout, smoothing: of training (AdamW, cosine decay).
      epochs: passes over the training images that it takes, where `steps` are fewer.
      shift: largest random shift in sixteenths of the image's side.
      limit: the most images that are taken from either set.
      seed: of initialisation, order and augmentation.
    """

    width: int = 32
    features: int = 64
    steps: int = 500
    batch_size: int = 64
    learning_rate: float = 3e-3
    weight_decay: float = 0.05
    dropout: float = 0.3
    smoothing: float = 0.1
    shift: int = 1
    limit: int = 50_000
    seed: int = 0
    epochs: int = 3

    def updates(self, images: int) -> int:
        """How many steps training on so many images takes."""
        return max(self.steps, self.epochs * images // self.batch_size)


class Network(nn.Module):
    """Strided convolutions down to a few positions, then features [B, F] and logits [B, classes].

    Convolutions are written as patches and matrix products, which XLA runs faster on a CPU.
    """

    classes: int
    settings: Settings

    @nn.compact
    def __call__(self, images: jax.Array, train: bool = False) -> tuple[jax.Array, jax.Array]:
        drop = functools.partial(nn.Dropout, self.settings.dropout, deterministic=not train)
        first = max(1, images.shape[1] // 8)  # to about 8x8 positions, whatever the size
        x = images
        for i, stride in enumerate((first, 2, 2)):
            x = nn.Dense(self.settings.width * 2**i)(_patches(x, stride + 2, stride))
            x = nn.gelu(nn.LayerNorm()(x))
        x = drop()(x.reshape(len(x), -1))
        features = nn.gelu(nn.Dense(self.settings.features)(x))
        return features, nn.Dense(self.classes)(drop()(features))


def _patches(x: jax.Array, size: int, stride: int) -> jax.Array:
    """[B, H, W, C] to overlapping patches [B, ceil(H / stride), ceil(W / stride), size^2 C], zero-padded."""
    counts = [-(-n // stride) for n in x.shape[1:3]]
    padding = [max((count - 1) * stride + size - n, 0) for count, n in zip(counts, x.shape[1:3])]
    x = jnp.pad(x, [(0, 0), *((p // 2, p - p // 2) for p in padding), (0, 0)])
    rows, columns = (stride * (count - 1) + 1 for count in counts)
    offsets = [(i, j) for i in range(size) for j in range(size)]
    return jnp.concatenate([x[:, i : i + rows : stride, j : j + columns : stride] for i, j in offsets], -1)


@dataclasses.dataclass(frozen=True, eq=False)
class Classifier:
    """A trained network.

    Attributes:
      network, params: the network and its parameters.
      accuracy: share of the test images that it labels right.
      batch_size: the one shape that `features_and_logits` compiles for.
    """

    network: Network
    params: Any
    accuracy: float = float("nan")
    batch_size: int = 256

    @functools.cached_property
    def _apply(self):
        return jax.jit(lambda params, images: self.network.apply({"params": params}, images))

    def features_and_logits(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """float32 [M, F] and [M, classes] for images uint8, or float32 in [-1, 1], [M, H, W, C] or [M, T, H, W, C]."""
        features, logits, clips = [], [], len(images)
        images = as_pictures(images)
        for start in range(0, len(images), self.batch_size):
            batch = np.asarray(images[start : start + self.batch_size])
            batch = pipeline.to_float(batch) if batch.dtype == np.uint8 else batch
            count = len(batch)
            padded = np.pad(batch, [(0, self.batch_size - count), (0, 0), (0, 0), (0, 0)])
            f, z = self._apply(self.params, padded)
            features.append(np.asarray(f)[:count])
            logits.append(np.asarray(z)[:count])
        frames = (np.concatenate(x) for x in (features, logits))
        of_features, of_logits = (x.reshape(clips, -1, x.shape[-1]).mean(axis=1) for x in frames)
        return of_features, of_logits

    def features(self, images: np.ndarray) -> np.ndarray:
        """float32 [M, F] for images uint8, or float32 in [-1, 1], [M, H, W, C]."""
        return self.features_and_logits(images)[0]

    def labels(self, images: np.ndarray) -> np.ndarray:
        """The likeliest labels: int [M] for images uint8, or float32 in [-1, 1], [M, H, W, C]."""
        return self.features_and_logits(images)[1].argmax(axis=-1)


def fit(
    source_train: Source,
    source_test: Source,
    cache_dir: str | os.PathLike | None = None,
    settings: Settings = Settings(),
) -> Classifier:
    """A classifier trained on one source and measured on the other; from `cache_dir` where it is known there.

    Digits: 99.72 % of the 360 held-out images right (benchmarks/results/digits.json, `real_label_accuracy`);
    Fashion-MNIST at 28x28: 90.1 % of the 10,000; emoji at 32x32, nine groups: 59 % of the 179.

    Args:
      source_train, source_test: of one size, with the same classes.
      cache_dir: where classifiers are kept, by a fingerprint of the data and the settings; None keeps none.
      settings: of the network and its training.
    """
    train = pipeline.arrays(source_train, settings.limit)
    test = pipeline.arrays(source_test, settings.limit)
    network = Network(len(source_train.classes), settings)
    path = None
    if cache_dir is not None:
        mark = fingerprint(settings, network.classes, *train, *test)
        path = pathlib.Path(cache_dir) / f"classifier-{mark}.npz"
        stored = _read(path)
        if stored is not None:
            return Classifier(network, *stored)
    params = _train(network, *train)
    classifier = Classifier(network, params)
    accuracy = float(np.mean(classifier.labels(test[0]) == test[1]))
    if path is not None:
        _write(path, params, accuracy)
    return dataclasses.replace(classifier, accuracy=accuracy)


def fingerprint(settings: Settings, classes: int, *data: np.ndarray) -> str:
    """16 hexadecimal digits that change with the data, the settings and the version of this file."""
    digest = hashlib.sha256(repr((VERSION, settings, classes)).encode())
    for array in data:
        digest.update(repr((array.shape, str(array.dtype))).encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()[:16]


def _train(network: Network, images: np.ndarray, labels: np.ndarray) -> Any:
    s = network.settings
    clips, images = len(images), as_pictures(images)
    labels = np.repeat(labels, len(images) // clips)
    params = jax.jit(network.init)(jax.random.key(s.seed), pipeline.to_float(images[:1]))["params"]
    steps = s.updates(len(labels))
    schedule = optax.cosine_decay_schedule(s.learning_rate, steps)
    optimizer = optax.adamw(schedule, weight_decay=s.weight_decay)

    def loss(params, images, labels, key):
        _, logits = network.apply({"params": params}, images, train=True, rngs={"dropout": key})
        targets = optax.smooth_labels(jax.nn.one_hot(labels, network.classes), s.smoothing)
        return optax.softmax_cross_entropy(logits, targets).mean()

    @functools.partial(jax.jit, donate_argnums=(0, 1))
    def update(params, state, images, labels, step):
        key = jax.random.fold_in(jax.random.key(s.seed), step)
        gradient = jax.grad(loss)(params, images, labels, key)
        changes, state = optimizer.update(gradient, state, params)
        return optax.apply_updates(params, changes), state

    state = jax.jit(optimizer.init)(params)
    shift = s.shift * images.shape[1] // 16
    rng = np.random.default_rng(s.seed)
    for step in range(steps):
        chosen = rng.integers(0, len(labels), s.batch_size)
        draws = rng.random((s.batch_size, transforms.DRAWS))
        batch = pipeline.to_float(transforms.augment(images[chosen], draws, shift))
        params, state = update(params, state, batch, labels[chosen], step)
    return params


def _read(path: pathlib.Path) -> tuple[Any, float] | None:
    """Parameters and accuracy; None where there is no whole file, and training must do it again."""
    try:
        with np.load(path) as stored:
            arrays = dict(stored)
        accuracy = float(arrays.pop("accuracy"))
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
    return traverse_util.unflatten_dict(arrays, sep="/"), accuracy


def _write(path: pathlib.Path, params: Any, accuracy: float) -> None:
    with paths.replacing(path) as temporary, temporary.open("wb") as file:
        np.savez(file, accuracy=accuracy, **traverse_util.flatten_dict(jax.device_get(params), sep="/"))
