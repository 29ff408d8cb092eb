"""What becomes of a command that fails: one line for what the user or the machine can mend, a traceback for a bug.

What an error is, is decided from the outermost inwards. An error that a library raised after it had caught another
one (a future's, a reader's, a checkpointer's) is what it caught; one that vargen raised so, or a TypeError, KeyError
and their like, is a bug whatever came before it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import select
import signal
import sys
import threading
from collections.abc import Iterator
from typing import Any, TextIO

from vargen.cli import machine
from vargen.errors import Stopped, UserError, escaped

# Nobody wraps another error in one of these on purpose.
MISTAKES = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    NameError,
    SyntaxError,
    TypeError,
    UnicodeError,
)
LONGEST = 2000  # characters of a line
BUG = (
    "this is a bug in vargen; please open an issue in its repository, with the lines above and what `vargen env` "
    "prints"
)


@dataclasses.dataclass
class Outcome:
    """How a command ended: the exit code, and the command's name for messages."""

    code: int = 0
    command: str = ""
    signalled: int = 0  # the number of the signal that came

    def say(self, text: str, code: int) -> None:
        """One line on stderr, whatever the text holds, and the exit code."""
        self.code = code
        if (hub := sys.modules.get("vargen.hub.places")) is not None:
            text = hub.shown(text)
        text = text.removeprefix(f"{self.command}: ")  # some errors name the command themselves
        with contextlib.suppress(OSError, ValueError):  # nobody listens
            print(
                f"{' '.join(['vargen', self.command]).strip()}: {one_line(text)}", file=sys.stderr, flush=True
            )


@contextlib.contextmanager
def explained() -> Iterator[Outcome]:
    """Runs a command's body; what it raises becomes an exit code and, where there is something to say, a line."""
    outcome = Outcome()
    with unbothered():
        try:
            with signals(outcome):
                yield outcome
                _flush(sys.stdout)
        except BaseException as error:
            _explain(error, outcome)
        _last_words(outcome)
    _leave_cluster(outcome.code)


def _explain(error: BaseException, outcome: Outcome) -> None:
    if isinstance(error, SystemExit):  # argparse's own
        outcome.code = error.code if isinstance(error.code, int) else 0
        if isinstance(error.code, str):
            outcome.say(error.code, 1)
        return
    inside = list(chain(error))
    number, saved = outcome.signalled, ""
    for e in inside:
        if isinstance(e, Stopped) and not outcome.signalled:  # the training loop's, which saves
            number, saved = e.signal_number, "; what was done is saved"
        elif isinstance(e, (KeyboardInterrupt, Stopped)):
            number = number or signal.SIGINT
    if number:
        name = "interrupted" if number == signal.SIGINT else f"stopped by {signal.Signals(number).name}"
        return outcome.say(name + saved, 128 + number)
    if any(isinstance(e, BrokenPipeError) for e in inside) and _hung_up(sys.stdout, sys.stderr):
        outcome.code = 128 + signal.SIGPIPE  # as `cat` does
        return
    for e in inside:
        if isinstance(e, UserError):
            return outcome.say(str(e), 2)
        if text := machine.failure(e):
            return outcome.say(_of_output(e) or text, 2)
    import traceback

    with contextlib.suppress(OSError, ValueError):
        traceback.print_exception(error)
    outcome.say(BUG, 1)


def chain(error: BaseException | None) -> Iterator[BaseException]:
    """The error, and what libraries wrapped in it, outermost first; nothing below a bug of ours."""
    seen: set[int] = set()
    waiting = [error]
    while waiting:
        error = waiting.pop(0)
        if error is None or id(error) in seen:
            continue
        seen.add(id(error))
        yield error
        if isinstance(error, BaseExceptionGroup):
            waiting += error.exceptions
        inner = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
        if inner is None or isinstance(error, UserError):
            continue
        interrupted = isinstance(inner, (KeyboardInterrupt, Stopped))
        # What a library only happened to handle, such as a file that it looked for first, is no reason.
        meant = error.__cause__ is not None or isinstance(inner, UserError)
        if interrupted or (meant and not isinstance(error, MISTAKES) and not _caught_by_us(inner)):
            waiting.append(inner)


def _caught_by_us(error: BaseException) -> bool:
    """Whether it was vargen that caught an error: its traceback begins where it was caught."""
    trace = error.__traceback__
    name = "" if trace is None else trace.tb_frame.f_globals.get("__name__", "")
    return name.partition(".")[0] == "vargen"


def one_line(text: str) -> str:
    """Text without line breaks and control characters, which names of files may hold."""
    flat = escaped(" ".join(line.strip() for line in text.splitlines()))
    half = LONGEST // 2
    return flat if len(flat) <= LONGEST else f"{flat[:half]} ... {flat[-half:]}"


