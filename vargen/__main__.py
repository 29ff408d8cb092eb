"""Where the command `vargen` starts, and `python -m vargen`."""

from __future__ import annotations

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
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # Python's own end would show a traceback
    return code


if __name__ == "__main__":
    sys.exit(main())
