"""Reading and writing the files in which people exchange weights."""

import argparse
import collections
import os
import pathlib
import pickle
import stat
import sys

import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from safetensors import safe_open

from vargen.errors import UserError
from vargen.interop import files

SUFFIXES = [".safetensors", ".npz", ".pth", ".pt", ".bin"]
TORCH = [".pth", ".pt", ".bin"]


@pytest.fixture
def torch():
    return pytest.importorskip("torch")


@pytest.fixture(params=[".safetensors", ".npz", ".pth"])
def suffix(request):
    if request.param == ".pth":
        pytest.importorskip("torch")
    return request.param


def arrays():
    rng = np.random.default_rng(0)
    return {
        "a.weight": rng.normal(size=(3, 4)).astype(np.float32),
        "a.double": rng.normal(size=5),
        "index": np.arange(6).reshape(2, 3),
        "mask": np.array([True, False]),
        "scale": np.array(3.5, np.float32),
        "none": np.zeros((0, 2), np.float32),
    }


def assert_same(found, expected):
    assert set(found) == set(expected) and len(found) == len(expected)
    for name, array in expected.items():
        assert found[name].dtype == array.dtype
        assert found[name].shape == array.shape
        np.testing.assert_array_equal(found[name], array)


def message(error):
    assert "\n" not in str(error.value)
    return str(error.value)


