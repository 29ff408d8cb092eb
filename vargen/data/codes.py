"""Stored codes and latents: what a tokenizer made of a set, written once, read by memory mapping.

A directory of `content-00000.npy`, `labels-00000.npy`, ... and `index.json`, which lists the shards and says
what made them. It appears under its name only when it is whole.
"""

from __future__ import annotations

import json
import os
import pathlib
import shutil
from collections.abc import Mapping
from typing import Any

import numpy as np

from vargen.errors import UserError

INDEX = "index.json"
FORMAT = 1
SHARD_FIELDS = ("content", "content_bytes", "labels", "labels_bytes", "shape", "dtype")
SHARD_BYTES = 256 * 2**20


class Writer:
    """Writes codes batch by batch; use as a context manager, which makes the directory appear at its end.

        with Writer(directory, meta) as writer:
            writer.add(content, labels)

    A directory of that name is replaced. If the block raises, nothing is left behind.

    Args:
      directory: where to write.
      meta: what made the codes (tokenizer, checkpoint, split, ...): JSON values.
      shard_bytes: a shard is closed when its content reaches this size.
    """

    def __init__(self, directory: str | os.PathLike, meta: Mapping[str, Any], shard_bytes: int = SHARD_BYTES):
        self.directory = pathlib.Path(directory)
        self.meta = dict(meta)
        self.shard_bytes = shard_bytes
        self.temporary = self.directory.with_name(f".{self.directory.name}.{os.getpid()}.partial")
        self.shards: list[dict[str, Any]] = []
        self.content: list[np.ndarray] = []
        self.labels: list[np.ndarray] = []

    def __enter__(self) -> Writer:
        shutil.rmtree(self.temporary, ignore_errors=True)
        self.temporary.mkdir(parents=True)
        return self

    def add(self, content: np.ndarray, labels: np.ndarray) -> None:
        """Appends content [b, ...] (codes int, or latents or moments float) and labels [b].

        Raises:
          UserError: lengths, shape or dtype that differ from each other or from what came before.
        """
        content, labels = compact(np.asarray(content)), np.asarray(labels, dtype=np.int32)
        first = self.content[0] if self.content else None
        expected = self.shards[0] if self.shards else None
        shape = first.shape[1:] if first is not None else tuple(expected["shape"][1:]) if expected else None
        dtype = first.dtype if first is not None else np.dtype(expected["dtype"]) if expected else None
        if len(content) != len(labels):
            raise UserError(
                f"codes: expected as many labels as items, found {len(labels)} and {len(content)}"
            )
        if shape is not None and (content.shape[1:] != shape or content.dtype != dtype):
            raise UserError(
                f"codes: expected items {shape} {dtype}, found {content.shape[1:]} {content.dtype}"
            )
        self.content.append(content)
        self.labels.append(labels)
        if sum(c.nbytes for c in self.content) >= self.shard_bytes:
            self._close_shard()

    def _close_shard(self) -> None:
        if not self.content:
            return
        content, labels = np.concatenate(self.content), np.concatenate(self.labels)
        number = len(self.shards)
        files = dict(content=f"content-{number:05d}.npy", labels=f"labels-{number:05d}.npy")
        sizes = {}
        for kind, array in (("content", content), ("labels", labels)):
            path = self.temporary / files[kind]
            with path.open("wb") as file:
                np.save(file, array)
                file.flush()
                os.fsync(file.fileno())
            sizes[f"{kind}_bytes"] = path.stat().st_size
        self.shards.append(dict(files, **sizes, shape=list(content.shape), dtype=str(content.dtype)))
        self.content, self.labels = [], []

    def __exit__(self, kind: type | None, *_: Any) -> None:
        if kind is not None:
            shutil.rmtree(self.temporary, ignore_errors=True)
            return
        self._close_shard()
        index = dict(format=FORMAT, meta=self.meta, shards=self.shards)
        (self.temporary / INDEX).write_text(json.dumps(index, indent=1) + "\n")
        _replace(self.temporary, self.directory)


def compact(content: np.ndarray) -> np.ndarray:
    """Wide integers as int32, wide floats as float32; narrow types (uint16, float16) as they are."""
    if content.dtype.kind in "iu":
        return content if content.dtype.itemsize < 4 else content.astype(np.int32)
    return content if content.dtype.itemsize < 4 else content.astype(np.float32)


