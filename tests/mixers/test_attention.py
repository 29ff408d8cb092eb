"""Attention under every order: its two forms, and its options."""

import pytest
from harness import CASES, check_mixer

from vargen.mixers import Attention

OPTIONS = {
    "plain": dict(heads=2),
    "grouped_l2": dict(heads=4, kv_heads=2, qk_norm="l2", bias="qkv"),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("name", OPTIONS)
def test_forms_agree(name, case):
    check_mixer(Attention, case, **OPTIONS[name])
