"""Puts the configs into the package when it is built; everything else is declared in pyproject.toml."""

import pathlib
import shutil

import setuptools
from setuptools.command.build_py import build_py


class WithConfigs(build_py):
    """`configs/` becomes `vargen/configs/`: one copy in the repository, and a wheel that is enough."""

    def run(self):
        super().run()
        if not self.editable_mode:
            inside = pathlib.Path(self.build_lib, "vargen", "configs")
            inside.mkdir(parents=True, exist_ok=True)
            found = list(pathlib.Path("configs").glob("*.py"))
            assert found, "expected the folder configs beside setup.py"
            for file in found:
                shutil.copy(file, inside)


setuptools.setup(cmdclass={"build_py": WithConfigs})
