"""PyTorch's own files: what is read of them, and that nothing in them runs."""

import argparse
import collections
import os
import pathlib
import pickle
import sys

import ml_dtypes
import numpy as np
import pytest
from safetensors import safe_open
from weight_files import Malice, arrays, assert_same, message

from vargen.errors import UserError
from vargen.interop import files


@pytest.fixture
def torch():
    return pytest.importorskip("torch")


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
        ({"state_dict": one, "ema_state_dict": two, **junk}, "auto", 2),
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
        ({"model": one}, "ema", r"expected ema weights \(model_ema or ema or ema_state_dict\), found model"),
        ({"ema": one}, "plain", "expected plain weights .*, found ema"),
        ({"net": one, "epoch": 3}, "auto", "expected a dict of weights, found net, epoch"),
        ({}, "auto", "found nothing"),
        ([1, 2], "auto", "expected a dict of weights, found list"),
    ):
        torch.save(content, path, _use_new_zipfile_serialization=not legacy)
        with pytest.raises(UserError, match=match) as error:
            files.read(path, weights)
        message(error)


def test_averages_beside_plain_weights(tmp_path, torch):
    """Under names without dots, as latent diffusion's trainer keeps them; what has none is what it is."""
    plain = {"a.b.weight": torch.zeros(2), "a.b.bias": torch.zeros(1), "norm.mean": torch.full((1,), 3.0)}
    averages = {"model_ema.abweight": torch.ones(2), "model_ema.abbias": torch.ones(1)}
    counts = {"model_ema.decay": torch.tensor(0.999), "model_ema.num_updates": torch.tensor(7)}
    torch.save({"state_dict": plain | averages | counts, "epoch": 3}, tmp_path / "last.ckpt")
    for weights, expected in (("auto", 1), ("ema", 1), ("plain", 0)):
        found = files.read(tmp_path / "last.ckpt", weights)
        assert {k: v.tolist() for k, v in found.items()} == {
            "a.b.weight": [expected] * 2,
            "a.b.bias": [expected],
            "norm.mean": [3],
        }
    torch.save({"state_dict": plain}, tmp_path / "last.ckpt")
    with pytest.raises(UserError, match="expected ema weights .*, found state_dict"):
        files.read(tmp_path / "last.ckpt", "ema")


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


def test_written_for_torch(tmp_path, torch):
    from safetensors.torch import load_file

    files.write(tmp_path / "w.pth", arrays())
    files.write(tmp_path / "w.safetensors", arrays())
    for tensors in (torch.load(tmp_path / "w.pth", weights_only=True), load_file(tmp_path / "w.safetensors")):
        assert type(tensors) is dict
        assert_same({n: t.numpy() for n, t in tensors.items()}, arrays())
    with safe_open(tmp_path / "w.safetensors", framework="np") as file:
        assert file.metadata() == {"format": "pt"}


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
