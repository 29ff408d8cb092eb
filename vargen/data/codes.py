"""Stored codes and latents: what a tokenizer made of a set, written once, read by memory mapping.

A directory of `content-00000.npy`, `labels-00000.npy`, ... and `index.json`, which lists the shards and says
what made them. It appears under its name only when it is whole.
"""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from vargen import paths
from vargen.errors import UserError

INDEX = "index.json"
FORMAT = 2
SHARD_FIELDS = "content content_bytes content_crc labels labels_bytes labels_crc shape dtype".split()
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
        self.directory = paths.path(directory)
        self.meta = dict(meta)
        self.shard_bytes = shard_bytes
        self.stack = contextlib.ExitStack()
        self.shards: list[dict[str, Any]] = []
        self.content: list[np.ndarray] = []
        self.labels: list[np.ndarray] = []

    def __enter__(self) -> Writer:
        self.temporary = self.stack.enter_context(paths.new_directory(self.directory, last=INDEX))
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
            sizes[f"{kind}_bytes"], sizes[f"{kind}_crc"] = _fingerprint(path)
        self.shards.append(dict(files, **sizes, shape=list(content.shape), dtype=str(content.dtype)))
        self.content, self.labels = [], []

    def __exit__(self, kind: type | None, error: BaseException | None, trace: Any) -> None:
        with self.stack:
            if error is not None:
                raise error  # through the stack, which clears up
            self._close_shard()
            text = _index_text(dict(format=FORMAT, meta=self.meta, shards=self.shards))
            (self.temporary / INDEX).write_text(text)


def _index_text(index: Mapping[str, Any]) -> str:
    """The index, and a checksum of itself."""
    text = json.dumps(index, sort_keys=True)
    return json.dumps(dict(index, checksum=zlib.crc32(text.encode())), indent=1) + "\n"


def _fingerprint(file: pathlib.Path) -> tuple[int, int]:
    """Size and CRC-32."""
    size = crc = 0
    with file.open("rb") as f:
        while block := f.read(1 << 22):
            size, crc = size + len(block), zlib.crc32(block, crc)
    return size, crc


def compact(content: np.ndarray) -> np.ndarray:
    """Wide integers as int32, wide floats as float32; narrow types (uint16, float16) as they are."""
    if content.dtype.kind in "iu":
        return content if content.dtype.itemsize < 4 else content.astype(np.int32)
    return content if content.dtype.itemsize < 4 else content.astype(np.float32)


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
      item_shape: shape of one item: (N,) or (N, Q) codes, (N, C) latents, (N, 2C) moments.
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
    directory = paths.path(directory)
    path = directory / INDEX
    if not paths.is_file(path):
        raise UserError(f"codes {directory}: expected {INDEX} (written by `vargen tokenize`), found none")
    try:
        index = json.loads(path.read_text())
        if (version := index["format"]) != FORMAT:
            raise UserError(f"codes {path}: expected format {FORMAT}, found {version}")
        checksum, shards, meta = index.pop("checksum"), index["shards"], index["meta"]
        fields = [[shard[name] for name in SHARD_FIELDS] for shard in shards]
        if checksum != zlib.crc32(json.dumps(index, sort_keys=True).encode()):
            raise ValueError("its checksum differs")
    except UserError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(f"codes {path}: expected an index of shards, found a broken file") from error
    if not shards:
        raise UserError(f"codes {directory}: expected items, found none")
    content, labels = [], []
    for content_name, size, crc, labels_name, labels_size, labels_crc, shape, dtype in fields:
        content.append(_open(directory / content_name, size, crc))
        labels.append(np.asarray(_open(directory / labels_name, labels_size, labels_crc)))
        found = content[-1]
        if list(found.shape) != shape or str(found.dtype) != dtype:
            raise UserError(
                f"codes {directory / content_name}: expected {shape} {dtype}, "
                f"found {list(found.shape)} {found.dtype}"
            )
    return Codes(directory, meta, content, labels)


def _open(path: paths.Path, size: int, crc: int) -> np.ndarray:
    if not paths.is_file(path):
        raise UserError(f"codes {path}: expected a file of {size} bytes, found none")
    file = paths.local(path)
    found = _fingerprint(file)
    if found[0] != size:
        raise UserError(f"codes {path}: expected {size} bytes, found {found[0]} (truncated?)")
    if found[1] != crc:
        raise UserError(
            f"codes {path}: expected the bytes that were written, found others (the checksum differs)"
        )
    try:
        return np.load(file, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise UserError(f"codes {path}: expected a NumPy array, found a broken file ({error})") from error
