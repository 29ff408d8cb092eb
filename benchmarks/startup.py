"""Seconds of `import vargen` and of `vargen --help`, in fresh processes.

    python -m benchmarks.startup

Writes results/startup.json.
"""

from __future__ import annotations

import subprocess
import sys

from benchmarks import timing


def main() -> None:
    """Runs the benchmark."""

    def run(*command: str):
        return lambda: subprocess.run([sys.executable, *command], check=True, stdout=subprocess.DEVNULL)

    commands = {
        "python": run("-c", "pass"),
        "import_vargen": run("-c", "import vargen"),
        "vargen_load": run("-c", "import vargen; vargen.load"),
        "help": run("-m", "vargen.cli.main", "--help"),
    }
    times = timing.interleaved(commands, 5)
    timing.save("startup", {name: dict(first=t["first"], warm=t["warm"]) for name, t in times.items()})


if __name__ == "__main__":
    main()
