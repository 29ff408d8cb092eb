"""What the hub and its library fail with, in one line."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import re
import warnings
from collections.abc import Iterator
from typing import Any

from vargen.errors import UserError
from vargen.hub.places import Place, library

LOGIN = "HF_TOKEN or `hf auth login`"


@contextlib.contextmanager
def explained(place: Place, verb: str = "read") -> Iterator[list[logging.LogRecord]]:
    """Whatever the library raises inside becomes a UserError that names the place.

    Its warnings (of another try, of an answer from the cache) are not printed, but in the list that is given.

    Args:
      place: what is asked for.
      verb: what is done with it: "read" or "written".
    """
    hub = library(str(place))
    logger = logging.getLogger("huggingface_hub")
    held = _Held()
    handlers, propagate = logger.handlers, logger.propagate
    logger.handlers, logger.propagate = [held], False
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that little space is left
            yield held.records
    except UserError:
        raise
    except Exception as error:  # all that is inside is the library's
        raise UserError(_line(hub, error, place, verb)) from error
    finally:
        logger.handlers, logger.propagate = handlers, propagate


class _Held(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """The error, and what it was raised for."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def _line(hub: Any, error: Exception, place: Place, verb: str) -> str:
    errors, constants = hub.errors, hub.constants
    inside = list(_chain(error))
    endpoint = constants.ENDPOINT
    if constants.is_offline_mode() and not any(isinstance(e, errors.HfHubHTTPError) for e in inside):
        expected = f"it in the cache {constants.HF_HUB_CACHE}" if verb == "read" else "a connection"
        return f"{place}: expected {expected}, found none, and HF_HUB_OFFLINE is set"
    for e in inside:
        if isinstance(e, errors.HfHubHTTPError):
            return _answer(hub, e, place, verb)
    for e in inside:
        if isinstance(e, OSError) and e.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            return f"{place}: expected space in {constants.HF_HUB_CACHE}, found none left ({e.strerror})"
        if isinstance(e, errors.HTTPError):  # of names, connections and answers that break off
            return f"{place}: cannot be {verb}: the connection to {endpoint} failed ({_first(e)})"
        if sizes := re.search(r"should be of size (\d+) but has size (\d+)", str(e)):
            return f"{place}: expected {sizes[1]} bytes, found {sizes[2]}"
        if isinstance(e, OSError) and e.filename:
            return f"{place}: cannot be {verb}: {os.fsdecode(e.filename)}: {e.strerror}"
    return f"{place}: cannot be {verb} ({_first(inside[-1])})"


def _answer(hub: Any, error: Any, place: Place, verb: str) -> str:
    """What an answer of the hub says that is an error."""
    errors, endpoint = hub.errors, hub.constants.ENDPOINT
    status, repo = error.response.status_code, place.at(None, "")
    code = error.response.headers.get("X-Error-Code")
    has_token = bool(hub.get_token())
    says = f"; the hub says: {_first(error.server_message)}" if error.server_message else ""
    if isinstance(error, errors.GatedRepoError):
        ask = f"ask for it at {endpoint}/{place.repo}" + ("" if has_token else f", and log in ({LOGIN})")
        return f"{repo}: expected one that you have access to, found a gated one ({status}): {ask}"
    if isinstance(error, errors.DisabledRepoError):
        return f"{repo}: expected a repository, found one that was disabled ({status})"
    if isinstance(error, errors.RevisionNotFoundError):
        return f"{repo}: expected a branch, tag or commit, found no {place.revision or 'main'!r} ({status})"
    if isinstance(error, errors.EntryNotFoundError):
        return f"{place}: expected a file, found none ({status})"
    if isinstance(error, errors.RepositoryNotFoundError) or (status == 404 and code is None):
        token = "that your token can see" if has_token else f"that can be seen without a token ({LOGIN})"
        return f"{repo}: expected a model repository, found none {token} ({status})"
    if status in (401, 403):
        token = "another" if has_token else f"none ({LOGIN})"
        return f"{repo}: expected a token with which it can be {verb}, found {token} ({status}){says}"
    return f"{place}: cannot be {verb}: {endpoint} answered {status}{says}"


def _first(error: object) -> str:
    """An error's text, in one line."""
    text = " ".join(str(error).split())[:300]
    return text or type(error).__name__
