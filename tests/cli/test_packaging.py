"""What a clone is installed and driven by: pyproject, Makefile, CI script."""

import importlib
import os
import pathlib
import subprocess
import tomllib

import pytest

ROOT = pathlib.Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def test_console_script_exists():
    module, name = PROJECT["project"]["scripts"]["vargen"].split(":")
    assert callable(getattr(importlib.import_module(module), name))


def test_extras():
    extras = PROJECT["project"]["optional-dependencies"]
    assert {"cuda12", "cuda13", "tpu", "torch", "emoji", "hub", "test"} <= set(extras)


def test_version_is_the_packages():
    import vargen

    assert PROJECT["project"]["version"] == vargen.__version__


def test_data_files_are_packaged():
    patterns = PROJECT["tool"]["setuptools"]["package-data"]
    for package, globs in patterns.items():
        folder = ROOT / package.replace(".", "/")
        assert any(list(folder.glob(pattern)) for pattern in globs), package


@pytest.mark.parametrize(
    "target", ["help", "install", "quickstart", "test", "lint", "format", "notebook", "benchmarks"]
)
def test_makefile_targets(target):
    done = subprocess.run(["make", "-n", target], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("script", ["run", "install"])
def test_scripts_run_and_parse(script):
    path = ROOT / ".ci" / script
    assert os.access(path, os.X_OK)
    assert subprocess.run(["bash", "-n", path]).returncode == 0


def test_install_refuses_an_old_python(tmp_path):
    """Names on PATH that fail, or are too old, are passed over; with none left, one line says so."""
    for name in ("python3.12", "python3.11", "python3", "python"):
        (tmp_path / name).write_text("#!/bin/sh\nexit 1\n")
        (tmp_path / name).chmod(0o755)
    for name in ("bash", "rm", "env"):
        (tmp_path / name).symlink_to(
            f"/bin/{name}" if pathlib.Path(f"/bin/{name}").exists() else f"/usr/bin/{name}"
        )
    done = subprocess.run(
        [ROOT / ".ci" / "install", tmp_path / "venv", "."],
        env={"PATH": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert "expected Python 3.11 or newer" in done.stderr
