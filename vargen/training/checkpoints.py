"""Checkpoints: written in the background by orbax, trusted only as far as their manifest vouches for them.

`DIR/checkpoints/<step>/` holds what orbax wrote (params, ema, opt_state, rest), `config.json`, and last of
all `manifest.json`: the metrics at that step and the size and CRC-32 of every other file. A checkpoint is
whole if its manifest is there and every file is as it says. Killing the process at any moment leaves, at
worst, a directory without a manifest beside the whole ones.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import threading
import zlib
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np

from vargen import paths
from vargen.errors import UserError
from vargen.training.state import TrainState

FOLDER, CONFIG, MANIFEST = "checkpoints", "config.json", "manifest.json"
ORIGIN = "origin.txt"  # beside what was copied from another workdir: which
WEIGHTS = "params.safetensors"  # beside `checkpoints/`: what was imported, or where training starts


class Checkpoints:
    """The checkpoints of one training run.

    Kept are the last `keep`, and the best one: that with the lowest `validation_loss` among its metrics, or
    where it has none the lowest `loss`.

    Every process of a run calls every method; the directory is one that all of them see. Process 0 writes
    manifests, deletes and prints.

    Args:
      directory: `checkpoints/` is made inside.
      config: stored inside each checkpoint (a ConfigDict, or JSON values).
      keep: how many of the last ones are kept, at least 1.
    """

    def __init__(self, directory: str | os.PathLike, config: Mapping[str, Any], keep: int = 3):
        if keep < 1:
            raise UserError(f"keep: expected at least 1 checkpoint, found {keep}")
        self.folder = paths.absolute(directory) / FOLDER
        self.config = config_text(config)
        self.keep = keep
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None
        if jax.process_index() == 0:
            self.folder.mkdir(parents=True, exist_ok=True)
            for path in (
                self.folder.iterdir() if self.folder.is_dir() else ()
            ):  # what a killed process was writing
                if path.is_dir() and not path.name.isdigit():
                    with contextlib.suppress(OSError):
                        path.rmtree()
        _barrier("checkpoints_ready")

    def save(self, state: TrainState, metrics: Mapping[str, float]) -> None:
        """Starts saving; returns once the state is copied, so that it may be donated at once.

        Waits for an earlier save first.

        Args:
          state: saved under its step; a broken checkpoint of that step is replaced.
          metrics: finite floats, among them `loss` or `validation_loss`.
        """
        from orbax.checkpoint import v1 as ocp

        self.wait()
        step = int(state.step)
        path = self.folder / str(step)
        if jax.process_index() == 0:
            _remove(path)
        _barrier(f"checkpoint_{step}_clear")
        response = ocp.save_checkpointables_async(path, _items(state))
        metrics = {k: float(v) for k, v in metrics.items()}
        self._thread = threading.Thread(target=self._finish, args=(response, path, metrics))
        self._thread.start()

    def settle(self) -> None:
        """Where this process alone ends: gives the save under way half a minute, and waits for no other process."""
        if self._thread is not None:
            self._thread.join(30)

    def wait(self) -> None:
        """Waits until the save under way is whole on disk; raises what went wrong with it."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
            if self._error is not None:
                error, self._error = self._error, None
                raise error
            _barrier("checkpoint_done")

    def restore(self, abstract: TrainState) -> TrainState | None:
        """The state in the last whole checkpoint, laid out as `abstract` says; None where there is none.

        Broken checkpoints are passed over, with one printed line each.

        Raises:
          UserError: the checkpoint holds a state of another shape (the config has changed).
        """
        from orbax.checkpoint import v1 as ocp

        path = None
        if jax.process_index() == 0:
            path = last_whole(self.folder)
        step = _broadcast(-1 if path is None else int(path.name))
        if step < 0:
            return None
        path = self.folder / str(step)
        _check_shapes(path, _items(abstract))
        items = ocp.load_checkpointables(path, _items(abstract))
        rest = items["rest"]
        return abstract.replace(
            step=rest["step"],
            stats=rest.get("stats", abstract.stats),
            **{name: items[name] for name in ("params", "opt_state", "ema")},
        )

    def _finish(self, response: Any, path: paths.Path, metrics: dict[str, float]) -> None:
        try:
            response.result()
            if jax.process_index() == 0:
                paths.write_text(path / CONFIG, self.config)
                files = {name: _fingerprint(path / name) for name in _files(path)}
                content = dict(step=int(path.name), metrics=metrics, files=files)
                paths.write_text(path / MANIFEST, _manifest_text(content))
                self._discard()
        except BaseException as error:  # handed to the main thread by `wait`
            self._error = error

    def _discard(self) -> None:
        steps = saved_steps(self.folder)
        best = best_step(self.folder)
        for step in steps[: -self.keep]:
            if step != best:
                _remove(self.folder / str(step))


