"""A tokenizer without training: what `vargen train` and `vargen tokenize` do with it."""

import json

import numpy as np
import pytest
from commands import ROOT, tiny

from vargen.cli import main
from vargen.data import codes
from vargen.tokenizers.jpeg import STOP
from vargen.training import checkpoints

CONFIG = ROOT / "configs" / "jpeglm.py"
MERGES = "--config.tokenizer.merges=5"


def run(*arguments, code=0):
    assert main.main([str(a) for a in arguments]) == code


@pytest.mark.slow
def test_fitted_once_and_anew_where_the_config_differs(tmp_path, capsys):
    where = tmp_path / "w"
    train = ["train", "--config", CONFIG, "--workdir", where, *tiny("jpeglm"), "--stage", "tokenizer"]
    run(*train, MERGES)
    assert "tokenizer jpeg: nothing to train" in capsys.readouterr().out
    config, params, step = checkpoints.load_params(where / "tokenizer")
    merges = np.asarray(params["quantizer"]["merges"])
    assert (
        merges.shape == (5, 2) and merges.dtype == np.int32 and step == 0 and config.tokenizer.quality == 10
    )
    # A restart marker's two bytes stand between all blocks: they are the commonest of all.
    assert merges[:3].tolist() == [[0xFF, 0xD0], [0xFF, 0xD1], [0xFF, 0xD2]]
    before = (where / "tokenizer" / checkpoints.WEIGHTS).stat().st_mtime_ns
    run(*train, MERGES, "--config.training.steps=3")
    assert (where / "tokenizer" / checkpoints.WEIGHTS).stat().st_mtime_ns == before
    assert not (where / "generator").exists()

    # With room for some pictures alone, the others are left out and counted.
    room = [f"--config.tokenizer.{field}" for field in ("length=36", "slots=0", "merges=0")]
    run(*train, *room)
    assert not checkpoints.load_params(where / "tokenizer")[1]["quantizer"]["merges"].size
    capsys.readouterr()
    run("tokenize", "--workdir", where, "--config", CONFIG, *tiny("jpeglm"), *room)
    said = [line for line in capsys.readouterr().out.splitlines() if "left out" in line]
    stored = codes.load(where / "codes")
    content = stored.gather(np.arange(len(stored)))["content"]
    assert said == [f"{1437 - len(stored)} of them take more than 36 codes and are left out"]
    assert 300 < len(stored) < 1300 and content.shape[1] == 37 and np.all(content[:, -1] == STOP)

    small = ["--config", CONFIG, *tiny("jpeglm"), *room, "--config.tokenizer.length=5"]
    run("tokenize", "--workdir", where, *small, code=2)
    error = capsys.readouterr().err
    assert "expected pictures of less than 6 codes, found none" in error and error.count("\n") == 1
    assert len(codes.load(where / "codes")) == len(stored), "what was there stays"
    assert json.loads((where / "tokenizer" / "config.json").read_text())["tokenizer"]["length"] == 36
