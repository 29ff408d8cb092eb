"""Where files are: on a disk or in a bucket (gs://, s3://), behind one kind of path; and writing them whole.

Every path that a user names comes through `path`. Everything written appears under its name whole or not at all:
single files by `replacing`, directories by `new_directory`.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import hashlib
import importlib.util
import logging
import os
import pathlib
import shutil
import socket
import tempfile
import uuid
from collections.abc import Iterator
from typing import Any

from etils import epath

from vargen.errors import UserError

Path = epath.Path
PathLike = str | os.PathLike[str]

REMOTE = ("gs://", "s3://")
PARTIAL = ".partial"  # the suffix of what is being written
ASIDE = "-old"  # before it: what is about to be replaced
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)


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
        _needs(given, name)
        return epath.Path(given)
    if given.startswith("hf://"):
        raise UserError(
            f"{name}: expected a path of this machine, gs:// or s3://, found {given!r}; from the hub come models and "
            "weights alone, and `vargen push` writes there"
        )
    scheme, found, _ = given.partition(":/")
    if found and scheme.isalnum() and not os.path.exists(given):
        raise UserError(f"{name}: expected a path of this machine, gs:// or s3://, found {given!r}")
    try:
        return epath.Path(pathlib.Path(given).expanduser())
    except RuntimeError as error:
        raise UserError(f"{name}: expected a path, found the home of no user in {given!r}") from error


@functools.cache
def _package(module: str) -> bool:
    # Without credentials it says so at every call, and goes on.
    logging.getLogger("gcsfs").setLevel(logging.ERROR)
    return importlib.util.find_spec(module) is not None


def _needs(given: str, name: str) -> None:
    """Raises UserError where a bucket is not named, or its package is missing."""
    scheme, _, rest = given.partition("://")
    module, extra = dict(gs=("gcsfs", "gcs"), s3=("s3fs", "s3"))[scheme]
    if not rest.partition("/")[0]:
        raise UserError(f"{name}: expected {scheme}://BUCKET/..., found {given!r}")
    if not _package(module):
        raise UserError(
            f"{name}: {given!r} needs the package {module}, found none: pip install 'vargen[{extra}]'"
        )


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


def check_directory(where: PathLike) -> None:
    """Checks that a directory is there, or can be made, and takes files; leaves things as they are.

    Raises:
      OSError: it can't, with its name. (Of a bucket it is found out by writing.)
    """
    if is_remote(where):
        return
    directory = pathlib.Path(where)
    missing = [p for p in (directory, *directory.parents) if not p.exists()]
    try:
        directory.mkdir(parents=True, exist_ok=True)
        try:
            tempfile.TemporaryFile(dir=directory).close()
        except OSError as error:
            error.filename = os.fspath(directory)
            raise
    finally:
        for made in missing:
            with contextlib.suppress(OSError):
                made.rmdir()


def text(name: str) -> str:
    """A name of the disk or the command line, the same in every locale; bytes that aren't UTF-8 stay as surrogates."""
    try:
        return os.fsencode(name).decode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # it doesn't come from there
        return name


def size_and_time(where: PathLike) -> tuple[int, int]:
    """Bytes of a file, and when it was written: nanoseconds on a disk, seconds in a bucket.

    Raises:
      OSError: no file there.
    """
    if is_remote(where):
        found = epath.Path(where).stat()
        return found.length, int(found.mtime or 0)
    local = os.stat(where)
    return local.st_size, local.st_mtime_ns


@contextlib.contextmanager
def replacing(where: PathLike) -> Iterator[pathlib.Path]:
    """A local file to write, which takes the place of `where` if the block ends well and is gone if not.

    Folders above are made. In a bucket the file is sent whole at the end.
    """
    where = path(where)
    if is_remote(where):
        with tempfile.TemporaryDirectory() as folder:
            local = pathlib.Path(folder) / where.name
            yield local
            _send(local, where)
        return
    temporary = _partial(where)
    where.parent.mkdir(parents=True, exist_ok=True)
    try:
        with _named(temporary, where):
            temporary.touch()
            mode = temporary.stat().st_mode
            yield temporary
            temporary.chmod(mode)  # some writers would keep others from reading it
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
            os.replace(temporary, where)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def _named(temporary: pathlib.Path, where: Any) -> Iterator[None]:
    """An OSError about a temporary name says the name that a user knows."""
    try:
        yield
    except OSError as error:
        unnamed = error.filename is None and error.errno in FULL  # of writing to an open file
        if unnamed or os.fspath(temporary) in str(error.filename):
            error.filename, error.filename2 = os.fspath(where), None
        raise