def saved_steps(folder: paths.PathLike) -> list[int]:
    """The steps in `folder` that have a manifest, in order."""
    return [step for step in _steps(folder) if (paths.path(folder) / str(step) / MANIFEST).is_file()]


def _steps(folder: paths.PathLike) -> list[int]:
    """The steps of which there is a directory, whole or not, in order."""
    folder = paths.path(folder)
    names = [p.name for p in folder.iterdir()] if folder.is_dir() else []
    return sorted(int(n) for n in names if n.isascii() and n.isdigit() and str(int(n)) == n)


def best_step(folder: paths.PathLike) -> int | None:
    """The step with the lowest `validation_loss`, else `loss`; the later one of equals."""

    def score(step: int) -> tuple[float, int]:
        manifest = _read_manifest(paths.path(folder) / str(step)) or {}
        metrics = manifest.get("metrics", {})
        value = metrics.get("validation_loss", metrics.get("loss", math.inf))
        return value, -step

    return min(saved_steps(folder), key=score, default=None)


# Checkpoints that this process has read through and found whole, with the sizes and times of their files then: a start
# asks several times, and a large model's take long to read.
_found_whole: dict[str, list[tuple]] = {}


def problem(path: paths.PathLike) -> str | None:
    """What is wrong with the checkpoint at `path`, or None where it is whole."""
    path = paths.path(path)
    try:
        stamps = [(name, *paths.size_and_time(path / name)) for name in (*_files(path), MANIFEST)]
    except OSError:
        stamps = []
    if stamps and _found_whole.get(os.fspath(path)) == stamps:
        return None
    if (found := _problem(path)) is None:
        _found_whole[os.fspath(path)] = stamps
    return found


def _problem(path: paths.Path) -> str | None:
    if not paths.is_file(path / MANIFEST):
        return f"no {MANIFEST}, it was not finished"
    manifest = _read_manifest(path)
    if manifest is None:
        return f"{MANIFEST} is broken"
    for name, (size, checksum) in manifest["files"].items():
        file = path / name
        try:
            if not paths.is_file(file):
                return f"{name} is missing"
            if file.stat().length != size:
                return f"{name} has {file.stat().length} bytes, expected {size}"
            if _fingerprint(file) != [size, checksum]:
                return f"{name} has changed, its checksum is not the one written"
        except OSError as error:
            return f"{name} cannot be read: {error.strerror or error}"
    return None


def last_whole(folder: paths.PathLike, quiet: bool = False) -> paths.Path | None:
    """The last whole checkpoint in `folder`; a line is printed for each broken one that is later, unless `quiet`."""
    folder = paths.path(folder)
    broken = []
    for step in reversed(_steps(folder)):
        path = folder / str(step)
        found = problem(path)
        if found is None:
            for name, why in [] if quiet else broken:
                print(f"checkpoint {folder / name} is not whole ({why}): using {step}", flush=True)
            return path
        broken.append((str(step), found))
    weights = folder.parent / WEIGHTS
    instead = f"using {weights}, where it started" if paths.is_file(weights) else "there is no earlier one"
    for name, why in [] if quiet else broken:
        print(f"checkpoint {folder / name} is not whole ({why}): {instead}", flush=True)
    return None


