"""Every part has all that the protocol of its axis names."""

import inspect

import pytest

from vargen import heads, tokenizers
from vargen.conditioning import CONDITIONINGS, Conditioning
from vargen.feeds import FEEDS, Feed
from vargen.heads.head import Head, JointHead
from vargen.heads.joint import Joint
from vargen.mixers import MIXERS, Mixer
from vargen.mixers.chain import Chain
from vargen.tokenizers.jpeg import Jpeg
from vargen.tokenizers.tokenizer import Tokenizer

# What stands behind the functions of a registry.
HEADS = [
    getattr(heads, name) for name in sorted(set(heads.__all__) - {"HEADS", "Head", "JointHead", "Sample"})
]
PARTS = [
    *((Conditioning, part) for part in CONDITIONINGS.values()),
    *((Feed, part) for part in FEEDS.values()),
    *((Mixer, part) for part in [*MIXERS.values(), Chain] if inspect.isclass(part)),
    *((JointHead if issubclass(p, Joint) else Head, p) for p in HEADS),
    *((Tokenizer, part) for part in (tokenizers.VQ, tokenizers.KL, tokenizers.RQ, Jpeg)),
    *((Tokenizer, part) for part in (tokenizers.MultiScaleVQ, tokenizers.PyramidVQ, tokenizers.PyramidKL)),
]


@pytest.mark.parametrize("protocol, part", PARTS, ids=lambda x: x.__name__)
def test_all_of_it(protocol, part):
    expected = {name for name in {*vars(protocol), *protocol.__annotations__} if not name.startswith("_")}
    # Not asked of all: see the protocols.
    if not getattr(part, "enumerable", True):
        expected -= {"law"}
    if not getattr(part, "explicit", True):
        expected -= {"log_prob"}
    if getattr(part, "stages", None) == ("blocks",):
        expected -= {"enter"}
    assert not expected - set(dir(part)) - set(getattr(part, "__dataclass_fields__", {}))