class Malice:
    """Unpickling it would create a file."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


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


def test_halves_of_torch(tmp_path, torch):
    """Files written by PyTorch's side, against PyTorch's own widening."""
    from safetensors.torch import save_file as save_torch

    x = torch.randn(50, generator=torch.Generator().manual_seed(0))
    tensors = {"b": x.bfloat16(), "h": x.half()}
    save_torch(tensors, tmp_path / "w.safetensors")
    torch.save(tensors, tmp_path / "w.pt")
    for name in ("w.safetensors", "w.pt"):
        found = files.read(tmp_path / name)
        for key, tensor in tensors.items():
            np.testing.assert_array_equal(found[key], tensor.float().numpy())
    files.write(tmp_path / "out.pt", {"b": x.numpy().astype(ml_dtypes.bfloat16)})
    out = torch.load(tmp_path / "out.pt", weights_only=True)["b"]
    assert out.dtype == torch.bfloat16 and torch.equal(out, tensors["b"])


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
    assert len(read) == 1


def test_first_bytes(tmp_path, suffix):
    """Where the suffix says nothing."""
    files.write(tmp_path / f"w{suffix}", arrays())
    os.rename(tmp_path / f"w{suffix}", tmp_path / "weights.model")
    assert_same(files.read(tmp_path / "weights.model"), arrays())


def test_first_bytes_unknown(tmp_path):
    for content, found in {
        b"": "an empty file",
        b"# notes\n": "text that starts '# notes'",
        b"\1\2": "some",
    }.items():
        (tmp_path / "w.model").write_bytes(content)
        with pytest.raises(
            UserError, match=f"expected a safetensors, npz or PyTorch file, found {found}"
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
        (["module.a", "b"], {"module.a", "b"}),
        (["module.a", "module._orig_mod.b"], {"a", "_orig_mod.b"}),
    ):
        files.write(path, dict.fromkeys(names, x))
        assert set(files.read(path)) == expected


def test_weights_of_flat(tmp_path, suffix):
    path = tmp_path / f"w{suffix}"
    files.write(path, arrays())
    assert_same(files.read(path, "plain", member="generator"), arrays())
    with pytest.raises(UserError, match=r"expected ema weights \(model_ema or ema\), found one set") as error:
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


# --- PyTorch ---


def state(torch, value):
    return collections.OrderedDict(a=torch.full((2,), float(value)), b=torch.ones(1, 3))


@pytest.mark.parametrize("legacy", [False, True])
def test_nested(tmp_path, torch, legacy):
    path = tmp_path / "w.pth"
    args = argparse.Namespace(lr=1e-4, device=torch.device("cpu"), out=pathlib.Path("x"))
    junk = {
        "optimizer": {"state": {0: {"exp_avg": torch.zeros(2)}}, "param_groups": []},
        "args": args,
        "epoch": 3,
        "steps": np.int64(4),
        "loss": np.float32(0.5),
        "history": np.arange(3.0),
        "inner": argparse.Namespace(model=state(torch, 9)),
    }
    one, two = state(torch, 1), state(torch, 2)
    torch.save(one, path)
    torch.load(path, weights_only=True)  # makes PyTorch add its own names
    safe = set(torch.serialization.get_safe_globals())
    for content, weights, expected in (
        (one | {"note": "text", 3: torch.ones(1)}, "auto", 1),
        (one, "plain", 1),
        ({"model": one, **junk}, "auto", 1),
        ({"module": one, **junk}, "plain", 1),
        ({"state_dict": one, **junk}, "auto", 1),
        ({"model": one, "model_ema": two, **junk}, "auto", 2),
        ({"model": one, "model_ema": two, **junk}, "ema", 2),
        ({"model": one, "model_ema": two, **junk}, "plain", 1),
        ({"ema": two, "model": one, **junk}, "auto", 2),
        ({"ema": two, "model": one, **junk}, "plain", 1),
        ({"ema": two}, "auto", 2),
        ({"ema": None, "model": one, **junk}, "auto", 1),
    ):
        torch.save(content, path, _use_new_zipfile_serialization=not legacy)
        found = files.read(path, weights)
        assert set(found) == {"a", "b"}
        np.testing.assert_array_equal(found["a"], np.full(2, expected, np.float32))
        assert set(torch.serialization.get_safe_globals()) == safe
    for content, weights, match in (
        ({"model": one}, "ema", r"expected ema weights \(model_ema or ema\), found model"),
        ({"ema": one}, "plain", "expected plain weights .*, found ema"),
        ({"net": one, "epoch": 3}, "auto", "expected a dict of weights, found net, epoch"),
        ({}, "auto", "found nothing"),
        ([1, 2], "auto", "expected a dict of weights, found list"),
    ):
        torch.save(content, path, _use_new_zipfile_serialization=not legacy)
        with pytest.raises(UserError, match=match) as error:
            files.read(path, weights)
        message(error)


def test_var_trainer(tmp_path, torch):
    path = tmp_path / "ar-ckpt-last.pth"
    trainer = {
        "config": {"prog_it": 0},
        "var_wo_ddp": state(torch, 1),
        "vae_local": state(torch, 2),
        "var_opt": {},
    }
    torch.save({"epoch": 1, "iter": 0, "trainer": trainer, "args": collections.OrderedDict(depth=16)}, path)
    assert files.read(path, member="generator")["a"][0] == 1
    assert files.read(path, member="tokenizer")["a"][0] == 2
    with pytest.raises(UserError, match="expected member to be one of generator, tokenizer, found None"):
        files.read(path)
    with pytest.raises(UserError, match="expected ema weights"):
        files.read(path, "ema", member="generator")
    torch.save({"trainer": {"var_wo_ddp": state(torch, 1)}}, path)
    with pytest.raises(UserError, match="expected vae_local in trainer, found var_wo_ddp"):
        files.read(path, member="tokenizer")


def test_parameters_and_strides(tmp_path, torch):
    x = torch.arange(6.0).reshape(2, 3)
    torch.save({"p": torch.nn.Parameter(x), "t": x.T, "part": x[1]}, tmp_path / "w.pt")
    assert_same(files.read(tmp_path / "w.pt"), {"p": x.numpy(), "t": x.numpy().T, "part": x.numpy()[1]})


@pytest.mark.parametrize("legacy", [False, True])
def test_malice(tmp_path, torch, legacy):
    marker = tmp_path / "marker"
    path = tmp_path / "w.pth"
    content = {"model": state(torch, 1), "args": Malice(marker)}
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    with pytest.raises(
        UserError, match=r"w\.pth: refused, since it asks for \w+\.mkdir,.*nothing in it was run"
    ) as e:
        files.read(path)
    message(e)
    assert not marker.exists()
    torch.load(path, weights_only=False)
    assert marker.exists()  # the file is what it is meant to be


def test_malice_hidden(tmp_path, torch):
    """Reached through an allowed name, and in a pickle that PyTorch did not write."""
    marker = tmp_path / "marker"
    path = tmp_path / "w.pth"
    torch.save({"model": state(torch, 1), "args": argparse.Namespace(x=Malice(marker))}, path)
    with pytest.raises(UserError, match="refused"):
        files.read(path)
    for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
        path.write_bytes(pickle.dumps(Malice(marker), protocol))
        with pytest.raises(UserError) as error:
            files.read(path)
        message(error)
    torch.save(torch.nn.Linear(1, 1), path)
    with pytest.raises(UserError, match=r"asks for torch\.nn\.modules\.linear\.Linear"):
        files.read(path)
    assert not marker.exists()


def test_legacy_damaged(tmp_path, torch):
    path = tmp_path / "w.pth"
    torch.save({"a": torch.ones(1000)}, path, _use_new_zipfile_serialization=False)
    whole = path.read_bytes()
    for length in (1, 2, 20, len(whole) // 2, len(whole) - 3):
        path.write_bytes(whole[:length])
        with pytest.raises(
            UserError, match="expected a PyTorch file, found a truncated or damaged one"
        ) as error:
            files.read(path)
        message(error)


def test_no_torch(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    (tmp_path / "w.pth").write_bytes(b"PK\3\4")
    with pytest.raises(UserError, match=r"pip install 'vargen\[torch\]'") as error:
        files.read(tmp_path / "w.pth")
    message(error)
    with pytest.raises(UserError, match=r"pip install 'vargen\[torch\]'"):
        files.write(tmp_path / "out.pt", arrays())
    assert os.listdir(tmp_path) == ["w.pth"]


# --- writing ---


def test_written_for_torch(tmp_path, torch):
    from safetensors.torch import load_file

    files.write(tmp_path / "w.pth", arrays())
    files.write(tmp_path / "w.safetensors", arrays())
    for tensors in (torch.load(tmp_path / "w.pth", weights_only=True), load_file(tmp_path / "w.safetensors")):
        assert type(tensors) is dict
        assert_same({n: t.numpy() for n, t in tensors.items()}, arrays())
    with safe_open(tmp_path / "w.safetensors", framework="np") as file:
        assert file.metadata() == {"format": "pt"}


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
    for name in ("w.model", "w", "w.ckpt"):
        with pytest.raises(
            UserError, match=r"ends in \.safetensors, \.npz, \.pth, \.pt, \.bin, found"
        ) as error:
            files.write(tmp_path / name, arrays())
        message(error)
    assert not os.listdir(tmp_path)


# --- our own parameters ---


def params():
    kernel = jnp.arange(6.0).reshape(2, 3)
    return {"a": {"kernel": kernel, "half": kernel.astype(jnp.bfloat16)}, "b": {"c": {"n": jnp.arange(3)}}}


def test_written_as_the_authors_programs_ask(tmp_path):
    """Under the names that they look up; a reader takes either."""
    torch = pytest.importorskip("torch")
    path = tmp_path / "a.pth"
    files.write(path, {"w": np.ones(3, np.float32)}, ("model", "model_ema"))
    assert {k: list(v) for k, v in torch.load(path, weights_only=True).items()} == {
        "model": ["w"],
        "model_ema": ["w"],
    }
    for weights in ("auto", "ema", "plain"):
        np.testing.assert_array_equal(files.read(path, weights)["w"], np.ones(3))
