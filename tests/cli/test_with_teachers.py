"""Training with a teacher's file, and what is said where there is none. Nothing needs the file afterwards."""

import pathlib

import numpy as np
import pytest
from commands import ROOT, TINY, rows
from safetensors.numpy import save_file

from vargen.cli import main

CONFIG = ROOT / "configs" / "tokenizers.py"
FIELDS = [f"--config.{field}" for field in TINY if not field.startswith("tokenizer.encoder.width")]
GOLDEN = ROOT / "tests" / "goldens" / "teacher_siglip.npz"
SIZES = dict(side=16, patch=4, width=16, layers=2, heads=2, hidden=24, places=3)  # the golden's
PLACES = dict(teacher_kmeans="tokenizer.teacher", semantic="tokenizer_training.losses.teacher")


def options(row: str, file: pathlib.Path | str) -> list[str]:
    place = f"--config.{PLACES[row]}"
    other = [f"{place}=siglip", *(f"{place}.{name}={value}" for name, value in SIZES.items())]
    own = other if row == "teacher_kmeans" else []  # beside the axes no part is swapped
    return ["--config", f"{CONFIG}:{row}", *FIELDS, *own, f"{place}.weights={file}"]


@pytest.fixture
def teacher(tmp_path):
    arrays = np.load(GOLDEN)
    file = tmp_path / "teacher.safetensors"
    save_file({k.removeprefix("sd/"): arrays[k] for k in arrays.files if k.startswith("sd/")}, file)
    return file


def run(*arguments: object) -> int:
    return main.main([str(a) for a in arguments])


@pytest.mark.slow
def test_k_means(teacher, tmp_path):
    """Fitted, then its decoder trained; then codes stored and a picture drawn without the file."""
    small = ["--config.tokenizer.vocab=16", "--config.data.test_fraction=0.1"]
    command = ["train", *options("teacher_kmeans", teacher), *small, "--workdir", tmp_path / "run"]
    assert run(*command, "--stage", "tokenizer") == 0
    last = rows(tmp_path / "run", "tokenizer")[-1]
    assert last["codebook_use"] > 0.5 and np.isfinite(last["validation_psnr_db"])
    teacher.unlink()
    assert run(*command) == 0
    out = tmp_path / "out"
    assert run("sample", "--workdir", tmp_path / "run", "--classes", "3", "--count", "1", "--out", out) == 0


@pytest.mark.slow
def test_semantic_loss(teacher, tmp_path, monkeypatch):
    """It is reported; what is kept of the tokenizer has no projection."""
    from vargen.training import checkpoints

    monkeypatch.chdir(tmp_path)
    arguments = options("semantic", teacher)
    copy = tmp_path / "tokenizers.py"
    siglip = f'TEACHER = part("siglip", weights="", **{SIZES})  # '
    copy.write_text(CONFIG.read_text().replace("TEACHER = ", siglip, 1))
    arguments[1] = f"{copy}:semantic"
    assert run("train", *arguments, "--workdir", tmp_path / "run", "--stage", "tokenizer") == 0
    assert all(0 < row["semantic"] < 2 for row in rows(tmp_path / "run", "tokenizer") if "semantic" in row)
    assert "semantic" in rows(tmp_path / "run", "tokenizer")[0]
    teacher.unlink()
    _, params, _ = checkpoints.load_params(tmp_path / "run" / "tokenizer")
    assert set(params) == {"encoder", "decoder", "quantizer"}


@pytest.mark.parametrize("row", PLACES)
def test_no_file(row, tmp_path, capsys):
    for file, found in (("", "found none"), ("nowhere", "found none at nowhere")):
        assert run("train", *options(row, file), "--workdir", tmp_path / "run", "--stage", "tokenizer") == 2
        error = capsys.readouterr().err.strip().splitlines()[-1]
        assert f"config field {PLACES[row]}.weights: expected a file" in error and error.endswith(found)
        assert not (tmp_path / "run").exists()


def test_no_outer_file(tmp_path, capsys):
    """Registers over a VAE's latents."""
    config = ["--config", f"{ROOT / 'configs' / 'registers.py'}:flextok_latents", "--config.model.layers=1"]
    assert run("train", *config, "--workdir", tmp_path / "run", "--stage", "tokenizer") == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.endswith(
        "tokenizer.weights: expected the file of the outer autoencoder's parameters, found none"
    )
    assert not (tmp_path / "run").exists()
