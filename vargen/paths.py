"""Where files are: on a disk or in a bucket (gs://, s3://), behind one kind of path; and writing them whole.

Every path that a user names comes through `path`. Everything written appears under its name whole or not at all:
single files by `replacing`, directories by `new_directory`.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import shutil
import socket
import uuid
from collections.abc import Iterator
from typing import Any

from etils import epath

from vargen.errors import UserError

Path = epath.Path
PathLike = str | os.PathLike[str]

REMOTE = ("gs://", "s3://")
PARTIAL = ".partial"  # the suffix of what is being written


def path(text: PathLike, name: str = "path") -> epath.Path:
    """The path that a user named, `~` expanded.

    Args:
      text: a path of this machine, or gs://BUCKET/..., s3://BUCKET/...
      name: what it is called in messages, such as "--workdir".

    Raises:
      UserError: an empty path, another scheme, a home that doesn't exist.
    """
    if not isinstance(text, (str, os.PathLike)):
        raise UserError(f"{name}: expected a path, found {text!r:.80}")
    given = os.fspath(text)
    if not given.strip():
        raise UserError(f"{name}: expected a path, found {given!r}")
    if "\0" in given:
        raise UserError(f"{name}: expected a path, found one with a zero byte: {given!r}")
    if given.startswith(REMOTE):
        return epath.Path(given)
    scheme, found, _ = given.partition(":/")
    if found and scheme.isalnum() and not os.path.exists(given):
        raise UserError(f"{name}: expected a path of this machine, gs:// or s3://, found {given!r}")
    try:
        return epath.Path(pathlib.Path(given).expanduser())
    except RuntimeError as error:
        raise UserError(f"{name}: expected a path, found the home of no user in {given!r}") from error


def absolute(text: PathLike, name: str = "path") -> epath.Path:
    """`path`, from the root."""
    found = path(text, name)
    return found if is_remote(found) else epath.Path(os.path.abspath(found))


def is_remote(where: PathLike) -> bool:
    """Whether a path is in a bucket."""
    return os.fspath(where).startswith(REMOTE)


def is_file(where: PathLike) -> bool:
    """Whether a plain file is there: not a directory, nor a pipe or a device, of which reading may never end."""
    return epath.Path(where).is_file() if is_remote(where) else os.path.isfile(where)


@contextlib.contextmanager
def replacing(where: PathLike) -> Iterator[pathlib.Path]:
    """A local file to write, which takes the place of `where` if the block ends well and is gone if not.

    Folders above are made.
    """
    where = path(where)
    temporary = _partial(where)
    where.parent.mkdir(parents=True, exist_ok=True)
    try:
        temporary.touch()
        mode = temporary.stat().st_mode
        yield temporary
        temporary.chmod(mode)  # some writers would keep others from reading it
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, where)
    finally:
        temporary.unlink(missing_ok=True)


def write_bytes(where: PathLike, data: bytes) -> None:
    """Writes a file that appears whole or not at all."""
    with replacing(where) as file:
        file.write_bytes(data)


def write_text(where: PathLike, text: str) -> None:
    """Writes a file of UTF-8 text that appears whole or not at all."""
    write_bytes(where, text.encode())


@contextlib.contextmanager
def new_directory(where: PathLike) -> Iterator[pathlib.Path]:
    """A local directory to fill, which takes the place of `where` if the block ends well and is gone if not.

    A directory of that name is replaced.
    """
    where = path(where)
    temporary = _partial(where)
    temporary.mkdir(parents=True)
    try:
        yield temporary
        aside = _partial(where)
        if where.exists():
            os.rename(where, aside)
        os.rename(temporary, where)
        shutil.rmtree(aside, ignore_errors=True)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def sweep(directory: PathLike) -> None:
    """Deletes what dead processes of this machine left half-written in a directory."""
    for found in path(directory).glob(f".*{PARTIAL}"):
        host, _, process = found.name.removesuffix(PARTIAL).rpartition("@")[2].partition("-")
        alive = process.partition("-")[0].isdigit() and _alive(int(process.partition("-")[0]))
        if host == _host() and not alive:
            shutil.rmtree(found, ignore_errors=True)
            with contextlib.suppress(OSError):
                found.unlink(missing_ok=True)


def _partial(where: Any) -> pathlib.Path:
    """A name beside `where` that says who is writing, and is nobody else's."""
    name = f".{where.name[:100]}@{_host()}-{os.getpid()}-{uuid.uuid4().hex[:8]}{PARTIAL}"
    return pathlib.Path(where.with_name(name))


def _host() -> str:
    return socket.gethostname().replace("-", "_")


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
