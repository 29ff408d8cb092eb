"""When a report says not to believe it."""

import pytest

from vargen.evaluation.caveats import caveats

GOOD = dict(
    real_label_accuracy=0.99,
    samples=1000,
    precision=0.7,
    real_precision=0.72,
    nearest_distance=0.2,
    real_nearest_distance=0.21,
)


def said(change=None, **options):
    options = dict(classes=10, held_out=1000, features=64) | options
    return caveats(GOOD | (change or {}), **options)


def test_nothing_to_say():
    assert said(losses=([1, 2, 3], [3.0, 2.0, 2.01])) == []
    assert caveats({}, classes=10, held_out=9) == []
    assert caveats({}, classes=1, held_out=9) == []  # no classifier


@pytest.mark.parametrize(
    "change, options, words",
    [
        (dict(real_label_accuracy=0.6), {}, ["right on 60%", "chance: 10%"]),
        (
            dict(real_label_accuracy=None),
            dict(classes=1),
            ["one class", "Fréchet distance, precision and recall"],
        ),
        ({}, dict(clips=True), ["sees single frames", "nothing of motion"]),
        (dict(samples=60), {}, ["60 samples, fewer than the 64 features"]),
        (dict(samples=300), {}, ["300 samples:"]),
        ({}, dict(held_out=120), ["120 held-out pictures:"]),
        (dict(precision=0.9), {}, ["90% against 72%"]),
        (dict(nearest_distance=0.05), {}, ["repeats what it has seen", "0.050 against 0.210"]),
        ({}, dict(losses=([100, 200, 300], [3.0, 2.0, 2.5])), ["lowest at step 200", "steps=200"]),
    ],
)
def test_one_thing(change, options, words):
    (text,) = said(change, **options)
    for word in words:
        assert word in text
