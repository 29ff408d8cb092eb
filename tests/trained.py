"""What is trained once, for all tests and workers of a run."""

import contextlib
import fcntl
import io
import os
import pathlib
import subprocess
import sys
from typing import NamedTuple

import commands
import pytest


class Trained(NamedTuple):
    """A workdir of `vargen train`, to be copied and not to be changed, and what the command printed."""

    workdir: pathlib.Path
    printed: str


@contextlib.contextmanager
def once(tmp_path_factory, name: str):
    """The run's folder; no other worker is in a block of this name meanwhile."""
    root = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        root = root.parent  # the run's; each worker has a folder in it
    with open(root / f"{name}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield root


@pytest.fixture(scope="session")
def trained(tmp_path_factory) -> Trained:
    """VAR on the digits at the tiny size, `commands.tiny("var")`, on one device."""
    with once(tmp_path_factory, "trained") as root:
        workdir, printed = root / "trained", root / "trained.txt"
        if not printed.exists():
            from vargen.cli import main

            config = str(commands.ROOT / "configs" / "var.py")
            train = ["train", "--config", config, "--workdir", str(workdir), *commands.tiny("var")]
            with contextlib.redirect_stdout(io.StringIO()) as out:
                assert main.main(train) == 0
            printed.write_text(out.getvalue())
    return Trained(workdir, printed.read_text())


@pytest.fixture(scope="session")
def judged(tmp_path_factory) -> None:
    """The digits' classifier is where commands look for it; training it takes the compiler's optimisations."""
    train = (
        "from vargen import config, data, evaluation, paths; settings = config.load('var:digits').data; "
        "sources = [data.load(settings, split) for split in ('train', 'test')]; "
        "evaluation.fit(*sources, paths.cache_directory() / 'classifiers')"
    )
    with once(tmp_path_factory, "judged") as root:
        if not (root / "judged").exists():
            environment = dict(os.environ, JAX_DISABLE_MOST_OPTIMIZATIONS="0")
            subprocess.run([sys.executable, "-c", train], cwd=commands.ROOT, env=environment, check=True)
            (root / "judged").touch()
