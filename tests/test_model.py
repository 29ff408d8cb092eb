"""A model from Python: what it refuses, in one line, and what it takes."""

import types

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from systems import make

import vargen
from vargen.errors import UserError
from vargen.model import Model
from vargen.samplers import decode


def model_of(name):
    config, _, params, tokenizer_params = make(name)
    return Model(config, tokenizer_params, params)


@pytest.fixture(scope="module")
def models():
    return {name: model_of(name) for name in ("llamagen", "mar")}


IMAGES = np.zeros((1, 16, 16, 1), np.float32)
CODES = np.zeros((1, 16), np.int32)
LATENTS = np.zeros((1, 16, 4), np.float32)


def spoilt(array, value):
    array = array.copy()
    array.flat[3] = value
    return array


BAD_IMAGES = [
    (IMAGES.astype(np.uint8), "data.to_float"),
    (IMAGES.astype(np.int64), "float"),
    (IMAGES.astype(bool), "bool"),
    (IMAGES.astype(complex), "complex"),
    (IMAGES.astype(object), "object"),
    (IMAGES.astype(str), "<U"),
    (spoilt(IMAGES, 255), "0 to 255"),
    (spoilt(IMAGES, 2.5), "2.5"),
    (spoilt(IMAGES, -3), "-3"),
    (spoilt(IMAGES, np.nan), "nan"),
    (spoilt(IMAGES, np.inf), "inf"),
    (spoilt(IMAGES, -np.inf), "-inf"),
    (jnp.asarray(spoilt(IMAGES, np.nan)), "nan"),
    (jnp.asarray(IMAGES, jnp.uint8), "uint8"),
    (IMAGES[0], "[16, 16, 1]"),
    (IMAGES[..., 0], "[1, 16, 16]"),
    (IMAGES[None], "[1, 1, 16, 16, 1]"),
    (IMAGES[:0], "none"),
    (np.zeros((1, 16, 16, 3), np.float32), "[1, 16, 16, 3]"),
    (np.zeros((1, 8, 8, 1), np.float32), "[1, 8, 8, 1]"),
    (np.zeros((1, 1, 16, 16), np.float32), "[1, 1, 16, 16]"),
    (0.5, "[]"),
    ([], "[0]"),
    ([[1.0], [1.0, 2.0]], "list"),
    (None, "None"),
    ("picture.png", "picture.png"),
    (b"\x89PNG", "PNG"),
    ({}, "{}"),
    (jax.random.key(0), "PRNG"),
]

BAD_CODES = [
    (CODES + 16, "16"),
    (CODES - 1, "-1"),
    (spoilt(CODES.astype(np.int64), 2**32 + 3), "4294967299"),
    (spoilt(CODES.astype(np.uint64), 2**64 - 1), "18446744073709551615"),
    (CODES.astype(np.float32), "float32"),
    (CODES.astype(bool), "bool"),
    (CODES.astype(complex), "complex"),
    (CODES.astype(str), "<U"),
    (CODES.astype(object), "object"),
    (CODES[:, :15], "[1, 15]"),
    (CODES[0], "[16]"),
    (CODES[:0], "none"),
    (CODES[None], "[1, 1, 16]"),
    (LATENTS, "float32"),
    (jnp.asarray(CODES) + 99, "99"),
    (None, "None"),
    ("codes.npy", "codes.npy"),
    (3, "[]"),
]

BAD_LATENTS = [
    (spoilt(LATENTS, np.nan), "nan"),
    (spoilt(LATENTS, -np.inf), "inf"),
    (spoilt(LATENTS.astype(np.float64), 1e300), "1e+300"),
    (LATENTS.astype(np.int32), "int32"),
    (LATENTS.astype(complex), "complex"),
    (LATENTS.astype(bool), "bool"),
    (LATENTS[..., :3], "[1, 16, 3]"),
    (LATENTS[:, :9], "[1, 9, 4]"),
    (LATENTS[0], "[16, 4]"),
    (LATENTS[:0], "none"),
    (CODES, "int32"),
    (None, "None"),
]

