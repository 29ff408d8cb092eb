"""Reading and writing the files in which people exchange weights."""

import collections
import os
import stat
import sys

import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from flax import serialization
from safetensors import safe_open
from weight_files import Malice, arrays, assert_same, message

from vargen.errors import UserError
from vargen.interop import files

SUFFIXES = [".safetensors", ".npz", ".pth", ".pt", ".bin", ".msgpack"]
TORCH = [".pth", ".pt", ".bin"]


@pytest.fixture
def torch():
    return pytest.importorskip("torch")


@pytest.fixture(params=[".safetensors", ".npz", ".pth", ".msgpack"])
def suffix(request):
    if request.param == ".pth":
        pytest.importorskip("torch")
    return request.param


# --- all formats ---


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_round_trip(tmp_path, suffix):
    if suffix in TORCH:
        pytest.importorskip("torch")
    path = tmp_path / f"weights{suffix}"
    files.write(path, arrays())
    found = files.read(path)
    assert_same(found, arrays())
    assert {n: found.shape(n) for n in found} == {n: a.shape for n, a in arrays().items()}
    assert "a.weight" in found and "b" not in found and found.get("b") is None
    assert os.listdir(tmp_path) == [path.name]
    other = tmp_path / "other"
    other.touch()
    assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE(other.stat().st_mode)


def test_strange_layouts(tmp_path, suffix):
    """Views in another order, of other byte order, not to be written to; names that np.savez cannot take."""
    base = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    odd = {
        "file": base.transpose(2, 0, 1),
        "back": base[:, ::-1],
        "big": base.astype(">f4"),
        "jax": jnp.asarray(base),
        "still": np.broadcast_to(np.float32(2), (2, 3)),
    }
    files.write(tmp_path / f"w{suffix}", odd)
    assert_same(
        files.read(tmp_path / f"w{suffix}"), {n: np.array(a, np.dtype(np.float32)) for n, a in odd.items()}
    )


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_halves(tmp_path, suffix, dtype):
    """Every finite float16 and bfloat16 there is comes out exactly, as float32."""
    values = np.arange(2**16, dtype=np.uint16).view(dtype)
    values = values[np.abs(values.astype(np.float32)) < np.inf]
    files.write(tmp_path / f"w{suffix}", {"x": values})
    found = files.read(tmp_path / f"w{suffix}")["x"]
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, values.astype(np.float32))


def test_lazy(tmp_path, suffix, monkeypatch):
    path = tmp_path / f"w{suffix}"
    files.write(path, arrays())
    read = []

    def counted(function):
        return lambda *args, **kwargs: read.append(function) or function(*args, **kwargs)

    monkeypatch.setattr(np.lib.format, "read_array", counted(np.lib.format.read_array))
    if suffix == ".pth":
        torch = sys.modules["torch"]
        monkeypatch.setattr(torch.Tensor, "numpy", counted(torch.Tensor.numpy))

    class Opened:
        def __init__(self, *args, **kwargs):
            self.file = safe_open(*args, **kwargs)
            self.get_tensor = counted(self.file.get_tensor)

        def __getattr__(self, name):
            return getattr(self.file, name)

    monkeypatch.setattr(files, "safe_open", Opened)
    found = files.read(path)
    assert len(found) == 6 and "scale" in found and sorted(found) == sorted(arrays())
    assert [found.shape(n) for n in arrays()] == [a.shape for a in arrays().values()]
    assert not read
    _ = found["a.weight"]
    assert len(read) == (suffix != ".msgpack")  # which is in memory as a whole


def test_first_bytes(tmp_path, suffix):
    """Where the suffix says nothing."""
    files.write(tmp_path / f"w{suffix}", arrays())
    os.rename(tmp_path / f"w{suffix}", tmp_path / "weights.model")
    assert_same(files.read(tmp_path / "weights.model"), arrays())


def test_first_bytes_of_flax(tmp_path):
    """Its dict may have many entries, without "params" around them, and long names."""
    for names in (
        [f"{i:02d}" for i in range(15)],
        [f"{i:02d}" for i in range(16)],
        ["long" * 8],
        ["long" * 100],
    ):
        tree = {name: np.full(2, i, np.float32) for i, name in enumerate(names)}
        (tmp_path / "w").write_bytes(serialization.msgpack_serialize(tree))
        assert_same(files.read(tmp_path / "w"), tree)


def test_first_bytes_unknown(tmp_path):
    for content, found in {
        b"": "an empty file",
        b"# notes\n": "text that starts '# notes'",
        b"\1\2": "some",
        b"\xde\xa1a\1": "some",
    }.items():
        (tmp_path / "w.model").write_bytes(content)
        with pytest.raises(
            UserError, match=f"expected a safetensors, npz, PyTorch or Flax file, found {found}"
        ) as error:
            files.read(tmp_path / "w.model")
        message(error)


