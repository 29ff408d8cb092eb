"""What validation measures of a tokenizer, against NumPy."""

import types

import numpy as np
import pytest
from systems import make, some_slow

from vargen import sharding
from vargen.training import held_out


@pytest.mark.parametrize("name", some_slow(["var", "llamagen", "mar"], ["var", "mar"]))
def test_of_tokenizer(name):
    config, generator, _, params = make(name)
    tokenizer = generator.tokenizer
    side, channels = config.data.image_size, config.data.channels
    images = np.random.default_rng(0).uniform(-1, 1, (7, side, side, channels)).astype(np.float32)
    validate, _ = held_out.of_tokenizer(tokenizer, images, 4, sharding.make_mesh())  # 7 is no multiple of 4
    found = validate(types.SimpleNamespace(ema=params))

    content = np.asarray(tokenizer.encode(params, images))
    errors = np.square(np.asarray(tokenizer.decode(params, content), np.float64) - images).mean(
        axis=(1, 2, 3)
    )
    expected = dict(loss=errors.mean(), psnr_db=np.mean(10 * np.log10(4 / errors)))
    if tokenizer.slot.kind == "codes":
        levels = np.split(content, tokenizer.grid.level_starts[1:], axis=1)
        for i, codes in enumerate([content, *levels]):
            suffix = f"_level_{i}" if i else ""
            _, counts = np.unique(codes, return_counts=True)
            share = counts / codes.size
            expected[f"codebook_use{suffix}"] = len(counts) / min(tokenizer.vocab, codes.size)
            expected[f"codebook_perplexity{suffix}"] = np.exp(-np.sum(share * np.log(share)))
    assert found == pytest.approx(expected, rel=1e-4)
