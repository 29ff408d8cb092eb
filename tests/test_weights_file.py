"""Parameters in a safetensors file."""

import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import save_file

from vargen import weights_file
from vargen.errors import UserError


def params():
    return {
        "a": {"kernel": jnp.arange(6.0).reshape(2, 3), "bias": jnp.ones(3, jnp.bfloat16)},
        "b": {"c": {"n": jnp.int32(4)}},
    }


def test_round_trip(tmp_path):
    path = tmp_path / "params.safetensors"
    weights_file.write(path, params())
    assert os.listdir(tmp_path) == [path.name]
    found = weights_file.read(path)
    jax.tree.map(
        lambda x, y: np.testing.assert_array_equal(x, y, strict=True),
        found,
        jax.tree.map(np.asarray, params()),
    )
    with safe_open(path, framework="np") as file:
        assert file.metadata()["format"] == "vargen" and "b/c/n" in file.keys()


def test_parts_without_parameters(tmp_path):
    """A dict without anything, as of a quantiser without a table, comes back."""
    tree = dict(quantizer={}, head=dict(w=np.ones(2, np.float32), norm={}))
    weights_file.write(tmp_path / "params.safetensors", tree)
    found = weights_file.read(tmp_path / "params.safetensors")
    assert jax.tree.structure(found) == jax.tree.structure(tree)


@pytest.mark.parametrize("more", [{}, dict(quantizer={})])
def test_every_flipped_bit_is_found(more, tmp_path):
    path = tmp_path / "params.safetensors"
    weights_file.write(path, params() | more)
    data = path.read_bytes()
    header = int.from_bytes(data[:8], "little") + 8
    for place in (*range(0, header, 7), *range(header, len(data))):
        damaged = bytearray(data)
        damaged[place] ^= 4
        path.write_bytes(damaged)
        try:
            found = weights_file.read(path)
        except UserError:
            continue
        # What the header says beside names, shapes and places may change without changing a parameter.
        assert place < header
        jax.tree.map(np.testing.assert_array_equal, found, jax.tree.map(np.asarray, params() | more))


def test_refused(tmp_path):
    path = tmp_path / "params.safetensors"
    weights_file.write(path, params())
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(
        UserError, match=r"params\.safetensors: expected parameters written by vargen, found a broken"
    ):
        weights_file.read(path)
    bare = tmp_path / "bare.safetensors"
    save_file({"a": np.ones(1)}, bare)
    with pytest.raises(UserError, match="found safetensors of format 'none'"):
        weights_file.read(bare)
    with pytest.raises(UserError, match="a/b: expected an array of numbers"):
        weights_file.write(tmp_path / "new", {"a": {"b": "text"}})
    assert sorted(os.listdir(tmp_path)) == ["bare.safetensors", "params.safetensors"]
