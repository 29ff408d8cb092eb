"""Batches from any source, by grain: a pure function of (seed, step), sharded by process."""

from __future__ import annotations

import concurrent.futures
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from vargen.clips import as_pictures
from vargen.data import transforms
from vargen.data.sources import Source
from vargen.errors import UserError
from vargen.schema import CROPS

_NO_CHANGES: Mapping[str, Any] = dict(shift=0, flip=False, crop="center")
# Threads that read files; in-memory sources are gathered a batch at a time by one.
READERS = 16


def to_float(images: np.ndarray) -> np.ndarray:
    """uint8 images to float32 in [-1, 1]."""
    return images.astype(np.float32) / np.float32(127.5) - np.float32(1)


def padded(array: np.ndarray, size: int) -> np.ndarray:
    """An array [b, ...] with its last row repeated up to `size` rows."""
    return np.pad(array, [(0, size - len(array)), *[(0, 0)] * (np.ndim(array) - 1)], mode="edge")


def in_batches(function: Callable, items: np.ndarray, batch_size: int) -> np.ndarray:
    """`function` over the leading axis in batches of one shape; its results joined, on the host."""
    batch_size = min(batch_size, len(items))
    results = []
    for start in range(0, len(items), batch_size):
        some = items[start : start + batch_size]
        results.append(np.asarray(function(padded(some, batch_size)))[: len(some)])
    return np.concatenate(results)


