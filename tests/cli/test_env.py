"""`vargen env`: what it prints, and what not."""

import json
import os
import pathlib
import platform

import pytest

from vargen.cli import env, main

ROOT = pathlib.Path(__file__).parents[2]
CONFIG = str(ROOT / "configs" / "var.py")


def test_json_and_the_resolved_config(capsys, monkeypatch):
    monkeypatch.setenv("VARGEN_NOTE", "two\nlines")
    assert main.main(["env", "--json", "--config", CONFIG, "--config.training.steps=7"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["config"]["training"]["steps"] == 7
    assert found["versions"].keys() >= {"vargen", "jax", "numpy"}
    assert found["devices"].startswith("cpu: ")
    assert found["variables"]["VARGEN_NOTE"] == "two\nlines"
    assert main.main(["env", "--config", CONFIG, "--config.training.steps=7"]) == 0
    printed = capsys.readouterr().out
    assert '"steps": 7' in printed and "VARGEN_NOTE: two lines\n" in printed


@pytest.mark.parametrize(
    "name", ["VARGEN_API_KEY", "JAX_TOKEN", "TPU_SECRET_1", "XLA_PASSWORD", "VARGEN_key"]
)
def test_secrets_are_not_printed(name):
    found = env.variables({name: "hush", "JAX_PLATFORMS": "cpu", "HOME": "/root"})
    assert found == {name: "(set)", "JAX_PLATFORMS": "cpu"}


@pytest.mark.parametrize(
    "flags, word",
    [
        (["--config", "none.py"], "none.py"),
        (["--config", CONFIG, "--config.seed=x"], "seed"),
        (["--workdir", ""], "--workdir"),
    ],
)
def test_a_wrong_config_is_said_first(flags, word, capsys, monkeypatch):
    monkeypatch.setattr(env, "environment", lambda: pytest.fail("looked around first"))
    assert main.main(["env", *flags]) == 2
    said = capsys.readouterr()
    assert (said.out, said.err.count("\n")) == ("", 1) and word in said.err


def test_the_machine_in_words(tmp_path):
    file = tmp_path / "cpuinfo"
    file.write_text("processor\t: 0\nmodel name\t: A Chip: 2 @ 3 GHz\nmodel name\t: another\n")
    assert env.processor(file) == "A Chip: 2 @ 3 GHz"
    assert env.machine("", 1, "A Chip") == "1 CPU core of A Chip"
    assert env.machine("1 x NVIDIA H100", 16, "") == "1 x NVIDIA H100, 16 CPU cores"
    file.write_text("processor\t: 0\n")  # as of an ARM
    assert env.processor(file) == env.processor(tmp_path / "none") == platform.processor()
    found = env.environment()
    assert (found["processor"], found["cores"]) == (env.processor(), str(env.cores()))


def test_a_broken_driver_is_part_of_the_report(monkeypatch):
    import jax

    def broken():
        raise AssertionError

    monkeypatch.setattr(jax, "devices", broken)
    assert env.environment()["devices"] == "none: AssertionError"
    assert os.environ.get("JAX_PLATFORMS") == "cpu"
