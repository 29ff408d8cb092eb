"""Weights in several safetensors files with an index; and arrays that no model can have."""

import json
import os

import numpy as np
import pytest
from safetensors.numpy import save_file

from vargen.errors import UserError
from vargen.interop import files


@pytest.fixture
def shards(tmp_path):
    arrays = {f"layer.{i}": np.full((2, 3), i, np.float32) for i in range(4)}
    names = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    table = {name: names[i // 2] for i, name in enumerate(arrays)}
    for shard in names:
        save_file({k: v for k, v in arrays.items() if table[k] == shard}, tmp_path / shard)
    return tmp_path, arrays, table


def index(folder, table, name="model.safetensors.index.json"):
    path = folder / name
    path.write_text(table if isinstance(table, str) else json.dumps(dict(metadata={}, weight_map=table)))
    return path


def test_an_index_or_its_directory(shards):
    folder, arrays, table = shards
    path = index(folder, table)
    for where in (path, folder):
        found = files.read(where)
        assert set(found) == set(arrays)
        for name in arrays:
            np.testing.assert_array_equal(found[name], arrays[name])


BROKEN = {
    "cut": ("{", "expected an index with a weight_map"),
    "list": ("[]", "expected an index with a weight_map"),
    "no map": ("{}", "expected an index with a weight_map"),
    "empty": ('{"weight_map": {}}', "expected a weight_map"),
    "numbers": ('{"weight_map": {"a": 1}}', "expected a weight_map"),
    "elsewhere": ('{"weight_map": {"a": "../secret.safetensors"}}', "expected files beside it"),
    "absolute": ('{"weight_map": {"a": "/etc/passwd"}}', "expected files beside it"),
    "missing": ('{"weight_map": {"a": "none.safetensors"}}', "none.safetensors: expected a file, found none"),
    "wrong place": ('{"weight_map": {"layer.0": "model-00002-of-00002.safetensors"}}', "expected layer.0 in"),
    "half": (
        '{"weight_map": {"layer.0": "model-00001-of-00002.safetensors"}}',
        "found layer.1 elsewhere too",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_indices(name, shards):
    text, words = BROKEN[name]
    with pytest.raises(UserError, match=words) as caught:
        files.read(index(shards[0], text))
    assert "\n" not in str(caught.value)


def test_directories_without_one_index(shards):
    folder, _, table = shards
    with pytest.raises(UserError, match="expected a file, or a directory with one .*found 0"):
        files.read(folder)
    index(folder, table)
    index(folder, table, "other.safetensors.index.json")
    with pytest.raises(UserError, match="found 2 of them"):
        files.read(folder)


@pytest.mark.parametrize(
    "array, words",
    [
        (np.array([1.0, np.nan], np.float32), "w.npz: a: expected finite numbers, found nan"),
        (np.array([1.0, -np.inf], np.float16), "w.npz: a: expected finite numbers, found -inf"),
        (np.array([1, 2]), "w.npz: a: expected an array of floats, found dtype int64"),
        (np.array([True]), "w.npz: a: expected an array of floats, found dtype bool"),
        (np.array([1j]), "w.npz: a: expected an array of floats, found dtype complex128"),
    ],
)
def test_arrays_that_are_no_weights(array, words, tmp_path):
    np.savez(tmp_path / "w.npz", a=array)
    found = files.read(tmp_path / "w.npz").parameters()
    with pytest.raises(UserError, match=words):
        found["a"]


def test_empty_arrays_and_pipes(tmp_path):
    np.savez(tmp_path / "w.npz", a=np.zeros((0, 3), np.float32))
    with pytest.raises(
        UserError, match=r"w.npz: a: expected numbers, found an empty array of shape \(0, 3\)"
    ):
        files.read(tmp_path / "w.npz").parameters()
    os.mkfifo(tmp_path / "pipe.safetensors")
    with pytest.raises(UserError, match="expected a file, found no plain file"):
        files.read(tmp_path / "pipe.safetensors")
