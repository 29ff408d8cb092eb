"""Writing to the hub: one commit with the files of a model, and no other."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from vargen.errors import UserError
from vargen.hub.failures import LOGIN, explained
from vargen.hub.places import FILES, README, Place, library


def check_token(where: Place) -> None:
    """Raises UserError where there is no token, without which nobody may write."""
    hub = library(str(where))
    with explained(where, "written"):
        token = hub.get_token()
    if not token:
        raise UserError(f"{where}: expected a token ({LOGIN}), found none")


def push(
    files: Mapping[str, os.PathLike[str] | bytes], where: Place, *, private: bool = False, message: str = ""
) -> tuple[Place, bool]:
    """Makes the repository and the branch where they are missing, and commits a model.

    Files of an earlier model that this one doesn't have are deleted in the same commit. A README.md that is there is
    left as it is: people write in it.

    Args:
      files: what is in each; the names are those of `FILES`, and README.md.
      where: the repository, the branch as its revision, and a folder in it.
      private: a repository that is made can be seen by its owner alone; one that is there must be so.
      message: of the commit.

    Returns:
      The place, with the commit as its revision; whether the README.md was written.

    Raises:
      UserError: a commit in place of a branch, no token, a public repository where a private one is asked for, or the
        hub refuses.
    """
    hub = library(str(where))
    if unknown := sorted(set(files) - {*FILES, README}):
        raise UserError(f"push: expected files of a model, found {unknown[0]}")
    if where.pinned:
        raise UserError(f"{where}: expected a branch to write to, found a commit")
    check_token(where)
    folder, api = where.at(None), hub.HfApi(library_name="vargen")
    with explained(where, "written"):
        _make(hub, api, where, private)
        paths = {name: (folder / name).path for name in (*FILES, README)}
        there = api.get_paths_info(where.repo, list(paths.values()), revision=where.revision)
        held = {item.path for item in there}
        card = README in files and paths[README] not in held
        changes = [
            hub.CommitOperationAdd(paths[name], content if isinstance(content, bytes) else os.fspath(content))
            for name, content in files.items()
            if name != README or card
        ]
        gone = [paths[name] for name in FILES if name not in files and paths[name] in held]
        changes += [hub.CommitOperationDelete(path, is_folder=False) for path in gone]
        made = api.create_commit(
            where.repo, changes, commit_message=message or "A model of vargen", revision=where.revision
        )
    return where.at(made.oid), card


def _make(hub: Any, api: Any, where: Place, private: bool) -> None:
    """The repository and the branch, where they are missing."""
    try:
        if not api.model_info(where.repo).private and private:
            raise UserError(
                f"{where.at(None, '')}: expected a private repository (--private), found a public one"
            )
    except hub.errors.GatedRepoError:
        raise
    except hub.errors.RepositoryNotFoundError:
        api.create_repo(where.repo, private=private or None, exist_ok=True)
    if where.revision is not None and not where.revision.startswith("refs/"):
        api.create_branch(where.repo, branch=where.revision, exist_ok=True)
