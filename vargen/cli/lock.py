"""One run at a time in a workdir: a lock that says who holds it, and that dies with its holder."""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

from vargen import paths
from vargen.errors import UserError

NAME = ".lock"
# In a bucket there is no kernel that would open a dead holder's lock: it is renewed, and dead when it isn't.
RENEW, DEAD = 20.0, 120.0  # seconds


@contextlib.contextmanager
def hold(workdir: paths.PathLike, command: str) -> Iterator[None]:
    """Holds the lock of a workdir, which is made where it is missing.

    Args:
      workdir: of this machine: the kernel opens the lock when its holder ends, however. In a bucket: it counts as open
        when it wasn't renewed for two minutes.
      command: what holds it, for the message to others.

    Raises:
      UserError: another run holds it; the message says which host, process and since when.
    """
    where = paths.path(workdir, "--workdir")
    where.mkdir(parents=True, exist_ok=True)
    with (_lease if paths.is_remote(where) else _flock)(where / NAME, command):
        yield


def _text(command: str) -> str:
    since = datetime.datetime.now().astimezone().isoformat(timespec="seconds")
    return json.dumps(dict(host=socket.gethostname(), process=os.getpid(), command=command, since=since))


def _refuse(where: Any, text: str) -> UserError:
    try:
        found = json.loads(text)
        who = f"{found['command']} on {found['host']}, process {found['process']}, since {found['since']}"
    except (ValueError, KeyError, TypeError):
        who = "another run"
    return UserError(f"workdir {where.parent}: expected one run at a time, found {who}")


@contextlib.contextmanager
def _flock(where: Any, command: str) -> Iterator[None]:
    import fcntl

    with open(
        where, "a+", encoding="utf-8", errors="replace"
    ) as file:  # never deleted: another may have it open
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise _refuse(where, file.read()) from None
        except OSError as error:
            print(
                f"workdir {where.parent}: cannot be locked here ({error.strerror}); start one run at a time"
            )
        file.seek(0)
        file.truncate()
        file.write(_text(command) + "\n")
        file.flush()
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                file.seek(0)
                file.truncate()
                file.flush()


def _held(where: Any) -> dict[str, Any]:
    """The lease that lies there; {} where there is none, or none that can be read."""
    try:
        found = json.loads(where.read_bytes())
        return found if isinstance(found, dict) else {}
    except (FileNotFoundError, ValueError, RecursionError):
        return {}


@contextlib.contextmanager
def _lease(where: Any, command: str) -> Iterator[None]:
    mine = dict(json.loads(_text(command)), lease=os.urandom(8).hex())
    found = _held(where)
    renewed = found.get("renewed")
    if isinstance(renewed, (int, float)) and time.time() - renewed < DEAD:
        raise _refuse(where, json.dumps(found))
    ended = threading.Event()

    def own() -> bool:
        return _held(where).get("lease") == mine["lease"]

    def renew() -> None:
        paths.write_text(where, json.dumps(dict(mine, renewed=time.time())))

    def keep() -> None:
        while not ended.wait(RENEW):
            with contextlib.suppress(OSError):  # a bucket out of reach for a moment
                if not own():  # it had lapsed, as of a machine that slept, and another run took it
                    print(f"workdir {where.parent}: another run has taken its lock; stopping", flush=True)
                    signal.raise_signal(signal.SIGTERM)
                    return
                renew()

    renew()
    # Two that begin at the same moment both write: the last one keeps it.
    time.sleep(1.0)
    if not own():
        raise _refuse(where, json.dumps(_held(where)))
    thread = threading.Thread(target=keep, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        with contextlib.suppress(OSError):
            if own():
                where.unlink(missing_ok=True)