def _replace(temporary: pathlib.Path, directory: pathlib.Path) -> None:
    """Moves a finished directory to its name; an old one is moved aside first, then deleted."""
    aside = directory.with_name(f".{directory.name}.{os.getpid()}.old")
    shutil.rmtree(aside, ignore_errors=True)
    if directory.exists():
        directory.rename(aside)
    temporary.rename(directory)
    shutil.rmtree(aside, ignore_errors=True)


def store(
    directory: str | os.PathLike,
    content: np.ndarray,
    labels: np.ndarray,
    meta: Mapping[str, Any],
    shard_bytes: int = SHARD_BYTES,
) -> None:
    """Writes content [M, ...] and labels [M] at once; see `Writer`."""
    with Writer(directory, meta, shard_bytes) as writer:
        step = max(1, int(shard_bytes // max(1, content[:1].nbytes)))
        for start in range(0, len(content), step):
            writer.add(content[start : start + step], labels[start : start + step])


class Codes:
    """Stored codes by index, memory-mapped; `pipeline.batches` serves them as `dict(content, label)`.

    Attributes:
      meta: what `store` was told about their making.
      item_shape: shape of one item: (N,) codes, (N, C) latents, (N, 2C) moments.
    """

    in_memory = True  # as far as batching goes: whole batches are gathered from the maps at once

    def __init__(self, directory: pathlib.Path, meta: dict[str, Any], content: list, labels: list):
        self.name = f"codes {directory}"
        self.meta = meta
        self.content = content
        self.labels = labels
        self.starts = np.cumsum([0, *(len(c) for c in content)])
        self.item_shape = tuple(content[0].shape[1:])

    def __len__(self) -> int:
        return int(self.starts[-1])

    def __getitem__(self, index: int) -> dict[str, Any]:
        record = self.gather(np.array([index]))
        return dict(content=record["content"][0], label=int(record["label"][0]))

    def gather(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        """`dict(content=int32 or float32 [b, ...], label=int32 [b])` for int [b] indices."""
        indices = np.asarray(indices)
        integer = self.content[0].dtype.kind in "iu"
        content = np.empty((len(indices), *self.item_shape), np.int32 if integer else np.float32)
        labels = np.empty(len(indices), np.int32)
        shard = np.searchsorted(self.starts, indices, side="right") - 1
        for s in np.unique(shard):
            rows = np.flatnonzero(shard == s)
            content[rows] = self.content[s][indices[rows] - self.starts[s]]
            labels[rows] = self.labels[s][indices[rows] - self.starts[s]]
        return dict(content=content, label=labels)


def load(directory: str | os.PathLike) -> Codes:
    """Opens what `store` or `Writer` wrote.

    Raises:
      UserError: no such directory, or a shard that is missing, truncated or not what the index says; the
        message names the file.
    """
    directory = pathlib.Path(directory)
    path = directory / INDEX
    if not path.is_file():
        raise UserError(f"codes {directory}: expected {INDEX} (written by `vargen tokenize`), found none")
    try:
        index = json.loads(path.read_text())
        shards, meta, version = index["shards"], index["meta"], index["format"]
        fields = [[shard[name] for name in SHARD_FIELDS] for shard in shards]
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"codes {path}: expected an index of shards, found a broken file") from error
    if version != FORMAT:
        raise UserError(f"codes {path}: expected format {FORMAT}, found {version}")
    if not shards:
        raise UserError(f"codes {directory}: expected items, found none")
    content, labels = [], []
    for content_name, content_bytes, labels_name, labels_bytes, shape, dtype in fields:
        content.append(_open(directory / content_name, content_bytes))
        labels.append(np.asarray(_open(directory / labels_name, labels_bytes)))
        found = content[-1]
        if list(found.shape) != shape or str(found.dtype) != dtype:
            raise UserError(
                f"codes {directory / content_name}: expected {shape} {dtype}, "
                f"found {list(found.shape)} {found.dtype}"
            )
    return Codes(directory, meta, content, labels)


def _open(path: pathlib.Path, size: int) -> np.ndarray:
    if not path.is_file():
        raise UserError(f"codes {path}: expected a file of {size} bytes, found none")
    if path.stat().st_size != size:
        raise UserError(f"codes {path}: expected {size} bytes, found {path.stat().st_size} (truncated?)")
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise UserError(f"codes {path}: expected a NumPy array, found a broken file ({error})") from error