def load_params(
    directory: str | os.PathLike,
    which: str = "ema",
    step: int | str | None = None,
    sharding: jax.sharding.Sharding | None = None,
) -> tuple[Any, Any, int]:
    """Parameters of a trained model; the path is all that is needed, on any number of devices.

    Args:
      directory: what `Checkpoints` was given (`WORKDIR/tokenizer`, `WORKDIR/generator`). Where it has no
        checkpoint but `params.safetensors`, those are taken, as of step 0.
      which: "ema" (averaged) or "params" (as of the last step).
      step: a step, "best", or None for the last whole checkpoint.
      sharding: where every array goes; by default the first local device.

    Returns:
      config (ConfigDict), parameters (a plain tree), step.

    Raises:
      UserError: no checkpoint there, or the asked one is broken.
    """
    from orbax.checkpoint import v1 as ocp

    from vargen import config, weights_file

    if which not in ("ema", "params"):
        raise UserError(f"which: expected 'ema' or 'params', found {which!r}")
    folder = paths.absolute(directory) / FOLDER
    if step is None:
        path = last_whole(folder)
    else:
        wanted = best_step(folder) if step == "best" else step
        path = None if wanted is None else folder / str(wanted)
        if path is not None and path.is_dir() and (found := problem(path)) is not None:
            raise UserError(f"checkpoint {path}: expected a whole one, but {found}")
    sharding = sharding or jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    if path is None and step is None and paths.is_file(weights := folder.parent / WEIGHTS):
        params = jax.tree.map(lambda x: jax.device_put(x, sharding), weights_file.read(weights))
        return config.from_json((folder.parent / CONFIG).read_text()), params, 0
    if path is None or not path.is_dir():
        found = ", ".join(map(str, saved_steps(folder))) or "none"
        found = f"broken ones ({found})" if step is None and found != "none" else found
        wanted = "" if step is None else f" of step {step}"
        raise UserError(f"checkpoint {directory}: expected one{wanted} in {folder}, found {found}")
    metadata = ocp.checkpointables_metadata(path).metadata[which]
    abstract = jax.tree.map(lambda m: jax.ShapeDtypeStruct(m.shape, m.dtype, sharding=sharding), metadata)
    loaded = ocp.load_checkpointables(path, {which: abstract})[which]
    params = loaded["model"] if which == "params" else loaded
    return config.from_json((path / CONFIG).read_text()), params, int(path.name)


def config_text(config: Mapping[str, Any]) -> str:
    """A config as JSON text."""
    return json.dumps(config.to_dict() if hasattr(config, "to_dict") else dict(config), indent=2) + "\n"


def _items(state: TrainState) -> dict[str, Any]:
    """What orbax saves side by side, so that `ema` can be read without the rest. It refuses empty trees."""
    rest = dict(step=state.step)
    if jax.tree.leaves(state.stats):
        rest["stats"] = state.stats
    return dict(params=state.params, opt_state=state.opt_state, ema=state.ema, rest=rest)


def _check_shapes(path: paths.Path, expected: dict[str, Any]) -> None:
    from orbax.checkpoint import v1 as ocp

    found = ocp.checkpointables_metadata(path).metadata
    for item in ("params", "rest"):
        have = {jax.tree_util.keystr(k): v for k, v in jax.tree_util.tree_leaves_with_path(found[item])}
        want = {jax.tree_util.keystr(k): v for k, v in jax.tree_util.tree_leaves_with_path(expected[item])}
        for name in sorted(want.keys() | have.keys()):
            a, b = (tuple(d[name].shape) if name in d else "none" for d in (want, have))
            if a != b:
                raise UserError(
                    f"checkpoint {path}: expected {item}{name} {a}, found {b}; "
                    "the config has changed, take another directory"
                )


def _files(path: paths.Path) -> list[str]:
    return sorted(os.fspath(p.relative_to(path)) for p in _walk(path) if p.name != MANIFEST)


def _walk(path: paths.Path) -> Iterator[paths.Path]:
    for found in path.iterdir():
        if found.is_dir():
            yield from _walk(found)
        else:
            yield found


def _fingerprint(file: paths.Path) -> list[int]:
    size = crc = 0
    with file.open("rb") as f:
        while block := f.read(1 << 22):
            size, crc = size + len(block), zlib.crc32(block, crc)
    return [size, crc]


def _manifest_text(content: Mapping[str, Any]) -> str:
    """The manifest, and a checksum of itself."""
    text = json.dumps(content, sort_keys=True)
    return json.dumps(dict(content, checksum=zlib.crc32(text.encode())))


def _read_manifest(path: paths.Path) -> dict | None:
    """The manifest of a checkpoint, or None where it is not as it was written."""
    try:
        manifest = json.loads((path / MANIFEST).read_text())
        checksum = manifest.pop("checksum")
        return manifest if checksum == zlib.crc32(json.dumps(manifest, sort_keys=True).encode()) else None
    except (OSError, ValueError, AttributeError, KeyError, TypeError, RecursionError):
        return None


def _remove(path: paths.Path) -> None:
    """Deletes a checkpoint, its manifest first: half deleted, it must not pass for a whole one."""
    (path / MANIFEST).unlink(missing_ok=True)
    if path.exists():
        with contextlib.suppress(OSError):
            path.rmtree()


def _barrier(name: str) -> None:
    if jax.process_count() > 1:
        from jax.experimental import multihost_utils

        multihost_utils.sync_global_devices(name)


def _broadcast(value: int) -> int:
    """Process 0's value, in every process."""
    if jax.process_count() == 1:
        return value
    from jax.experimental import multihost_utils

    return int(multihost_utils.broadcast_one_to_all(np.int32(value)))
