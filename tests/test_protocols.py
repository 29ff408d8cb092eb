"""Every part has all that the protocol of its axis names; `conformance.py` holds them against it by type."""

import inspect
import typing

import conformance
import pytest

from vargen.conditioning import CONDITIONINGS, Conditioning
from vargen.feeds import FEEDS, Feed
from vargen.heads import HEADS, Head, JointHead
from vargen.heads.joint import Joint
from vargen.mixers import MIXERS, Mixer
from vargen.orders import ORDERS, Ordering
from vargen.slots import Grid
from vargen.tokenizers import TOKENIZERS
from vargen.tokenizers.discriminators import DISCRIMINATORS, Discriminator
from vargen.tokenizers.tokenizer import Tokenizer


def part(constructor):
    """The class of what a registered constructor makes; of one that doesn't say, as an order of a grid alone."""
    if inspect.isclass(constructor):
        return constructor
    return typing.get_type_hints(constructor).get("return") or type(constructor(Grid(((2, 2),))))


REGISTRIES = {
    Conditioning: (CONDITIONINGS, conformance.every_conditioning),
    Discriminator: (DISCRIMINATORS, conformance.every_discriminator),
    Feed: (FEEDS, conformance.every_feed),
    Head: ({k: x for k, x in HEADS.items() if not issubclass(part(x), Joint)}, conformance.every_head),
    JointHead: ({k: x for k, x in HEADS.items() if issubclass(part(x), Joint)}, conformance.every_joint_head),
    Mixer: (MIXERS, conformance.every_mixer),
    Ordering: (ORDERS, conformance.every_order),
    Tokenizer: (TOKENIZERS, conformance.every_tokenizer),
}
PARTS = [
    pytest.param(protocol, part(x), id=f"{protocol.__name__}-{name}")
    for protocol, (registry, _) in REGISTRIES.items()
    for name, x in registry.items()
]


@pytest.mark.parametrize("protocol, part", PARTS)
def test_all_of_it(protocol, part):
    expected = {name for name in dir(protocol) if not name.startswith("_")}
    # Not asked of all: see the protocols.
    if not getattr(part, "enumerable", True):
        expected -= {"law"}
    if not getattr(part, "explicit", True):
        expected -= {"log_prob"}
    if getattr(part, "stages", None) == ("blocks",):
        expected -= {"enter"}
    assert not expected - set(dir(part)) - set(getattr(part, "__dataclass_fields__", {}))


@pytest.mark.parametrize("protocol", REGISTRIES, ids=lambda x: x.__name__)
def test_none_is_left_out_of_the_type_checker(protocol):
    registry, every = REGISTRIES[protocol]
    types = typing.get_type_hints(every)
    assert types.pop("return") == list[protocol]
    assert types == {name: part(x) for name, x in registry.items()}
    assert every(**{name: name for name in types}) == list(types)  # all of them are given as the protocol
