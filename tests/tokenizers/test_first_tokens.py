"""The first few tokens of nested ones: drawn alone they are those that a whole drawing begins with."""

import jax
import numpy as np
import pytest

from vargen import config, models
from vargen.errors import UserError
from vargen.model import Model

SIZES = dict(layers=2, width=32, mlp="swiglu", mlp_width=64, norm="rms", bias=False)
ENCODER = dict(patch=4, width=16, layers=2, heads=2)


def model(row: str, **encoder) -> Model:
    """Random parameters; tables by place, so that they must be cut."""
    c = config.load(f"registers:{row}")
    c.data.num_classes = 3
    c.model = SIZES
    c.tokenizer.encoder.update(ENCODER | encoder)
    c.sampling.guidance = 2.0
    tokenizer = models.build_tokenizer(c)
    generator = models.build_generator(c, tokenizer)
    return Model(
        c,
        jax.jit(tokenizer.init)(jax.random.key(0)),
        jax.jit(generator.init)(jax.random.key(1)),
        ["a", "b", "c"],
    )


@pytest.mark.parametrize("row,tokens", [("flextok", 5), pytest.param("restok", 4, marks=pytest.mark.slow)])
def test_drawn_alone(row, tokens):
    """Contents equal those of the whole drawing's first tokens, and so does the picture that these are."""
    whole = model(row)
    first = whole.first(tokens)
    labels, key = [0, 1, 2], jax.random.key(3)
    content = np.asarray(whole.generate(labels, key)[0])
    found = np.asarray(first.generate(labels, key)[0])
    assert found.shape[1] == tokens
    np.testing.assert_array_equal(found, content[:, :tokens])
    assert whole.first(0) is whole and first.first(tokens) is first
    images = np.asarray(first.decode(found))
    assert images.shape == (3, 16, 16, 1) and np.isfinite(images).all()
    assert len(first.encode(images)[0]) == tokens


def test_refused():
    whole = model("restok")
    with pytest.raises(
        UserError, match="sampling.tokens: expected 1 to 16, or the end of a level: 1, 2, 4, 8, 16, found 3"
    ):
        whole.first(3)
    with pytest.raises(UserError, match="sampling.tokens: expected Model.first"):
        whole.sample([0], jax.random.key(0), tokens=4)
    with pytest.raises(UserError, match="needs a tokenizer whose first tokens are a picture"):
        model("titok").first(4)


@pytest.mark.parametrize("row", ["titok", "flextok", "semanticist", "restok", "dar", "selftok", "larp"])
def test_builds(row):
    c = config.load(f"registers:{row}")
    assert config.from_json(config.to_json(c)) == c
    c.data.num_classes = 10
    tokenizer = models.build_tokenizer(c)
    assert tokenizer.grid.size == 16 and tokenizer.codec.prefixes == (row not in ("titok", "larp"))
    assert 0.8e6 < models.parameter_count(models.build_generator(c, tokenizer)) < 2e6
