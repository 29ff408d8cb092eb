"""Drawn examples: the same in every run, but under `make test-fuzz`, which draws many times as many anew."""

import os

from hypothesis import HealthCheck, settings

FUZZ = int(os.environ.get("VARGEN_FUZZ", "0"))  # how many times as many; 0: the fixed ones


def examples(count):
    """hypothesis' settings for `count` examples, or under fuzzing a multiple."""
    return settings(
        max_examples=count * max(FUZZ, 1),
        derandomize=not FUZZ,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow],
        print_blob=True,
    )