def batches(
    source: Any,
    *,
    batch_size: int,
    seed: int = 0,
    start_step: int = 0,
    settings: Mapping[str, Any] = _NO_CHANGES,
    train: bool = True,
    augment: bool | None = None,
    epochs: int | None = None,
    rows: np.ndarray | None = None,
    labels: np.ndarray | None = None,
) -> Iterator[dict[str, np.ndarray]]:
    """Iterates over batches of a source.

    Step k holds positions k * batch_size to (k + 1) * batch_size of one stream: the whole set, shuffled anew
    each epoch. Order and augmentation of a position depend on (seed, position) alone, hence a run that starts
    at `start_step` sees what an uninterrupted one sees from there, and the rows that several processes see of a step
    are together the batch that one process would see, row by row.

    Args:
      source: a `Source`, or stored codes (`codes.Codes`).
      batch_size: images per step over all processes.
      seed: of order and augmentation.
      start_step: the first step to give.
      settings: `config.data`; shift, flip, crop, crop_range and filter are read.
      train: True: shuffled, augmented and endless. False: in order, one epoch, the last batch may be short.
      augment: overrides whether images are changed (`train` by default): at random; in order, where there is a number
        of views (`transforms.views`), by one of them in each pass after the other.
      epochs: passes over the set (None: endless in training, else 1); where they end, the last batch may be
        short.
      rows: int [b], rows of each batch to give (`sharding.local_rows`), in order; None for all of them.
      labels: [M, ...], what stands in the place of the labels of M images: captions as numbers. Stored codes of several
        copies of M images repeat them.

    Yields:
      `dict(image=float32 [b, S, S, C] in [-1, 1], label=int32 [b])`, clips [b, T, S, S, C]; or `dict(content, label)`
      for stored codes.

    Raises:
      UserError: sizes that don't divide; from the iterator: a file that cannot be read, named.
    """
    import grain

    if batch_size < 1:
        raise UserError(f"batch_size: expected at least 1, found {batch_size}")
    rows = np.arange(batch_size) if rows is None else np.asarray(rows)
    if not len(rows) or not 0 <= rows.min() <= rows.max() < batch_size:
        raise UserError(f"rows: expected some of 0 to {batch_size - 1}, found {rows.tolist()[:8]}")
    if settings.get("crop", "center") not in CROPS:
        raise UserError(f"data.crop: expected one of {', '.join(CROPS)}, found {settings['crop']!r}")
    augment = train if augment is None else augment
    epochs = epochs if train or epochs else 1
    order_seed, change_seed = np.random.SeedSequence(seed).generate_state(2, np.uint64)
    local = len(rows)

    def read(positions: np.ndarray, indices: np.ndarray) -> dict[str, np.ndarray]:
        draws = transforms.uniform_draws(int(change_seed), positions) if augment else None
        if augment and not train:
            draws = transforms.chosen(draws, positions // len(source), settings)
        found = _read(source, indices, draws, settings)
        return found if labels is None else found | dict(label=labels[indices % len(labels)])

    stream = grain.MapDataset.range(len(source))
    if train:
        stream = stream.shuffle(seed=int(order_seed % 2**32))
    stream = stream.repeat(epochs)
    stream = stream.map_with_index(lambda position, index: np.array([position, index]))
    stream = stream[start_step * batch_size :]
    if local < batch_size:
        everything = stream

        def own(place: int) -> np.ndarray:
            step, row = divmod(int(place), local)
            return everything[step * batch_size + int(rows[row])]

        stream = grain.MapDataset.range(len(everything) // batch_size * local).map(own)
    if source.in_memory:
        stream = stream.batch(local).map(lambda pairs: read(pairs[:, 0], pairs[:, 1]))
        return iter(stream.to_iter_dataset(grain.ReadOptions(num_threads=1, prefetch_buffer_size=4)))

    def read_one(pair: np.ndarray) -> dict[str, np.ndarray]:
        return {name: array[0] for name, array in read(pair[None, 0], pair[None, 1]).items()}

    options = grain.ReadOptions(num_threads=READERS, prefetch_buffer_size=max(2 * local, READERS))
    return iter(stream.map(read_one).to_iter_dataset(options).batch(local))


def _read(
    source: Any, indices: np.ndarray, draws: np.ndarray | None, settings: Mapping[str, Any]
) -> dict[str, np.ndarray]:
    """The items at `indices`, augmented by `draws` [b, DRAWS] where given."""
    if source.in_memory:
        record = source.gather(indices)
    else:
        item = source[int(indices[0])]
        record = dict(image=item["image"][None], label=np.array([item["label"]], dtype=np.int32))
    if "image" not in record:
        return record
    images = record["image"]
    crop, flip = settings.get("crop", "center"), settings.get("flip", False)
    if images.shape[-3:-1] != (source.image_size,) * 2 or (crop != "center" and draws is not None):
        options = {name: settings[name] for name in ("crop_range", "filter") if name in settings}
        found = [
            transforms.fit(frame, source.image_size, crop, draw, mirrored=mirrored, **options)
            for image, draw, mirrored in zip(images, *_changes(draws, len(images), flip), strict=True)
            for frame in as_pictures(image[None])  # of a clip, all alike
        ]
        images = np.stack(found).reshape(*images.shape[:-3], *found[0].shape)
    if draws is not None:
        images = transforms.augment(images, draws, settings.get("shift", 0), flip)
    return dict(image=to_float(images), label=record["label"])


def _changes(draws: np.ndarray | None, count: int, flip: bool) -> tuple:
    """For each image its draws, and whether `transforms.augment` will mirror it."""
    if draws is None:
        return (None,) * count, (False,) * count
    return draws, flip & transforms.is_mirrored(draws)


def evenly(source: Source, limit: int | None = None) -> np.ndarray:
    """int [M]: images at even distances, at most `limit`: folders are sorted by class, the first would be of one."""
    count = len(source) if limit is None else min(limit, len(source))
    return np.arange(count) * len(source) // max(count, 1)


def arrays(source: Source, limit: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """The images of a source in order, as evaluation sees them; with a limit, that many at even distances.

    Returns:
      uint8 [M, S, S, C], of clips [M, T, S, S, C], and int32 [M].

    Raises:
      UserError: a file that cannot be read, named.
    """
    indices = evenly(source, limit)
    count = len(indices)
    if source.in_memory:
        record = source.gather(indices)
        return record["image"], record["label"]
    images = np.empty((count, source.image_size, source.image_size, source.channels), np.uint8)
    labels = np.empty(count, np.int32)

    def read(position: int) -> None:
        item = source[int(indices[position])]
        images[position] = transforms.fit(item["image"], source.image_size)
        labels[position] = item["label"]

    with concurrent.futures.ThreadPoolExecutor(READERS) as pool:
        list(pool.map(read, range(count)))  # a list, so that errors are raised here
    return images, labels