def write_bytes(where: PathLike, data: bytes) -> None:
    """Writes a file that appears whole or not at all."""
    with replacing(where) as file:
        file.write_bytes(data)


def write_text(where: PathLike, text: str) -> None:
    """Writes a file of UTF-8 text that appears whole or not at all; bytes of names that aren't text are escaped."""
    write_bytes(where, text.encode("utf-8", "backslashreplace"))


@contextlib.contextmanager
def new_directory(where: PathLike, last: str = "") -> Iterator[pathlib.Path]:
    """A local directory to fill, which takes the place of `where` if the block ends well and is gone if not.

    A directory of that name is replaced. In a bucket, where no directory appears at once, `last` is sent last: the
    file without which the others count for nothing.
    """
    where = path(where)
    if is_remote(where):
        with tempfile.TemporaryDirectory() as folder:
            local = pathlib.Path(folder)
            yield local
            if where.exists():
                (where / last).unlink(missing_ok=True)
                where.rmtree()
            files = sorted(f for f in local.rglob("*") if f.is_file())
            for file in sorted(files, key=lambda f: f.name == last):
                _send(file, where / file.relative_to(local).as_posix())
        return
    temporary, aside = _partial(where), _partial(where, ASIDE)
    try:
        with _named(temporary, where):
            temporary.mkdir(parents=True)
            yield temporary
            if where.exists():
                os.rename(where, aside)
            try:
                os.rename(temporary, where)
            except OSError:
                if aside.exists():
                    os.rename(aside, where)
                raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.rmtree(aside, ignore_errors=True)


def _send(local: pathlib.Path, where: epath.Path) -> None:
    with local.open("rb") as old, where.open("wb") as new:
        shutil.copyfileobj(old, new, 1 << 22)


def local(where: PathLike) -> pathlib.Path:
    """A file of this machine with the content of `where`: itself, or a copy of a file in a bucket.

    Copies are kept by path, size and time, in the cache directory (XDG_CACHE_HOME), for readers that map files into
    memory or know no buckets.
    """
    where = path(where)
    if not is_remote(where):
        return pathlib.Path(where)
    stat = where.stat()
    name = hashlib.sha256(f"{where} {stat.length} {stat.mtime}".encode()).hexdigest()[:24]
    copy = cache_directory() / "files" / f"{name}-{where.name}"
    if not copy.is_file() or copy.stat().st_size != stat.length:
        with replacing(copy) as temporary, where.open("rb") as old, temporary.open("wb") as new:
            shutil.copyfileobj(old, new, 1 << 22)
    return copy


def cache_directory() -> pathlib.Path:
    """Where copies and what is known of them are kept between runs: ~/.cache/vargen, by XDG_CACHE_HOME."""
    return pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache") / "vargen"


def sweep(directory: PathLike) -> None:
    """Deletes what dead processes of this machine left half-written in a directory.

    One that died between moving an old directory aside and putting the new one in its place: the old one is put back.
    """
    if is_remote(directory):
        return  # nothing is half-written there
    for found in sorted(path(directory).glob(f".*{PARTIAL}")):
        name, _, rest = found.name.removesuffix(PARTIAL).rpartition("@")
        host, _, process = rest.partition("-")
        number = process.partition("-")[0]
        if host != _host() or (number.isascii() and number.isdigit() and _alive(int(number))):
            continue
        with contextlib.suppress(OSError):
            if process.endswith(ASIDE) and not (original := found.with_name(name[1:])).exists():
                os.rename(found, original)
                continue
        shutil.rmtree(found, ignore_errors=True)
        with contextlib.suppress(OSError):
            found.unlink(missing_ok=True)


def _partial(where: Any, kind: str = "") -> pathlib.Path:
    """A name beside `where` that says who is writing, and is nobody else's."""
    name = f".{where.name[:100]}@{_host()}-{os.getpid()}-{uuid.uuid4().hex[:8]}{kind}{PARTIAL}"
    return pathlib.Path(where.with_name(name))


def _host() -> str:
    return socket.gethostname().replace("-", "_")


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True
