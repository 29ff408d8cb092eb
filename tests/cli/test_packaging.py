"""What a clone is installed and driven by: pyproject, Makefile, CI script."""

import importlib
import os
import pathlib
import shutil
import subprocess
import sys
import tomllib
import zipfile

import commands
import pytest

from vargen import bundled

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


def test_own_configs_are_the_repositorys():
    """One copy: in a clone they lie beside the package."""
    assert bundled.folder() == ROOT / "configs" and not (ROOT / "vargen" / "configs").exists()
    assert 'mode = "compat"' in (ROOT / "pyproject.toml").read_text()  # no import hook, see there


@pytest.fixture(scope="module")
def fresh(tmp_path_factory):
    """A new environment, and a clone called vargen beside it."""
    folder = tmp_path_factory.mktemp("fresh")
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True)
    for name in tracked.stdout.split("\0"):
        if name and not name.startswith("tests/"):
            (folder / "vargen" / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / "vargen" / name)
    subprocess.run([sys.executable, "-m", "venv", folder / "env"], check=True)
    return folder


def inside(folder, *arguments, cwd):
    """Runs a program of the new environment; what it printed."""
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "XLA_FLAGS")}
    command = [folder / "env" / "bin" / arguments[0], *map(str, arguments[1:])]
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow  # installs all that vargen needs
def test_a_wheel_is_enough(fresh, tmp_path):
    """Built from the sources' archive, checked, installed, and used in an empty folder."""
    clone, dist = fresh / "vargen", fresh / "dist"
    inside(fresh, "pip", "install", "-q", "build", "twine", cwd=fresh)
    inside(fresh, "python", "-m", "build", "--outdir", dist, cwd=clone)
    checked = inside(fresh, "python", "-m", "twine", "check", "--strict", *dist.iterdir(), cwd=fresh)
    assert checked.count("PASSED") == 2
    (wheel,) = dist.glob("*.whl")
    packed = {name for name in zipfile.ZipFile(wheel).namelist() if name.startswith("vargen/configs/")}
    assert packed == {f"vargen/configs/{file.name}" for file in (ROOT / "configs").glob("*.py")}
    inside(fresh, "pip", "install", "-q", wheel, cwd=fresh)
    inside(fresh, "vargen", "quickstart", *commands.tiny("var"), cwd=tmp_path)
    assert (tmp_path / "runs" / "quickstart" / "report.html").is_file()
    inside(
        fresh, "vargen", "train", "--config", "mar", "--workdir", "mar", *commands.tiny("mar"), cwd=tmp_path
    )
    inside(fresh, "vargen", "sample", "--workdir", "mar", "--classes", "3", cwd=tmp_path)
    assert len(list((tmp_path / "mar" / "samples").iterdir())) == 8


@pytest.mark.slow
def test_a_clone_called_vargen_shadows_nothing(fresh):
    """From its parent folder `import vargen` is the package, not the clone's folder."""
    inside(fresh, "pip", "install", "-q", "--no-deps", "-e", fresh / "vargen", cwd=fresh)
    where = inside(fresh, "python", "-c", "import vargen; print(vargen.__file__)", cwd=fresh)
    assert pathlib.Path(where.strip()) == fresh / "vargen" / "vargen" / "__init__.py"