def test_damaged(tmp_path, suffix):
    path = tmp_path / f"w{suffix}"
    files.write(path, arrays())
    whole = path.read_bytes()
    for length in (3, 12, len(whole) // 2, len(whole) - 5):
        path.write_bytes(whole[:length])
        with pytest.raises(UserError, match="expected a .* file, found a truncated or damaged one") as error:
            files.read(path)
        message(error)
    path.write_bytes(b"")
    with pytest.raises(UserError, match="found an empty file"):
        files.read(path)
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
    with pytest.raises(UserError, match="file, found text that starts 'version https://git-lfs") as error:
        files.read(path)
    message(error)


def test_no_file(tmp_path, suffix):
    with pytest.raises(UserError, match="expected a file, found none"):
        files.read(tmp_path / f"w{suffix}")
    (tmp_path / f"w{suffix}").mkdir()
    with pytest.raises(UserError, match="expected a file, or a directory with one"):
        files.read(tmp_path / f"w{suffix}")


def test_unknown_numbers(tmp_path):
    """Named when asked for, since such an array may be one that nobody needs."""
    header = b'{"a":{"dtype":"F8_E4M3","shape":[1],"data_offsets":[0,1]}}'
    (tmp_path / "w.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + b"\0")
    np.savez(tmp_path / "w.npz", a=np.zeros(2, ml_dtypes.bfloat16))
    for name in ("w.safetensors", "w.npz"):
        found = files.read(tmp_path / name)
        with pytest.raises(UserError, match=f"{name}: a") as error:
            found["a"]
        message(error)


def test_wrappers(tmp_path, suffix):
    """Names as DistributedDataParallel and torch.compile give them; only where all have them."""
    path = tmp_path / f"w{suffix}"
    x = np.zeros(1, np.float32)
    for names, expected in (
        (["module.a", "module.b.c"], {"a", "b.c"}),
        (["module._orig_mod.a", "module._orig_mod.b"], {"a", "b"}),
        (["_orig_mod.module.a"], {"a"}),
        (["a._orig_mod.b", "c.b"], {"a.b", "c.b"}),
        (["a._orig_mod.b", "a.b"], {"a._orig_mod.b", "a.b"}),
        (["module.a", "b"], {"module.a", "b"}),
        (["module.a", "module._orig_mod.b"], {"a", "_orig_mod.b"}),
    ):
        files.write(path, dict.fromkeys(names, x))
        assert set(files.read(path)) == expected


def test_weights_of_flat(tmp_path, suffix):
    path = tmp_path / f"w{suffix}"
    files.write(path, arrays())
    assert_same(files.read(path, "plain", member="generator"), arrays())
    with pytest.raises(
        UserError, match=r"expected ema weights \(model_ema or ema or ema_state_dict\), found one set"
    ) as error:
        files.read(path, "ema")
    message(error)
    with pytest.raises(UserError, match="expected auto, ema or plain, found 'best'"):
        files.read(path, "best")


# --- npz ---


def test_golden(tmp_path):
    np.savez(tmp_path / "g.npz", **{"sd/a.b": np.ones(2), "in/x": np.ones(3), "meta": "{}"})
    assert_same(files.read(tmp_path / "g.npz"), {"a.b": np.ones(2)})


def test_npz_of_numpy(tmp_path):
    """Compressed, with text and a pickled object beside the arrays; these are never read."""
    marker = tmp_path / "marker"
    evil = np.array([Malice(marker)], object)
    np.savez_compressed(tmp_path / "w.npz", **arrays(), note="text", evil=evil)
    assert_same(files.read(tmp_path / "w.npz"), arrays())
    assert not marker.exists()


def test_npz_flipped_bit(tmp_path):
    files.write(tmp_path / "w.npz", {"good": np.ones(1), "bad": np.zeros(10**4)})
    content = bytearray((tmp_path / "w.npz").read_bytes())
    content[content.index(bytes(8 * 10**4)) + 7 * 10**4] = 1
    (tmp_path / "w.npz").write_bytes(content)
    found = files.read(tmp_path / "w.npz")
    assert found["good"] == 1
    with pytest.raises(UserError, match=r"w\.npz: bad cannot be read: Bad CRC") as error:
        found["bad"]
    message(error)


# --- writing ---


def test_atomic(tmp_path, suffix):
    """On an error an older file stays, and nothing else."""
    path = tmp_path / f"w{suffix}"
    files.write(path, arrays())
    before = path.read_bytes()
    for bad in (np.array(["text"]), np.array([None], object)):
        with pytest.raises(
            UserError, match="late: expected an array of numbers to write, found dtype"
        ) as error:
            files.write(path, arrays() | {"late": bad})
        message(error)

    class Torn(collections.UserDict):
        def __getitem__(self, name):
            if name == "scale":
                raise KeyboardInterrupt
            return super().__getitem__(name)

    with pytest.raises(KeyboardInterrupt):
        files.write(path, Torn(arrays()))
    assert os.listdir(tmp_path) == [path.name] and path.read_bytes() == before
    files.write(path, {"x": np.ones(1)})
    assert set(files.read(path)) == {"x"}


def test_not_writable(tmp_path, suffix):
    with pytest.raises(UserError, match=r"cannot be written: No such file or directory$"):
        files.write(tmp_path / "no" / f"w{suffix}", arrays())
    (tmp_path / f"w{suffix}").mkdir()
    with pytest.raises(UserError, match=r"cannot be written: Is a directory$"):
        files.write(tmp_path / f"w{suffix}", arrays())
    assert os.listdir(tmp_path) == [f"w{suffix}"]


def test_over_itself(tmp_path, suffix):
    """The arrays of a file written in its place while they are being read from it."""
    path = tmp_path / f"w{suffix}"
    files.write(path, arrays())
    files.write(path, files.read(path))
    assert_same(files.read(path), arrays())


def test_unknown_suffix(tmp_path):
    for name in ("w.spm", "w", "w.ckpt"):
        with pytest.raises(
            UserError, match=r"ends in \.safetensors, \.npz, \.pth, \.pt, \.bin, \.msgpack, \.model, found"
        ) as error:
            files.write(tmp_path / name, arrays())
        message(error)
    assert not os.listdir(tmp_path)