BAD_LABELS = [
    (2.7, "2.7"),
    ([2.0], "2.0"),
    ("bird", "class 'bird': expected a number from 0 to 9"),
    ("10", "'10'"),
    ("1-3", "'1-3'"),
    (["3", 10], "10"),
    (["3", [3]], "[3]"),
    (["3", 2.5], "2.5"),
    (10, "10"),
    ([2**32 + 3], "4294967299"),
    (2**70, "1180591620717411303424"),
    ([-1], "-1"),
    ([11], "11"),
    ([[1], [2]], "[2, 1]"),
    ([[1], [2, 3]], "list"),
    ([np.nan], "nan"),
    (True, "True"),
    ([True, False], "bool"),
    ([1 + 0j], "complex"),
    ([], "none"),
    (None, "None"),
    ({}, "{}"),
    (np.zeros((1, 1), int), "[1, 1]"),
    (np.array([1], object), "object"),
    (np.array(["cat"]), "'cat'"),
    (jnp.array([1.0]), "float32"),
    (jnp.array([12]), "12"),
]

BAD_KEYS = [
    (-1, "-1"),
    (2**64, "18446744073709551616"),
    (1.0, "1.0"),
    ("0", "'0'"),
    (None, "None"),
    (True, "True"),
    (np.bool_(True), "True"),
    (np.nan, "nan"),
    (np.float32(1), "1.0"),
    ([1], "[1]"),
    (np.zeros(2, np.int32), "int32"),
    (np.zeros(3, np.uint32), "uint32 [3]"),
    (np.zeros((2, 2), np.uint32), "uint32 [2, 2]"),
    (jax.random.split(jax.random.key(0), 2), "[2]"),
    (jnp.zeros(2), "float32 [2]"),
]

BAD_OPTIONS = [
    (dict(guidence=2.0), "guidance"),
    (dict(guidance=np.inf), "inf"),
    (dict(guidance=np.nan), "nan"),
    (dict(guidance=1e308), "1e+308"),
    (dict(guidance="2"), "'2'"),
    (dict(guidance=[2.0]), "[2.0]"),
    (dict(guidance=np.ones(2)), "guidance"),
    (dict(guidance=True), "True"),
    (dict(guidance=-1.0), "-1.0"),
    (dict(temperature=np.inf), "inf"),
    (dict(temperature=-0.1), "-0.1"),
    (dict(temperature=1j), "1j"),
    (dict(top_p=0), "above 0 to 1"),
    (dict(top_p=1.01), "1.01"),
    (dict(top_p=np.nan), "nan"),
    (dict(top_k=-1), "-1"),
    (dict(top_k=1.5), "1.5"),
    (dict(top_k=10**11), "100000000000"),
    (dict(steps=5), "16 steps"),
    (dict(steps="all"), "'all'"),
    (dict(guidance_schedule="cosin"), "cosine"),
    (dict(guided=True), "guided"),
]


def refused(words, function, *arguments, **options):
    with pytest.raises(UserError) as caught:
        function(*arguments, **options)
    assert words in str(caught.value) and "\n" not in str(caught.value), caught.value


@pytest.mark.parametrize("images, words", BAD_IMAGES)
def test_bad_images(models, images, words):
    refused(words, models["llamagen"].encode, images)
    refused(words, models["llamagen"].reconstruct, images)


@pytest.mark.parametrize("codes, words", BAD_CODES)
def test_bad_codes(models, codes, words):
    refused(words, models["llamagen"].decode, codes)
    refused(words, models["llamagen"].log_likelihood, codes, [1])


@pytest.mark.parametrize("latents, words", BAD_LATENTS)
def test_bad_latents(models, latents, words):
    refused(words, models["mar"].decode, latents)


@pytest.mark.parametrize("labels, words", BAD_LABELS)
def test_bad_labels(models, labels, words):
    for call in ("sample", "generate", "sample_steps"):
        refused(words, getattr(models["llamagen"], call), labels, 0)
    refused(words, models["llamagen"].log_likelihood, CODES, labels)


@pytest.mark.parametrize("key, words", BAD_KEYS)
def test_bad_keys(models, key, words):
    refused(words, models["llamagen"].sample, [1], key)


@pytest.mark.parametrize("options, words", BAD_OPTIONS)
def test_bad_options(models, options, words):
    refused(words, models["llamagen"].sample, [1], 0, **options)


