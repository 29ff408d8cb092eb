"""How far a comparison is: pilots, tokenizers and runs in one count, with the time that is gone and left."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from vargen import progress
from vargen.cli import budgets, children
from vargen.cli.budgets import Budget
from vargen.spelling import counted

PILOT, TOKENIZER, FITTED = "pilot", "tokenizer", "tokenizer without training"  # kinds; a run's is its budget
SHORT = 0.5  # seconds: what took less was done before


class Tally:
    """The count of all jobs, as a bar, and a line for each that ends.

    Args:
      total: jobs of the whole comparison.
      jobs: how many run side by side.
      given: by the kind what a job of it may spend.
    """

    def __init__(self, total: int, jobs: int, given: Mapping[str, Budget]) -> None:
        self.total = total
        self._jobs, self._given = jobs, given
        self._ahead: dict[str, int] = {}
        self._took: dict[str, list[float]] = {}
        self._bar: Any = None
        self._shown = 0.0

    def __enter__(self) -> Tally:
        note = "planning"
        self._bar = progress.bar(
            "compare", self.total, done=self.done, unit="jobs", note=note, left=self.left
        )
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.close()

    @property
    def done(self) -> int:
        """Jobs that have ended, or that nothing can come of."""
        return self.total - sum(self._ahead.values())

    def expect(self, ahead: Mapping[str, int]) -> None:
        """Says how many jobs of each kind are ahead."""
        self._ahead = {kind: count for kind, count in ahead.items() if count}
        if self._bar is not None:
            self._bar.n = self.done

    def ended(self, kind: str, seconds: float | None, text: str) -> None:
        """Counts a job, and says what became of it; `seconds` are those that it took, None where that says nothing."""
        self._ahead[kind] -= 1
        if seconds is not None and seconds > SHORT:
            self._took.setdefault(kind, []).append(seconds)
        progress.say(f"{self.done} of {self.total}: {text}")
        self._bar.update(self.done - self._bar.n)

    def watch(self, running: Sequence[children.Job]) -> None:
        """Shows what is at work, now and then."""
        if time.monotonic() - self._shown < progress.pace():
            return
        self._shown = time.monotonic()
        self._bar.set_postfix_str(f"at work: {'; '.join(job.name for job in running)}", refresh=False)
        self._bar.refresh()

    def left(self) -> float | None:
        """Seconds until all is done: each kind's mean so far, or else its budget; None while neither is known."""
        total, every = 0.0, [x for took in self._took.values() for x in took]
        for kind, count in self._ahead.items():
            took = self._took.get(kind, [])
            if took:
                each = sum(took) / len(took)
            elif (given := self._seconds(kind)) is not None:
                each = given
            elif every:
                each = sum(every) / len(every)
            else:
                return None
            total += count * each
        return total / max(1, min(self._jobs, sum(self._ahead.values())))

    def needed(self) -> str:
        """What is ahead, in words, and where budgets are of time how long they are together."""
        found, total, timed = [], 0.0, True
        for kind, count in self._ahead.items():
            what = counted(count, kind if kind in (PILOT, TOKENIZER) else "run")
            if kind == FITTED:
                continue  # its time is none of the budgets'
            given, seconds = self._given.get(kind), self._seconds(kind)
            found.append(what if given is None else f"{what} of {given.words}")
            total += count * (seconds or 0.0)
            timed &= kind == PILOT or seconds is not None
        text = f"ahead: {', '.join(found)}, {self._jobs} at once"
        if not timed or not total:
            return text
        training = progress.duration(total / self._jobs)
        return f"{text}: {training} of training; pilots, sampling and measuring come on top"

    def _seconds(self, kind: str) -> float | None:
        given = self._given.get(kind)
        return given.amount if given is not None and given.unit == budgets.SECONDS else None
