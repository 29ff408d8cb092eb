"""What a field may hold: by type, choice and range; and every part says so."""

import math
from typing import Annotated, Any

import numpy as np
import pytest

from vargen import axes, limits, schema
from vargen.conditioning import CONDITIONINGS
from vargen.errors import UserError
from vargen.feeds import FEEDS
from vargen.heads import HEADS
from vargen.limits import Above, AtLeast, Between, OneOf
from vargen.mixers import MIXERS
from vargen.orders import ORDERS
from vargen.tokenizers import TOKENIZERS
from vargen.tokenizers.assembly import ENCODERS
from vargen.tokenizers.discriminators import DISCRIMINATORS, PLACE

COUNT, SHARE = AtLeast(1), Between(0, 1, below=True)


@pytest.mark.parametrize(
    "kind, limit, right, wrong",
    [
        (int, COUNT, [1, np.int64(3)], [0, 1.0, True, "1", None, math.nan, 2**31]),
        (int, None, [-5, 2**31 - 1], [1.5, False, 2**40]),
        (int, Between(0, 2**64 - 1), [2**64 - 1], [2**64, -1]),
        (float, SHARE, [0, 0.5, np.float32(0.25)], [1, 1.0, -0.1, math.nan, math.inf, True, "0.5", None]),
        (float, Above(0), [1e-9], [0, -1, 1e39]),
        (bool, None, [True, False], [0, 1, "true", None]),
        (str, OneOf("a", "b"), ["a"], ["c", 1, None]),
        (int, OneOf(1, 3), [1, 3], [2, True, "1"]),
        (int | None, AtLeast(0), [None, 0, 4], [-1, 1.5, "none"]),
        (tuple[int, ...], COUNT, [(), (1, 2), [3]], [(0,), 3, (1.5,), "12"]),
        (int | tuple[int, int], COUNT, [2, (1, 2)], [(1, 2, 3), 0, (0, 1)]),
        (tuple[int | tuple[int, int], ...], COUNT, [(1, (2, 3))], [(1, (2, 0)), (1, (2, 3, 4))]),
        (Any, None, [object()], []),
    ],
)
def test_values(kind, limit, right, wrong):
    for value in right:
        assert limits.problem_with(value, kind, limit) == "", value
    for value in wrong:
        assert limits.problem_with(value, kind, limit).startswith("expected "), value


@pytest.mark.parametrize(
    "kind, limit, value, text",
    [
        (int, AtLeast(1), 0, "expected a whole number of at least 1, found 0"),
        (float, SHARE, 1.0, "expected a number from 0 and below 1, found 1.0"),
        (float, Above(0), 0, "expected a number above 0, found 0"),
        (int, Between(1, 9), 10, "expected a whole number from 1 to 9, found 10"),
        (
            str,
            OneOf("cosine", "linear"),
            "cosin",
            "expected one of cosine, linear, found 'cosin'; did you mean cosine?",
        ),
        (int | None, AtLeast(0), -1, "expected a whole number of at least 0 or none, found -1"),
        (bool, None, 1, "expected true or false, found 1"),
    ],
)
def test_words(kind, limit, value, text):
    assert limits.problem_with(value, kind, limit) == text


@pytest.mark.parametrize(
    "word, known, near",
    [
        ("positionz", ("positions", "places"), "positions"),
        ("rde", ("red", "blue"), "red"),
        ("l3", ("none", "l2"), "l2"),
        ("vra", ("var", "mar", "rar"), "var"),
        ("aa", ("a", "b"), "a"),
        ("nope", ("jpeglm", "var", "acdit"), None),
        ("named", ("llamagen", "var"), None),
        ("cat", ("acdit", "mar"), None),
        ("runs", ("rar", "randar"), None),
        ("a", ("xar", "rar"), None),
        ("", ("a",), None),
    ],
)
def test_nearest_words(word, known, near):
    assert limits.nearest(word, known) == [near] * (near is not None)
    assert limits.suggestion(word, known) == (f"; did you mean {near}?" if near else "")


@pytest.mark.parametrize(
    "size, near, least, text",
    [(5, 2, 1, "1 or 5"), (16, 3, 1, "1, 2 or 4"), (12, 5, 2, "3, 4 or 6"), (1, 4, 2, "1"), (7, 2, 2, "7")],
)
def test_divisors_to_propose(size, near, least, text):
    assert limits.divisors(size, near, least) == text


class Base:
    heads: Annotated[int, AtLeast(1)]

    def __init__(self, heads: Annotated[int, AtLeast(1)], name: str = "x"):
        pass


def test_fields_of_functions_and_classes():
    def part(a: Annotated[int, AtLeast(1)], b: float = 0.5):
        pass

    known = limits.fields(part)
    assert (known["a"].kind, known["a"].limit, known["b"].default) == (int, AtLeast(1), 0.5)
    assert limits.fields(Base)["heads"].limit == AtLeast(1)
    start = limits.fields(ORDERS["random_to_raster"])["start"]
    assert (start.limit, start.fine_tuned, known["a"].fine_tuned) == (
        limits.SHARE,
        limits.FineTuned(0.0),
        None,
    )
    # Inherited, from another module, where annotations are text.
    assert limits.fields(MIXERS["vssd"])["heads"].limit == limits.COUNT
    with pytest.raises(UserError, match="config field part.aa: unknown; did you mean a"):
        limits.check(known, dict(aa=1), "part.")


# What the assembly gives and a config doesn't name.
REGISTRIES = dict(
    mixer=MIXERS,
    head=HEADS,
    feed=FEEDS,
    order=ORDERS,
    tokenizer=TOKENIZERS,
    encoder=ENCODERS,
    discriminator=DISCRIMINATORS,
    conditioning=CONDITIONINGS,
)
PARTS = [(axis, name) for axis, registry in REGISTRIES.items() for name in registry]
# Checked by what they name: paths against those that there are, inner parts when they are built.
NAMED = {("mixer", "paths"), ("discriminator", "weights")}


@pytest.mark.parametrize("axis, name", PARTS)
def test_every_part_says_what_its_fields_may_hold(axis, name):
    """A number or a word without a limit would be found by nobody: a part added tomorrow is held to this too."""
    given = axes.GIVEN[{"encoder": "tokenizer.encoder", "discriminator": PLACE}.get(axis, axis)]
    context = {"parent", "name", *given.split()}
    for field in limits.fields(REGISTRIES[axis][name]).values():
        if field.name in context or (axis, field.name) in NAMED:
            continue
        text = str(field.kind)
        if any(kind in text for kind in ("int", "float", "str")) and "Mapping" not in text:
            assert field.limit is not None, f"{axis} {name}.{field.name}: {text} without a limit"


@pytest.mark.parametrize("group", [*schema.GROUPS.values(), schema.Config, schema.Preset])
def test_every_group_says_what_its_fields_may_hold(group):
    free = {"name", "path", "dataset", "perceptual_weights"}
    for field in limits.fields(group).values():
        if field.kind in (int, float, str) and field.name not in free:
            assert field.limit is not None, field.name
    if group is not schema.Model:  # whose sizes have no default that would do
        limits.check(limits.fields(group), schema.defaults(group), "")


def test_choices_are_those_of_the_code():
    from vargen.data import SOURCES
    from vargen.tokenizers.losses import KINDS
    from vargen.training.optimizer import OPTIMIZERS

    def words(group, field):
        return set(limits.fields(group)[field].limit.words)

    assert words(schema.Data, "source") == set(SOURCES)
    assert words(schema.Training, "optimizer") == set(OPTIMIZERS)
    assert words(schema.Losses, "adversarial_kind") == set(KINDS)
