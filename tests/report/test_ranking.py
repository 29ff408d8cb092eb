"""Means, spreads and ties of numbers made by hand."""

import math

import pytest

from vargen.report.ranking import Spread, ranks, spread, tied, ties


def test_spreads():
    assert spread([1.0, 2.0, 4.0]) == pytest.approx((7 / 3, math.sqrt((16 + 1 + 25) / 9 / 2), 3))
    assert spread([2.5]) == (2.5, None, 1) and spread([]) is None
    assert spread([1.0, math.nan, 3.0]) == pytest.approx((2.0, math.sqrt(2), 2))


def test_ranks():
    """a and b overlap, b and c overlap, a and c don't; d lies above all; e is one seed inside b's interval."""
    found = dict(
        d=Spread(9, 1, 3), c=Spread(4, 0.5, 3), b=Spread(3, 1, 3), a=Spread(2, 0.5, 3), e=Spread(2.9, None, 1)
    )
    assert list(ranks(found).items()) == [("a", 1), ("b", 1), ("e", 2), ("c", 3), ("d", 5)]
    assert ties(found) == dict(a=["b"], b=["a", "e", "c"], e=["b"], c=["b"], d=[])


def test_one_seed_ties_only_with_its_equal():
    a, b = Spread(1.0, None, 1), Spread(1.0 + 1e-9, None, 1)
    assert tied(a, a) and not tied(a, b)
    assert ranks(dict(x=b, y=a, z=a)) == dict(y=1, z=1, x=3)


def test_touching_intervals_are_tied():
    assert tied(Spread(1.0, 0.5, 2), Spread(2.0, 0.5, 2)) and not tied(
        Spread(1.0, 0.25, 2), Spread(2.0, 0.5, 2)
    )