def prepare_streams() -> None:
    """Names in any script can be printed, whatever the locale; those that aren't text show their bytes.

    Where a stream was closed (`>&-`) its number goes to /dev/null, else the next file that is opened would have it.
    """
    if None in (sys.stdin, sys.stdout, sys.stderr):
        while (free := os.open(os.devnull, os.O_RDWR)) <= 2:
            pass
        os.close(free)
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w"))
        elif hasattr(stream, "reconfigure"):
            with contextlib.suppress(OSError, ValueError):
                stream.reconfigure(errors="backslashreplace")


@contextlib.contextmanager
def signals(outcome: Outcome) -> Iterator[None]:
    """Ctrl-C, SIGTERM and SIGHUP end a command through its clean-up; `outcome` knows it, whatever becomes of the error.

    The training loop has a handler of its own.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: Any) -> None:
        nonlocal reminder
        outcome.signalled = number
        while frame is not None and frame.f_code is not again.__code__ and not _imports(frame):
            frame = frame.f_back
        if frame is None:
            heard.set()
            raise KeyboardInterrupt if number == signal.SIGINT else Stopped(number)
        if frame.f_code is not again.__code__ and (reminder is None or not reminder.is_alive()):
            reminder = threading.Thread(target=remind, daemon=True)
            reminder.start()

    def remind() -> None:
        while not heard.wait(0.02):
            signal.pthread_kill(main, outcome.signalled or signal.SIGINT)

    def again(unraisable: Any) -> None:
        # It came while a callback of the garbage collector ran (JAX has one), whose errors go nowhere: once more,
        # until that is over.
        if issubclass(unraisable.exc_type, (KeyboardInterrupt, Stopped)):
            heard.clear()
            threading.Thread(target=remind, daemon=True).start()
        else:
            hooks[0](unraisable)

    def quiet(kind: type[BaseException], error: BaseException, trace: Any) -> None:
        # Modules in C print what ends their import.
        if not issubclass(kind, (KeyboardInterrupt, Stopped)):
            hooks[1](kind, error, trace)

    usual = {
        signal.SIGINT: signal.default_int_handler,
        signal.SIGTERM: signal.SIG_DFL,
        signal.SIGHUP: signal.SIG_DFL,
    }
    caught = [n for n, handler in usual.items() if signal.getsignal(n) == handler]  # nohup ignores one
    main, heard = threading.main_thread().ident, threading.Event()
    reminder: threading.Thread | None = None
    hooks = sys.unraisablehook, sys.excepthook
    sys.unraisablehook, sys.excepthook = again, quiet
    for number in caught:
        signal.signal(number, stop)
    try:
        yield
    finally:
        heard.set()
        for number in caught:
            signal.signal(number, signal.SIG_IGN if number == signal.SIGINT else usual[number])
        sys.unraisablehook, sys.excepthook = hooks


def _imports(frame: Any) -> bool:
    """Whether this is an import's: modules swallow errors while they try what there is, and jaxlib's reach C++."""
    code = frame.f_code
    return code.co_name == "_find_and_load" and code.co_filename == "<frozen importlib._bootstrap>"


@contextlib.contextmanager
def unbothered() -> Iterator[None]:
    """Ctrl-C is heard in `signals` alone: a second one doesn't spoil the line that the first one brought."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGINT)
    try:
        yield
    finally:
        if before is not None:
            signal.signal(signal.SIGINT, before)


def _last_words(outcome: Outcome) -> None:
    """Writes out what waits in the streams, so that Python finds nothing to complain about when it ends."""
    try:
        _flush(sys.stdout)
    except BrokenPipeError:
        outcome.code = outcome.code or 128 + signal.SIGPIPE
    except (OSError, ValueError) as error:
        if outcome.code == 0:
            outcome.say(f"standard output: {getattr(error, 'strerror', None) or error}", 2)
    with contextlib.suppress(OSError, ValueError):
        _flush(sys.stderr)


def _flush(stream: TextIO | None) -> None:
    """Flushes a stream; one that fails goes to /dev/null from then on."""
    if stream is None or stream.closed:
        return
    try:
        stream.flush()
    except OSError:
        with contextlib.suppress(OSError, ValueError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, stream.fileno())
            os.close(nowhere)
        raise


def _of_output(error: BaseException) -> str:
    """What to say where it was standard output that failed, of which an OSError doesn't tell; else ''."""
    if not isinstance(error, OSError) or error.filename is not None:
        return ""
    try:
        _flush(sys.stdout)
    except OSError as failed:
        return f"standard output: {failed.strerror or failed}"
    return ""


def _hung_up(*streams: TextIO | None) -> bool:
    """Whether nobody reads one of these pipes any more."""
    for stream in streams:
        with contextlib.suppress(OSError, ValueError, AttributeError):
            poll = select.poll()
            poll.register(stream.fileno(), select.POLLOUT)
            if any(events & (select.POLLERR | select.POLLHUP) for _, events in poll.poll(0)):
                return True
    return False


def _leave_cluster(code: int) -> None:
    if code and (cluster := sys.modules.get("vargen.cli.cluster")) is not None:
        cluster.leave(code)
