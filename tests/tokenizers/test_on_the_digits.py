"""One generator over any tokenizer of a grid: configs/tokenizers.py."""

import pathlib
import runpy

import pytest

from vargen import config, models

FILE = pathlib.Path(__file__).parents[2] / "configs" / "tokenizers.py"
ROWS = runpy.run_path(str(FILE))["TOKENIZERS"]
SEVERAL = {
    "bsq_groups": 2,
    "product": 2,
    "qlae": 6,
    "bins": 8,
    "binary": 8,
    "dual": 2,
    "walloc": 8,
    "dq": 2,
    "vitok": 8,
}
SLOTS = {"hart": 30, "dynamic": 33, "dq": 17}


@pytest.mark.parametrize("row", ROWS)
def test_builds(row):
    """With its generator, whose head draws as many codes as a slot has; and is read as it was written."""
    c = config.load(FILE.with_suffix(f".py:{row}"))
    assert config.from_json(config.to_json(c)) == c
    c.data.num_classes = 10
    tokenizer = models.build_tokenizer(c)
    assert tokenizer.grid.size == SLOTS.get(row, 16)
    assert tokenizer.slot.shape == ((SEVERAL[row],) if row in SEVERAL else ())
    generator = models.build_generator(c, tokenizer)
    assert 0.8e6 < models.parameter_count(generator) < 2e6
