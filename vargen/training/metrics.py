"""Where a run's numbers go: the progress bar, `metrics.jsonl` and TensorBoard."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from vargen import paths, progress
from vargen.clips import strip
from vargen.spelling import counted
from vargen.training.work import Work, peak

FILE, BOARD = "metrics.jsonl", "tb"


class Metrics:
    """The record of one run, continued across restarts.

    Each line of `metrics.jsonl` is an object with the scalars given and

      step: updates done;
      seconds: of training so far, over all restarts; pauses for checkpoints, images and validation left out;
      images_per_second: since the line before, on all devices together, as the next two;
      tokens_per_second: slots that are learnt (generators);
      mfu: model FLOPs utilisation (PaLM, arXiv 2204.02311): the share of what the devices do at best, in dense bfloat16
        products by their data sheets, that goes into products which an update asks for (`training.work`);
      gflop_per_second: those products, where no data sheet is known, as of a CPU, in the place of `mfu`.

    TensorBoard's files lie in `tb/`. Use as a context manager.

    Args:
      directory: where both lie.
      steps: the length of the run.
      batch_size: images per step, over all processes.
      work: of one image; None where nothing is to be trained.
      devices: all that train.
      start_step: updates already done; whatever an interrupted run recorded past them is dropped.
      title: what the progress bar says.
      enabled: False in all processes but one: nothing is written or shown.
      shown: whether there is a progress bar.
    """

    def __init__(
        self,
        directory: str | os.PathLike,
        *,
        steps: int,
        batch_size: int,
        work: Work | None = None,
        devices: Sequence[Any] = (),
        start_step: int = 0,
        title: str = "training",
        enabled: bool = True,
        shown: bool = True,
    ):
        self.path = paths.path(directory) / FILE
        self._copies = contextlib.ExitStack()
        self.batch_size = batch_size
        self.title = title
        self._work = work
        peaks = [peak(device.device_kind) for device in devices]
        self._peak = sum(p for p in peaks if p) if all(peaks) else None
        self._last: dict[str, float] = {}  # every metric as it was recorded last
        self._start = start_step
        self.enabled = enabled
        self.seconds = 0.0  # of training before the current interval
        self._board = self._file = self._bar = None
        if not enabled:
            return
        from tensorboardX import SummaryWriter

        rows = [row for row in read(self.path) if row["step"] <= start_step]
        self.seconds = rows[-1]["seconds"] if rows else 0.0
        paths.write_text(self.path, "".join(json.dumps(row) + "\n" for row in rows))
        # Nothing can be appended to a file in a bucket: it is written here, and sent by `send`.
        self._here = pathlib.Path(self.path.parent)
        if paths.is_remote(self.path):
            self._here = pathlib.Path(self._copies.enter_context(tempfile.TemporaryDirectory()))
            (self._here / FILE).write_bytes(self.path.read_bytes())
        self._file = (self._here / FILE).open("a")
        board = self._here / BOARD
        self._board = SummaryWriter(str(board), purge_step=start_step + 1 if start_step else None)
        if shown:
            self._bar = progress.bar(title, steps, done=start_step, unit="steps", note="compiling")
        self._begin(start_step)

    def advance(self, step: int) -> None:
        """Moves the progress bar to `step` updates."""
        if self._bar is None:
            return
        if self._bar.n == self._start:
            self._bar.unpause()  # the first step compiled: its time says nothing of what is left
        self._bar.update(step - self._bar.n)

    def write(self, step: int, scalars: Mapping[str, float]) -> None:
        """Records scalars after update number `step`; the rate is over the steps since the last call."""
        if not self.enabled:
            return
        now = time.perf_counter()
        elapsed, done = now - self._since, step - self._since_step
        self.seconds += elapsed
        rate = self.batch_size * done / elapsed if done and elapsed > 0 else 0.0
        self._begin(step)
        row = dict(step=step, **{k: float(f"{v:.7g}") for k, v in scalars.items()})
        row |= self._rates(rate) | dict(seconds=round(self.seconds, 3))
        self._file.write(json.dumps(row) + "\n")
        self._file.flush()
        for name, value in row.items():
            if name != "step":
                self._board.add_scalar(name, value, step)
        self._last |= row
        if self._bar is not None:
            self._bar.set_postfix_str(
                ", ".join([*self._losses(), *self._speeds(row)]), refresh=progress.on_terminal()
            )

    def _rates(self, images: float) -> dict[str, float]:
        """The rates of a row by that of images."""
        found = dict(images_per_second=round(images, 3))
        if self._work is None:
            return found
        if self._work.tokens:
            found["tokens_per_second"] = round(images * self._work.tokens, 1)
        flops = images * self._work.flops
        if self._peak:
            return found | dict(mfu=float(f"{flops / self._peak:.4g}"))
        return found | dict(gflop_per_second=float(f"{flops / 1e9:.4g}"))

    @staticmethod
    def _speeds(row: Mapping[str, float]) -> list[str]:
        """The rates of a row for a person."""
        found = [f"{row['images_per_second']:.0f} images/s"]
        if "tokens_per_second" in row:
            found.append(f"{row['tokens_per_second']:.0f} tokens/s")
        if "mfu" in row:
            found.append(f"MFU {row['mfu']:.1%}")
        if "gflop_per_second" in row:
            found.append(f"{row['gflop_per_second']:.0f} GFLOP/s")
        return found

    def _losses(self) -> list[str]:
        shown = {"loss": "loss", "validation_loss": "held out"}
        return [f"{text} {self._last[name]:.4g}" for name, text in shown.items() if name in self._last]

    def summary(self, step: int) -> str:
        """A run in a line: how far, how long, what came of it."""
        if step <= self._start:
            return f"{self.title}: {counted(step, 'step')} done before"
        rate = self.batch_size * step / self.seconds if self.seconds else 0.0
        found = [*self._losses()]
        if "validation_psnr_db" in self._last:
            found.append(f"held-out PSNR {self._last['validation_psnr_db']:.1f} dB")
        spent = progress.duration(self.seconds)
        return f"{self.title}: {counted(step, 'step')} in {spent}, {rate:.0f} images/s; {', '.join(found)}"

    def images(self, step: int, pictures: Mapping[str, np.ndarray]) -> None:
        """Shows each of `pictures`, float [M, H, W, C] in [-1, 1], as a grid in TensorBoard; clips as strips."""
        if not self.enabled:
            return
        for name, images in pictures.items():
            self._board.add_image(name, grid(np.asarray(images)), step, dataformats="HWC")

    def send(self) -> None:
        """Sends what was recorded to where it belongs, where that is a bucket."""
        if not self.enabled or not paths.is_remote(self.path):
            return
        self._board.flush()
        for file in sorted(self._here.rglob("*")):
            if file.is_file():
                paths.write_bytes(
                    self.path.parent / file.relative_to(self._here).as_posix(), file.read_bytes()
                )

    def say(self, text: str) -> None:
        """Prints a line, above the progress bar where there is one."""
        if not self.enabled:
            return
        if self._bar is None:
            print(text, flush=True)
        else:
            self._bar.write(text)

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Time spent inside is not training time."""
        start = time.perf_counter()
        yield
        self._since += time.perf_counter() - start

    def _begin(self, step: int) -> None:
        self._since, self._since_step = time.perf_counter(), step

    _since, _since_step = 0.0, 0

    def __enter__(self) -> Metrics:
        return self

    def __exit__(self, *_: object) -> None:
        for thing in (self._bar, self._board, self._file):
            if thing is not None:
                thing.close()
        with self._copies:
            self.send()