def test_other_mistakes(models):
    model = models["llamagen"]
    refused("one for each of the codes", model.log_likelihood, CODES, [1, 2])
    for pictures in (0, -1, 2.5, "3", None, True):
        refused("pictures", model.sample_steps, [1], 0, pictures=pictures)
    order = model.generator.ordering.decoding(None, 1)
    refused("chosen", model.growth, CODES, order, chosen=[1])
    refused("chosen", model.growth, CODES, order, chosen=[0.5])
    refused("order", model.growth, CODES, None)
    refused("order", model.growth, CODES, types.SimpleNamespace(slots=np.arange(4), steps=np.arange(4)))
    alone = Model(model.config, model.tokenizer_params)
    refused("tokenizer alone", alone.sample, [1], 0)
    refused("tokenizer alone", alone.log_likelihood, CODES, [1])


TOP = np.arange(16)[:, None] < np.full(16, 8)  # the upper half, two rows of four patches


def test_completion(models):
    """Kept codes stay, what isn't kept plays no role, and the rest follows from what is and from the label."""
    model = models["llamagen"]
    images = jax.random.uniform(jax.random.key(0), (2, 16, 16, 1), minval=-1)
    masked = jnp.where(TOP[..., None], images, 0.0)
    drawn = model.complete(images, TOP, [1, 2], 0, temperature=0.5)
    assert drawn.shape == images.shape
    np.testing.assert_array_equal(model.complete(masked, TOP.astype(int), [1, 2], 0, temperature=0.5), drawn)
    found = model.encode(masked)[:, :8]
    quantizer = model.tokenizer_params["quantizer"]
    given = (model.encode(masked), np.arange(16) < 8)
    labels, sampling = jnp.array([1, 2]), model.sampling(temperature=0.5)
    again = decode(
        model.generator, model.generator_params, quantizer, labels, jax.random.key(0), sampling, given
    )
    np.testing.assert_array_equal(again.content[:, :8], found)
    np.testing.assert_allclose(model.decode(again.content), drawn, atol=1e-5)
    assert not np.allclose(model.complete(images, TOP, [3, 4], 0, temperature=0.5), drawn)


def test_completion_refuses(models):
    model, one = models["llamagen"], np.zeros((1, 16, 16, 1), np.float32)
    for kept, words in (
        (TOP[:8], "kept: expected bool [16, 16], the pixels that stay, found an array [8, 16]"),
        (TOP * 2, "kept: expected bool [16, 16], the pixels that stay, found other values than 0 and 1"),
        (np.zeros((16, 16), bool), "kept: expected at least a patch of 4x4 pixels, found none"),
        (np.ones((16, 16), bool), "kept: expected a part that is drawn anew, found that all stays"),
        (1, "kept: expected a part of the picture, as there is one level, found 1 of them"),
        (~TOP, "kept: expected whole steps of the order, from the first one on, found others"),
        ("top", "kept: expected bool"),
        (None, "kept: expected bool"),
    ):
        refused(words, model.complete, one, kept, [1], 0)
    refused("labels: expected 1, one for each of the images, found 2", model.complete, one, TOP, [1, 2], 0)
    refused("class: expected 0 to 9, found 11", model.complete, one, TOP, [11], 0)
    refused("images: expected float", model.complete, one[..., 0], TOP, [1], 0)


