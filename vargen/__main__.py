"""Where the command `vargen` starts, and `python -m vargen`."""

from __future__ import annotations

import sys


def main() -> int:
    """The command line; Ctrl-C while its modules are imported ends it as quietly as later."""
    try:
        from vargen.cli import main as command
    except KeyboardInterrupt:
        print("vargen: interrupted", file=sys.stderr)
        return 130
    return command.main()


if __name__ == "__main__":
    sys.exit(main())
