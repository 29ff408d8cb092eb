"""Published sizes in tests: the first of each system always, the others when there is time."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest


def first(cases: Sequence[Any], system: Callable[[Any], str]) -> list[Any]:
    """Parameters of a test, in order; a system's but its first are slow."""
    systems = [system(case) for case in cases]
    return [
        pytest.param(
            *(case if isinstance(case, tuple) else (case,)),
            marks=[pytest.mark.slow] * (systems[i] in systems[:i]),
        )
        for i, case in enumerate(cases)
    ]
