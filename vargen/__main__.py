"""Where the command `vargen` starts, and `python -m vargen`."""

from __future__ import annotations

import os
import signal
import sys


def main() -> int:
    """The command line. Ctrl-C ends it quietly also while its modules are imported, and when it is done."""
    try:
        from vargen.cli import main as command

        code = command.main()
    except KeyboardInterrupt:
        print("vargen: interrupted", file=sys.stderr)
        code = 128 + signal.SIGINT
    if signal.getsignal(signal.SIGINT) == signal.default_int_handler:
        # Python's own end would show a traceback.
        signal.signal(signal.SIGINT, lambda number, frame: os._exit(code or 128 + number))
    return code


if __name__ == "__main__":
    sys.exit(main())
