"""Where the command `vargen` starts, and `python -m vargen`."""

from __future__ import annotations

import os
import signal
import sys


def main() -> int:
    """The command line. Ctrl-C ends it quietly also while its modules are imported."""
    try:
        from vargen.cli import main as command

        code = command.main()
    except KeyboardInterrupt:
        print("vargen: interrupted", file=sys.stderr, flush=True)
        code = 128 + signal.SIGINT
    if code > 128:
        os._exit(code)  # Python's own end waits for threads, and shows what a second Ctrl-C interrupts
    return code


if __name__ == "__main__":
    sys.exit(main())
