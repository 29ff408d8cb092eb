"""Places on the hub: what `hf://OWNER/REPO[@REVISION][/PATH]` names."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import sys
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

from vargen.errors import UserError

PathLike = str | os.PathLike[str]

SCHEME = "hf://"
FORM = "hf://OWNER/REPO[@REVISION][/PATH]"
COMMIT = re.compile(r"[0-9a-f]{40}")
OLDEST = "1.27"  # of huggingface_hub: the first that resolves revisions
README = "README.md"
ORIGIN = "origin.json"  # where on the hub imported weights come from
# A model on the hub: these files, of which those without a generator or names of classes have fewer. Nothing else is
# read, or pushed.
CONFIG = "config.json"
FILES = (
    CONFIG,
    "tokenizer/config.json",
    "tokenizer/params.safetensors",
    "generator/config.json",
    "generator/params.safetensors",
    "classes.json",
    ORIGIN,
)
NEEDED = FILES[:3]


@dataclasses.dataclass(frozen=True)
class Place:
    """A model repository, or a file or folder in it.

    Attributes:
      repo: OWNER/REPO.
      revision: a branch, tag or commit; None: the default branch.
      path: of the file or folder inside; '' for the whole.
    """

    repo: str
    revision: str | None = None
    path: str = ""

    def __str__(self) -> str:
        revision = "" if self.revision is None else f"@{quote(self.revision, safe='')}"
        return f"{SCHEME}{self.repo}{revision}" + (f"/{self.path}" if self.path else "")

    def __truediv__(self, name: str) -> Place:
        return dataclasses.replace(self, path=f"{self.path}/{name}".lstrip("/"))

    def at(self, revision: str | None, path: str | None = None) -> Place:
        """The same at another revision, or with another path."""
        return dataclasses.replace(self, revision=revision, path=self.path if path is None else path)

    @property
    def pinned(self) -> bool:
        """Whether the revision is a commit, which never changes."""
        return self.revision is not None and COMMIT.fullmatch(self.revision) is not None


def is_hub(text: object) -> bool:
    """Whether a path that a user named is one on the hub."""
    return isinstance(text, (str, os.PathLike)) and os.fspath(text).startswith(SCHEME)


def place(text: PathLike, name: str = "path") -> Place:
    """The place that a user named.

    Args:
      text: `hf://OWNER/REPO[@REVISION][/PATH]`.
      name: what it is called in messages, such as "--workdir".

    Raises:
      UserError: another form, a data set or a space, the package is missing.
    """
    given = os.fspath(text)
    hub = library(f"{name}: {given!r}")
    try:
        found = hub.utils.parse_hf_uri(given)
        reason = "" if found.type == "model" else f"that of a {found.type}"
    except hub.errors.HfUriError as error:
        reason = " ".join(error.msg.split()).rstrip(".")
    path = "" if reason else found.path_in_repo
    if any(segment in (".", "..") for segment in path.split("/")) or "\\" in path or not given.isprintable():
        reason = "a path that leaves the repository, or one that can't be printed"
    if reason:
        raise UserError(f"{name}: expected {FORM} of a model repository, found {given!r:.200}: {reason}")
    return Place(found.id, found.revision, path)


def library(name: str) -> Any:
    """The package huggingface_hub.

    Args:
      name: what needs it, for the message.

    Raises:
      UserError: it is missing, or too old.
    """
    try:
        import huggingface_hub.constants
        import huggingface_hub.errors
        import huggingface_hub.utils
    except ImportError as error:
        raise UserError(
            f"{name} needs the package huggingface_hub, found none: pip install 'vargen[hub]'"
        ) from error
    if not hasattr(huggingface_hub.HfApi, "resolve_revision"):
        found = huggingface_hub.__version__
        raise UserError(
            f"{name} needs huggingface_hub {OLDEST} or later, found {found}: pip install -U 'vargen[hub]'"
        )
    return huggingface_hub


def shown(text: str) -> str:
    """Text in which directories of the hub's cache are called as on the hub."""
    constants = sys.modules.get("huggingface_hub.constants")
    if constants is None:
        return text
    for cache in dict.fromkeys((constants.HF_HUB_CACHE, os.path.realpath(constants.HF_HUB_CACHE))):
        snapshot = rf"{re.escape(cache)}/models--([^/\s]+?)--([^/\s]+)/snapshots/({COMMIT.pattern})"
        text = re.sub(snapshot, rf"{SCHEME}\1/\2@\3", text)
    return text


@contextlib.contextmanager
def named() -> Iterator[None]:
    """A UserError about a file of the hub's cache calls it as on the hub."""
    try:
        yield
    except UserError as error:
        if (text := shown(str(error))) == str(error):
            raise
        raise UserError(text) from error
