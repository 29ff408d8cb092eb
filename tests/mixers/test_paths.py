"""Scan paths against the authors' own, and what makes them legal under every order."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from golden import Golden
from harness import CASES

from vargen.mixers.paths import (
    CROSS_SCAN,
    ZIGZAG,
    check_paths,
    from_grid,
    inverse,
    sequence,
    take_rows,
    to_grid,
)
from vargen.slots import Grid

PATHS = (*CROSS_SCAN, *ZIGZAG, "windows_2", "windows_2_columns", "windows_3_reverse")


def whole(path, height, width):
    grid = Grid(((height, width),))
    return sequence(path, np.zeros(grid.size, int), grid.places, grid)


def test_zigzag_and_windows_and_cross_scan_are_their_authors():
    golden = Golden("mamba")
    for i, expected in enumerate(golden["path/zigzag"]):
        np.testing.assert_array_equal(whole(f"zigzag_{i}", 4, 4), expected)
    for path in ("windows_2", "windows_2_reverse", "windows_2_columns", "windows_2_columns_reverse"):
        np.testing.assert_array_equal(whole(path, 4, 6), golden[f"path/{path}"])
    for path, expected in zip(CROSS_SCAN, golden["path/cross"], strict=True):
        np.testing.assert_array_equal(whole(path, 3, 4), expected)


@pytest.mark.parametrize("path", ZIGZAG)
def test_zigzag_is_continuous_where_height_and_width_differ(path):
    places = Grid(((3, 4),)).places[whole(path, 3, 4)]
    assert np.all(np.abs(np.diff(places, axis=0)).sum(axis=1) == 1)


@pytest.mark.parametrize("case", CASES)
def test_steps_come_first_and_conditions_first_within_them(case):
    case = CASES[case]
    steps, coords = case.layout.times, case.layout.coords
    for path in PATHS:
        rows = sequence(path, steps, coords, case.grid)
        assert np.all(np.diff(steps[rows]) >= 0)
        np.testing.assert_array_equal(np.sort(rows), np.arange(len(steps)))
        nowhere = np.any(coords < 0, axis=1)[rows]
        for step in np.unique(steps):
            assert np.all(np.diff(nowhere[steps[rows] == step].astype(int)) <= 0)


def test_traced_rows_of_several_examples_follow_the_same_path():
    rng = np.random.default_rng(0)
    grid = Grid(((3, 4),))
    steps = np.sort(rng.integers(0, 3, (2, 12)), axis=1)
    coords = np.stack([grid.places[rng.permutation(12)] for _ in range(2)])

    @jax.jit
    def traced(steps, coords):
        return [sequence(path, steps, coords, grid) for path in PATHS]

    for path, found in zip(PATHS, traced(steps, coords), strict=True):
        expected = np.stack([sequence(path, s, c, grid) for s, c in zip(steps, coords, strict=True)])
        np.testing.assert_array_equal(found, expected, err_msg=path)
        x = rng.normal(size=(2, 12, 3)).astype(np.float32)
        np.testing.assert_array_equal(take_rows(take_rows(x, found), inverse(found)), x)


def test_a_path_needs_something_to_go_along():
    raster, levels, all_ = CASES["raster"], CASES["levels"], CASES["all"]
    for path in PATHS:
        check_paths("mamba", (path,), all_.grid, all_.layout)
        check_paths("mamba", (path,), levels.grid, levels.layout)
    with pytest.raises(ValueError, match="path zigzag_3 needs steps of several slots, found an order of one"):
        check_paths("mamba", ("forward", "zigzag_3"), raster.grid, raster.layout)
    with pytest.raises(ValueError, match="found 'diagonal'"):
        check_paths("mamba", ("diagonal",), raster.grid, raster.layout)
    with pytest.raises(ValueError, match="zigzag_0 needs one level, or the order levels, found 3 levels"):
        check_paths("mamba", ("zigzag_0",), levels.grid, all_.layout)
    with pytest.raises(ValueError, match="at least one path"):
        check_paths("mamba", (), raster.grid, raster.layout)


@pytest.mark.parametrize("static", [True, False])
def test_rows_lie_on_the_grid_and_come_back(static):
    case = CASES["frames"]
    coords = np.concatenate([np.full((2, 3), -1), case.grid.places[:-1]])[::-1].copy()
    x = np.random.default_rng(0).normal(size=(2, len(coords), 5)).astype(np.float32)
    cells, index = to_grid(jnp.asarray(x), coords if static else jnp.asarray(coords), case.grid)
    for i, place in enumerate(coords):
        if place[0] >= 0:
            np.testing.assert_array_equal(cells[:, *place], x[:, i])
    np.testing.assert_array_equal(cells[:, -1, -1, -1], 0)
    expected = np.where((coords[:, 0] >= 0)[:, None], 2 * x, -1)
    np.testing.assert_array_equal(from_grid(2 * cells, index, -1.0), expected)
