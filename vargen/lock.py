"""One run at a time in a workdir: a lock that says who holds it, and that dies with its holder."""

from __future__ import annotations

import contextlib
import datetime
import json
import os
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

    with open(where, "a+") as file:  # never deleted: another may have it open
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


def _alive(text: str) -> bool:
    """Whether a lease was renewed of late."""
    try:
        return time.time() - json.loads(text)["renewed"] < DEAD
    except (ValueError, KeyError, TypeError):
        return False


@contextlib.contextmanager
def _lease(where: Any, command: str) -> Iterator[None]:
    mine = dict(json.loads(_text(command)), lease=os.urandom(8).hex())
    if where.exists() and _alive(text := where.read_text()):
        raise _refuse(where, text)
    ended = threading.Event()

    def renew() -> None:
        paths.write_text(where, json.dumps(dict(mine, renewed=time.time())))

    def keep() -> None:
        while not ended.wait(RENEW):
            with contextlib.suppress(OSError):  # a bucket out of reach for a moment
                renew()

    renew()
    # Two that begin at the same moment both write: the last one keeps it.
    time.sleep(1.0)
    text = where.read_text()
    if json.loads(text)["lease"] != mine["lease"]:
        raise _refuse(where, text)
    thread = threading.Thread(target=keep, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        with contextlib.suppress(OSError):
            where.unlink(missing_ok=True)