def read(path: paths.PathLike) -> list[dict]:
    """The rows of a `metrics.jsonl`, [] where there is no file; what comes after a broken line is left out."""
    path = paths.path(path)
    rows = []
    for line in path.read_bytes().splitlines() if paths.is_file(path) else []:
        try:
            row = json.loads(line)
            whole = isinstance(row["step"], int) and isinstance(row["seconds"], (int, float))
        except (ValueError, KeyError, TypeError, RecursionError):
            break
        if not whole:
            break
        rows.append(row)
    return rows


def grid(images: np.ndarray) -> np.ndarray:
    """float [M, H, W, C] in [-1, 1] to one uint8 picture [rows H, columns W, 3], about square, row by row; clips
    [M, T, H, W, C] below one another, frame after frame."""
    if images.ndim > 4:
        images = strip(images).reshape(1, -1, images.shape[1] * images.shape[3], images.shape[4])
    count, height, width, channels = images.shape
    columns = int(np.ceil(np.sqrt(count)))
    rows = -(-count // columns)
    canvas = np.full((rows * columns, height, width, channels), -1.0, np.float32)
    canvas[:count] = np.clip(np.nan_to_num(images.astype(np.float32)), -1, 1)
    canvas = canvas.reshape(rows, columns, height, width, channels).swapaxes(1, 2)
    canvas = canvas.reshape(rows * height, columns * width, channels)
    canvas = np.round((canvas + 1) * 127.5).astype(np.uint8)
    return np.repeat(canvas, 3, axis=-1) if channels == 1 else canvas
