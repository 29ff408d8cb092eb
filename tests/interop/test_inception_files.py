"""Files of FID's Inception: the PyTorch port's arrays and TensorFlow's graph, written here byte by byte."""

import struct

import jax
import numpy as np
import pytest

from vargen.errors import UserError
from vargen.interop import files, inception, mapping
from vargen.weights_file import flatten

WIDTH = 2


@pytest.fixture(scope="module")
def variables():
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda x: rng.normal(size=x.shape).astype(np.float32), inception.expected(WIDTH))


def ported(variables):
    return mapping.write(inception.table(variables), variables)


def same(found, expected):
    found, expected = dict(flatten(found)), dict(flatten(expected))
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array, err_msg=name)


def test_the_ports_arrays(variables, tmp_path):
    arrays = ported(variables) | {"fc.bias": np.zeros(1008, np.float32)}
    arrays["Mixed_5b.branch1x1.bn.num_batches_tracked"] = np.zeros((), np.int64)
    files.write(tmp_path / "port.npz", arrays)
    same(inception.read(tmp_path / "port.npz").variables, variables)


def test_other_arrays_are_named(variables, tmp_path):
    arrays = ported(variables)
    del arrays["Mixed_7c.branch_pool.conv.weight"]
    files.write(tmp_path / "other.npz", arrays | {"AuxLogits.fc.bias": np.zeros(4, np.float32)})
    with pytest.raises(UserError) as error:
        inception.read(tmp_path / "other.npz")
    for word in ("other.npz", "missing arrays: Mixed_7c.branch_pool.conv.weight", "AuxLogits.fc.bias"):
        assert word in str(error.value)
    files.write(tmp_path / "resnet.npz", {"layer1.weight": np.zeros((4, 4), np.float32)})
    with pytest.raises(
        UserError, match="missing arrays: Conv2d_1a_3x3.*and 463 more; unexpected arrays: layer1.weight"
    ):
        inception.read(tmp_path / "resnet.npz")


def varint(n):
    out = b""
    while n > 127:
        out, n = out + bytes([n & 127 | 128]), n >> 7
    return out + bytes([n])


def field(number, value):
    """A whole number, or bytes with their length."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def node(name, array, op=b"Const", packed=False):
    shape = b"".join(field(2, field(1, n)) for n in array.shape)
    content = field(5 if packed else 4, array.astype("<f4").tobytes())
    tensor = field(1, 1) + field(2, shape) + content
    attributes = field(5, field(1, b"dtype") + field(2, field(6, 1)))
    attributes += field(5, field(1, b"value") + field(2, field(8, tensor)))
    return field(1, field(1, name.encode()) + field(2, op) + field(3, b"input") + attributes)


def graph(variables):
    """The bytes of a graph that holds the variables as TensorFlow names them."""
    flat, out = dict(flatten(variables)), b""
    for name, scope in inception.scopes().items():
        where = name.replace(".", "/")
        named = dict(gamma="params/{}/bn/scale", beta="params/{}/bn/bias")
        named |= dict(moving_mean="batch_stats/{}/bn/mean", moving_variance="batch_stats/{}/bn/var")
        for last, ours in named.items():
            out += node(f"{scope}/batchnorm/{last}", flat[ours.format(where)], packed=last == "beta")
        out += node(f"{scope}/conv2d_params", flat[f"params/{where}/conv/kernel"])
        out += field(1, field(1, scope.encode()) + field(2, b"Relu"))
    out += node("softmax/biases", np.zeros(1008)) + node("softmax/weights", flat["params/fc/kernel"])
    return out + field(4, field(1, 21))  # versions


def test_tensorflows_graph(variables, tmp_path):
    (tmp_path / "graph.pb").write_bytes(graph(variables))
    same(inception.read(tmp_path / "graph.pb").variables, variables)


def test_scopes_of_the_graph():
    """As TensorFlow's graph has them (their list in toshas/torch-fidelity, all 94 compared once)."""
    scopes = inception.scopes()
    assert len(scopes) == len(set(scopes.values())) == 94
    for name, scope in {
        "Conv2d_1a_3x3": "conv",
        "Conv2d_4a_3x3": "conv_4",
        "Mixed_5b.branch5x5_2": "mixed/tower/conv_1",
        "Mixed_5c.branch_pool": "mixed_1/tower_2/conv",
        "Mixed_6a.branch3x3": "mixed_3/conv",
        "Mixed_6a.branch3x3dbl_3": "mixed_3/tower/conv_2",
        "Mixed_6d.branch1x1": "mixed_6/conv",
        "Mixed_7a.branch7x7x3_1": "mixed_8/tower_1/conv",
        "Mixed_7c.branch3x3dbl_3b": "mixed_10/tower_1/mixed/conv_1",
    }.items():
        assert scopes[name] == scope


def test_constants_of_a_graph(tmp_path):
    """Packed and single floats, one number for all, other dtypes passed over."""
    one = field(1, 1) + field(2, field(2, field(1, 3))) + varint(5 << 3 | 5) + struct.pack("<f", 2.5)
    whole = field(1, 3) + field(7, 4)
    for name, tensor in (("filled", one), ("whole", whole)):
        pair = field(5, field(1, b"value") + field(2, field(8, tensor)))
        (tmp_path / f"{name}.pb").write_bytes(
            node("a", np.ones((2, 3)), packed=True)
            + field(1, field(1, name.encode()) + field(2, b"Const") + pair)
        )
    found = files.read(tmp_path / "filled.pb")
    np.testing.assert_array_equal(found["filled"], np.full(3, 2.5))
    np.testing.assert_array_equal(found["a"], np.ones((2, 3)))
    assert list(files.read(tmp_path / "whole.pb")) == ["a"]


@pytest.mark.parametrize(
    "change", [lambda b: b[:-9], lambda b: b[:40], lambda b: b"\x0b" + b, lambda b: b"", lambda b: b"<html>"]
)
def test_broken_graphs(change, tmp_path):
    whole = node("a", np.ones((2, 3))) + node("b", np.ones(4))
    (tmp_path / "x.pb").write_bytes(change(whole))
    with pytest.raises(UserError, match="x.pb: expected a TensorFlow graph"):
        files.read(tmp_path / "x.pb")