def test_what_is_taken(models):
    """Every precision, list and kind of array that holds the same gives the same."""
    model = models["llamagen"]
    codes = np.asarray(model.encode(IMAGES))
    for dtype in (np.float64, np.float16, ml_dtypes.bfloat16):
        np.testing.assert_array_equal(model.encode(IMAGES.astype(dtype)), codes)
    np.testing.assert_array_equal(model.encode(IMAGES.tolist()), codes)
    np.testing.assert_array_equal(model.encode(jnp.asarray(IMAGES)), codes)
    assert model.encode(spoilt(IMAGES, 1.9)).shape == (1, 16)  # interpolation overshoots
    images = np.asarray(model.decode(codes))
    for same in (codes.astype(np.uint8), codes.astype(np.int64), codes.tolist(), jnp.asarray(codes)):
        np.testing.assert_array_equal(model.decode(same), images)
    assert models["mar"].decode(LATENTS.astype(np.float64)).shape == IMAGES.shape
    # What a decoder overshoots by is cut off, so that every picture is taken back.
    loud = spoilt(LATENTS, 1000.0)
    raw = models["mar"].tokenizer.decode(models["mar"].tokenizer_params, loud)
    found = models["mar"].decode(loud)
    assert np.abs(raw).max() > 1.5
    np.testing.assert_allclose(found, np.clip(raw, -1, 1), atol=1e-5)
    assert models["mar"].encode(found).shape == (1, 16, 4)

    drawn = np.asarray(model.generate([3], 7)[0])
    for labels in ((3,), 3, np.array([3], np.uint8), np.int64(3), jnp.array([3])):
        np.testing.assert_array_equal(model.generate(labels, 7)[0], drawn)
    for key in (
        np.int64(7),
        np.uint64(7),
        jnp.int32(7),
        np.array(7),
        jax.random.key(7),
        jax.random.PRNGKey(7),
    ):
        np.testing.assert_array_equal(model.generate([3], key)[0], drawn)
    np.testing.assert_array_equal(model.generate([3], np.asarray(jax.random.PRNGKey(7)))[0], drawn)
    options = dict(temperature=np.float32(1), top_k=np.int64(0), top_p=1, guidance=None, steps=16)
    np.testing.assert_array_equal(model.generate([3], 7, **options)[0], drawn)
    assert model.generate([None], 7)[0].shape == (1, 16)  # no label
    for labels in ("3", ["3"], np.array(["3"]), [np.int64(3)]):
        np.testing.assert_array_equal(model.generate(labels, 7)[0], drawn)
    others = [np.asarray(model.generate([3], seed)[0]) for seed in (7 + 2**32, 2**64 - 1)]
    assert not np.array_equal(others[0], drawn) and not np.array_equal(*others)
    assert np.isfinite(model.log_likelihood(drawn.astype(np.uint8), 3)).all()


def test_values_are_not_looked_at_under_a_trace(models):
    model = models["llamagen"]
    assert jax.eval_shape(lambda x: model.decode(model.encode(x)), jnp.asarray(IMAGES)).shape == IMAGES.shape
    with pytest.raises(UserError, match="float"):
        jax.eval_shape(model.encode, jnp.asarray(IMAGES, jnp.int32))


@pytest.mark.parametrize("path", ["", " ", None, 3, b"x", [], "\0", "~nosuchuser/x"])
def test_no_path(path):
    refused("expected", vargen.load, path)


def test_no_model(tmp_path):
    (tmp_path / "file").write_text("x")
    refused("a file", vargen.load, tmp_path / "file")
    refused("none", vargen.load, tmp_path / "nowhere")
    refused("found none", vargen.load, tmp_path)
    refused("'ema' or 'params'", vargen.load, tmp_path, "best")
    refused("'ema' or 'params'", vargen.load, tmp_path, ["ema"])


@pytest.mark.parametrize(
    "text, words",
    [
        ("{", "JSON"),
        ("", "JSON"),
        ("[]", "object"),
        ("{}", "tokenizer"),
        ("[" * 100_000, "config"),
        (b"\xff\xfe", "tokenizer"),
        (None, "tokenizer"),
    ],
)
def test_broken_configs_of_models(models, tmp_path, text, words):
    from vargen import config, weights_file

    def put(text):
        folder = tmp_path / "tokenizer"
        (folder / "config.json").unlink(missing_ok=True)
        if text is not None:
            (folder / "config.json").write_bytes(text if isinstance(text, bytes) else text.encode())

    (tmp_path / "tokenizer").mkdir()
    model = models["llamagen"]
    weights_file.write(tmp_path / "tokenizer" / "params.safetensors", jax.device_get(model.tokenizer_params))
    put(text)
    refused(words, vargen.load, tmp_path)
    other = model.config.copy_and_resolve_references()
    other.tokenizer.vocab = 32
    put(config.to_json(other))
    refused("expected parameters as its config says", vargen.load, tmp_path)
    put(config.to_json(model.config))
    np.testing.assert_array_equal(vargen.load(tmp_path).encode(IMAGES), model.encode(IMAGES))


def test_a_few_pictures_are_decoded_at_a_time(models, monkeypatch):
    model = models["llamagen"]
    codes = np.random.default_rng(0).integers(0, model.tokenizer.slot.vocab, (6, 16))
    together = model.decode(codes)
    monkeypatch.setattr("vargen.model.PIXELS", 2 * 16 * 16)
    in_turn = model.with_config(model.config)
    assert "while" in in_turn._decode.lower(model.tokenizer_params, jnp.asarray(codes)).as_text()
    np.testing.assert_allclose(in_turn.decode(codes), together, rtol=0, atol=1e-6)
