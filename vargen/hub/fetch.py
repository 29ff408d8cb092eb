"""Reading from the hub: files come into the cache of huggingface_hub, whole and as the hub says they are.

The library downloads, goes on where a connection broke, shows bars and keeps the cache. What is added here: one commit
for all that a command reads, room on the disk before a download, and hashes. A file's SHA-256 (or, for small files that
git itself holds, git's SHA-1) is compared with what the hub stated when it is first read, whoever downloaded it; later
only its size and time are compared with those it had then.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import os
import pathlib
import shutil
from collections.abc import Iterable, Mapping
from typing import Any

from vargen import paths
from vargen.errors import UserError
from vargen.hub.failures import explained
from vargen.hub.places import CONFIG, FILES, NEEDED, PathLike, Place, is_hub, library, place

INDEX = ".index.json"  # ends the names of indices of weights in several files


def pin(texts: Mapping[str, PathLike]) -> dict[str, PathLike]:
    """Paths that a user named, by flag; those on the hub with the commit that their branch or tag is now.

    A revision is looked up once for all. Where the hub can't be reached, the cache tells what it was last.

    Raises:
      UserError: no such place, or the hub can't be reached and the cache doesn't know it.
    """
    found: dict[Place, str] = {}
    pinned = dict(texts)
    for name, text in texts.items():
        if is_hub(text):
            where = place(text, name)
            whole = where.at(where.revision, "")
            if whole not in found:
                found[whole] = _commit(whole)
            pinned[name] = str(where.at(found[whole]))
    return pinned


def directory(text: PathLike, name: str = "model") -> paths.Path:
    """The directory of a model that a user named: of this machine, in a bucket, or one on the hub, which is fetched.

    Raises:
      UserError: no path, or what `pin` raises; no model there, or its files cannot be had.
    """
    if not is_hub(text):
        return paths.path(text, name)
    where = _pinned(text, name)
    for file in FILES:
        if _fetched(where / file) is None and file in NEEDED:
            raise _no_model(where, file)
    return paths.path(_root(where))


def config_file(text: PathLike, name: str = "model") -> paths.Path:
    """The config of a model's directory, as `directory` would give it, without its weights.

    Raises:
      UserError: as `directory`.
    """
    if not is_hub(text):
        return paths.path(text, name) / CONFIG
    where = _pinned(text, name)
    if (found := _fetched(where / CONFIG)) is None:
        raise _no_model(where, CONFIG)
    return paths.path(found)


def weights(text: PathLike, name: str = "path") -> paths.Path:
    """The file of weights that a user named: of this machine, in a bucket, or one on the hub, which is fetched.

    On the hub: a file; an index of several, which come with it; or a folder with one index.

    Raises:
      UserError: no path, or what `pin` raises; no such file, or it cannot be had.
    """
    if not is_hub(text):
        return paths.path(text, name)
    where = _pinned(text, name)
    found = _fetched(where) if where.path else None
    if found is None:
        where = _index(where)
        found = _fetched(where)
    assert found is not None
    if where.path.endswith(INDEX):
        folder = where.at(where.revision, where.path.rpartition("/")[0])
        for shard in _shards(found):
            if _fetched(folder / shard) is None:
                raise UserError(f"{folder / shard}: expected a file, as {where} says, found none")
    return paths.path(found)


def origin(text: PathLike) -> dict[str, Any]:
    """Of a file on the hub that was read, pinned: its place, its size in bytes and SHA-256."""
    file = weights(text)
    return dict(source=os.fspath(text), bytes=os.path.getsize(file), sha256=_sha256(file))


def _pinned(text: PathLike, name: str) -> Place:
    where = place(text, name)
    return where if where.pinned else where.at(_commit(where))


def _no_model(where: Place, file: str) -> UserError:
    return UserError(
        f"{where}: expected a model of `vargen push`, found no {file}; published weights are read by `vargen import`"
    )


def _commit(where: Place) -> str:
    """The commit that a revision is now, or was when the hub was last reached."""
    if where.pinned:
        return str(where.revision)
    hub = library(str(where))
    with explained(where) as warned:
        offline = hub.constants.is_offline_mode()
        found = hub.HfApi().resolve_revision(where.repo, revision=where.revision, local_files_only=offline)
    if any("cached commit" in record.getMessage() for record in warned):
        print(f"{where}: the hub cannot be reached: {found.resolved}, which it was last, is read", flush=True)
    return found.resolved


def _root(where: Place) -> pathlib.Path:
    """The folder of a pinned place in the cache."""
    folder = library(str(where)).constants.HF_HUB_CACHE
    name = f"models--{where.repo.replace('/', '--')}"
    return pathlib.Path(folder, name, "snapshots", str(where.revision), where.path)


def _fetched(where: Place) -> pathlib.Path | None:
    """The file of a pinned place, in the cache, checked; downloaded where it isn't there. None: the hub has none."""
    hub = library(str(where))
    with explained(where):
        cached = hub.try_to_load_from_cache(where.repo, where.path, revision=where.revision)
        if cached is hub._CACHED_NO_EXIST:
            return None
        if not (fresh := cached is None):
            found = pathlib.Path(cached)
        else:
            try:
                found = pathlib.Path(_downloaded(hub, where))
            except hub.errors.RemoteEntryNotFoundError:
                return None
        if found.is_dir():
            return None
        stated = _stated(hub, found, where, fresh)
    _check(found, stated, where)
    return found


