"""Attention under every order: its two forms, and its options."""

import jax
import numpy as np
import pytest
from harness import CASES, check_mixer, make

from vargen.mixers import Attention
from vargen.mixers.rope import rotate

OPTIONS = {
    "plain": dict(heads=2),
    "grouped_l2_places": dict(heads=2, kv_heads=1, qk_norm="l2", bias="qkv", rope="places"),
    "layer_sequence_window": dict(heads=2, qk_norm="layer", rope="sequence", window=1),
}
PAIRS = [("plain", case) for case in CASES] + [
    ("grouped_l2_places", "raster"),
    ("grouped_l2_places", "all"),
    ("layer_sequence_window", "raster"),
    ("layer_sequence_window", "groups"),
]


@pytest.mark.parametrize("name,case", PAIRS)
def test_forms_agree(name, case):
    check_mixer(Attention, case, **OPTIONS[name])


def test_rotary_positions_in_three_dimensions():
    """Logits depend on differences of the coordinates alone, in every axis; a third of the channels each."""
    q, k = jax.random.normal(jax.random.key(0), (2, 1, 1, 1, 12))
    turn = lambda x, at: rotate(x, np.array([at]))[0, 0, 0]  # noqa: E731
    base = turn(q, (5, 3, 7)) @ turn(k, (2, 3, 1))
    np.testing.assert_allclose(turn(q, (6, 9, 8)) @ turn(k, (3, 9, 2)), base, atol=1e-5)
    for axis in range(3):
        at = np.eye(3, dtype=int)[axis]
        moved = np.asarray(turn(q, at)) != np.asarray(turn(q, (0, 0, 0)))
        assert moved[4 * axis : 4 * axis + 4].all() and moved.sum() == 4


@pytest.mark.parametrize(
    "options,message",
    [
        (dict(heads=3), "mixer.heads: expected a divisor of the width 8, found 3"),
        (dict(heads=4, kv_heads=3), "mixer.kv_heads: expected a divisor of the 4 heads, found 3"),
    ],
)
def test_wrong_options(options, message):
    with pytest.raises(ValueError, match=message):
        make(Attention, CASES["raster"], **options)
