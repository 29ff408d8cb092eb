"""A model that is trained once, for all tests and workers of a run."""

import contextlib
import fcntl
import io
import os
import pathlib
from typing import NamedTuple

import commands
import pytest


class Trained(NamedTuple):
    """A workdir of `vargen train`, to be copied and not to be changed, and what the command printed."""

    workdir: pathlib.Path
    printed: str


@pytest.fixture(scope="session")
def trained(tmp_path_factory) -> Trained:
    """VAR on the digits at the tiny size, `commands.tiny("var")`, on one device."""
    root = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        root = root.parent  # the run's; each worker has a folder in it
    workdir, printed = root / "trained", root / "trained.txt"
    with open(root / "trained.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not printed.exists():
            from vargen.cli import main

            with contextlib.redirect_stdout(io.StringIO()) as out:
                config = commands.ROOT / "configs" / "var.py"
                arguments = [
                    "train",
                    "--config",
                    str(config),
                    "--workdir",
                    str(workdir),
                    *commands.tiny("var"),
                ]
                assert main.main(arguments) == 0
            printed.write_text(out.getvalue())
    return Trained(workdir, printed.read_text())