def _downloaded(hub: Any, where: Place) -> str:
    options = dict(revision=where.revision, library_name="vargen")
    info = hub.hf_hub_download(where.repo, where.path, dry_run=True, **options)
    cache = pathlib.Path(hub.constants.HF_HUB_CACHE)
    if info.will_download and info.file_size is not None:
        there = next(p for p in (cache, *cache.parents) if p.exists())
        if (free := shutil.disk_usage(there).free) < info.file_size:
            raise UserError(f"{where}: expected {info.file_size} bytes free in {cache}, found {free}")
    return hub.hf_hub_download(where.repo, where.path, **options)


def _stated(hub: Any, found: pathlib.Path, where: Place, fresh: bool) -> str:
    """The hash that the hub stated: SHA-256 (64 digits) or git's SHA-1 (40); '' where it isn't known any more.

    The cache's blobs are named by it. Where it has no links, as HF_HUB_DISABLE_SYMLINKS says, the hub is asked once.
    """
    if found.is_symlink():
        return os.path.basename(os.readlink(found))
    if not fresh:
        return ""
    url = hub.hf_hub_url(where.repo, where.path, revision=where.revision)
    return hub.get_hf_file_metadata(url).etag or ""


def _check(found: pathlib.Path, stated: str, where: Place) -> None:
    """Compares a file with its hash; one that differs is deleted, so that the next start downloads it again.

    Raises:
      UserError: it differs.
    """
    digest = {64: "sha256", 40: "sha1"}.get(len(stated))
    if digest is None:
        return
    stat, blob = os.stat(found), pathlib.Path(os.path.realpath(found))
    stamp = f"{stat.st_size} {stat.st_mtime_ns}"
    known = paths.cache_directory() / "hub" / hashlib.sha256(f"{stated} {blob}".encode()).hexdigest()[:24]
    try:
        if known.read_text() == stamp:
            return
    except (OSError, ValueError):
        pass
    computed = _sha256(found) if digest == "sha256" else _git_sha1(found, stat.st_size)
    if computed == stated:
        try:
            paths.write_text(known, stamp)
        except OSError:
            pass  # it is computed again the next time
        return
    for file in (found, blob):
        file.unlink(missing_ok=True)
    raise UserError(
        f"{where}: expected {digest} {stated}, as the hub states, found {computed} ({stat.st_size} bytes); it was "
        "deleted from the cache, and the same command downloads it again"
    )


def _sha256(file: PathLike) -> str:
    with open(file, "rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _git_sha1(file: PathLike, size: int) -> str:
    digest = hashlib.sha1(b"blob %d\0" % size)
    with open(file, "rb") as opened:
        while block := opened.read(1 << 22):
            digest.update(block)
    return digest.hexdigest()


def _index(where: Place) -> Place:
    """The one index of shards in a folder.

    Raises:
      UserError: no such folder, or not one index in it.
    """
    names = _names(where)
    if not names:
        folder, _, last = where.path.rpartition("/")
        raise UserError(
            f"{where}: expected a file, found none{_nearest(last, _names(where.at(where.revision, folder)))}"
        )
    found = [name for name in names if name.endswith(INDEX)]
    if len(found) != 1:
        raise UserError(
            f"{where}: expected a file, or a folder with one *{INDEX} of shards, found {len(found)} of them among "
            f"{', '.join(names[:8])}{' ...' if len(names) > 8 else ''}"
        )
    return where / found[0]


def _nearest(name: str, names: list[str]) -> str:
    close = difflib.get_close_matches(name, names, n=1)
    if close:
        return f"; did you mean {close[0]}?"
    return f" among {', '.join(names[:8])}{' ...' if len(names) > 8 else ''}" if names else ""


def _names(where: Place) -> list[str]:
    """What lies in a folder, by name; nothing where there is no such folder."""
    hub = library(str(where))
    with explained(where):
        if hub.constants.is_offline_mode():
            folder = _root(where)
            return sorted(p.name for p in folder.iterdir()) if folder.is_dir() else []
        try:
            tree = hub.HfApi().list_repo_tree(where.repo, where.path or None, revision=where.revision)
            return sorted(item.path.rpartition("/")[2] for item in tree)
        except hub.errors.EntryNotFoundError:
            return []


def _shards(index: pathlib.Path) -> Iterable[str]:
    """The files beside an index that it names; whoever reads it says what is wrong with it."""
    try:
        table = json.loads(index.read_bytes())["weight_map"].values()
        return sorted({n for n in table if isinstance(n, str) and n and pathlib.PurePath(n).name == n})
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return ()
