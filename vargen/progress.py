"""What long work says of itself: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any

PACE = 10.0  # seconds between two lines where there is no terminal


class _Lines:
    """A stream on which each state of a bar is a line of its own."""

    def __init__(self, stream: Any):
        self.stream = stream

    def write(self, text: str) -> None:
        if text := text.strip("\r\n "):
            self.stream.write(text + "\n")

    def flush(self) -> None:
        self.stream.flush()


def on_terminal() -> bool:
    """Whether standard error is a terminal."""
    return sys.stderr.isatty()


def pace() -> float:
    """Seconds between two states of a bar that are shown."""
    return 0.2 if on_terminal() else PACE


def bar(
    title: str,
    total: int,
    *,
    done: int = 0,
    unit: str = "images",
    note: str = "",
    delay: float = 0.0,
    left: Callable[[], float | None] | None = None,
) -> Any:
    """A tqdm bar that counts to `total`: on standard error.

    Args:
      title: what is done.
      total: how much there is of it.
      done: how much of it was done before.
      unit: what is counted.
      note: what else to say, until `set_postfix_str`.
      delay: seconds until it is shown; what is done by then isn't said.
      left: seconds that are left, of what isn't equally long, and None while nobody knows; else the mean rate says.
    """
    from tqdm import tqdm

    class Foretold(tqdm):
        """Whose rate is such that what is left takes as long as was foretold."""

        @property
        def format_dict(self) -> Any:
            found = super().format_dict
            seconds = None if left is None else left()
            return found | dict(rate=(found["total"] - found["n"]) / seconds if seconds else None)

    drawn = " |{bar:20}|" if on_terminal() else ""
    form = (
        f"{{desc}}: {{n_fmt}} of {{total_fmt}} {unit}{drawn}{{postfix}}, {{elapsed}} gone, {{remaining}} left"
    )
    return (tqdm if left is None else Foretold)(
        desc=title,
        total=total,
        initial=done,
        bar_format=form,
        postfix=note or "at work",
        mininterval=pace(),
        maxinterval=max(10.0, pace()),
        smoothing=0.05,
        delay=delay,
        file=None if on_terminal() else _Lines(sys.stderr),
    )


def each(
    batches: Iterable,
    total: int,
    title: str,
    size: Callable[[Any], int] = len,
    *,
    unit: str = "images",
    delay: float = 0.0,
) -> Iterator:
    """The batches, with a bar that counts their items and says how many a second there are; see `bar`."""
    with bar(title, total, unit=unit, delay=delay) as shown:
        for batch in batches:
            yield batch
            shown.update(size(batch))
            rate = shown.format_dict["rate"]
            if rate:
                shown.set_postfix_str(f"{rate:.3g} {unit}/s", refresh=False)


def say(line: str) -> None:
    """Prints a line, above a bar that is being drawn, at once."""
    from tqdm import tqdm

    tqdm.write(line)
    sys.stdout.flush()


def duration(seconds: float) -> str:
    """Seconds for a person: '42 s', '5 min 12 s', '2 h 5 min'."""
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
