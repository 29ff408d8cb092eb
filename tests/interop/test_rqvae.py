"""RQ-VAE's files against wrong ones."""

import pathlib

import jax
import numpy as np
import pytest

from vargen import models
from vargen.config import load
from vargen.errors import UserError
from vargen.interop import mapping, rqvae, systems

ROOT = pathlib.Path(__file__).parents[2]


def test_tables_of_all_depths_are_one():
    c = load(ROOT / "configs" / "rqtransformer.py:ffhq")
    c.tokenizer.update(dict(vocab=8, depth=2, channels=4))
    c.tokenizer.encoder.update(dict(width=32, multipliers=(1, 1, 1, 1, 1, 1), blocks=1))
    tokenizer = models.build_tokenizer(c)
    shapes = dict(mapping.flatten(jax.eval_shape(tokenizer.init, jax.random.key(0))))
    arrays = {n: np.zeros(s) for n, s in mapping.source_shapes(rqvae.table(tokenizer), shapes).items()}
    assert "encoder.down.4.attn.0.q.weight" in arrays and "encoder.down.5.attn.0.q.weight" not in arrays
    arrays["quantizer.codebooks.0.weight"] = arrays["quantizer.codebooks.1.weight"] = np.ones((9, 4))
    found = systems.read(rqvae, tokenizer, arrays)["quantizer"]["codebook"]
    assert found.shape == (1, 8, 4) and np.all(found == 1)
    arrays["quantizer.codebooks.1.weight"] = 2 * np.ones((9, 4))
    message = (
        r"RQ-VAE: expected quantizer\.codebooks\.1\.weight to be quantizer\.codebooks\.0\.weight once more"
    )
    with pytest.raises(UserError, match=message):
        systems.read(rqvae, tokenizer, arrays)
