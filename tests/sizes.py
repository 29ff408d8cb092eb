"""Published sizes in tests: the first and last of each system always, those between when there is time."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest


def ends(cases: Sequence[Any], system: Callable[[Any], str]) -> list[Any]:
    """Parameters of a test, in order; a system's that are neither its first nor its last are slow."""
    systems = [system(case) for case in cases]

    def inside(i: int) -> bool:
        return systems[i] in systems[:i] and systems[i] in systems[i + 1 :]

    return [
        pytest.param(*(case if isinstance(case, tuple) else (case,)), marks=[pytest.mark.slow] * inside(i))
        for i, case in enumerate(cases)
    ]
