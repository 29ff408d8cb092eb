"""Mistakes in a config are found before anything trains, each in one line that names the field."""

import pathlib

import jax
import pytest
from systems import some_slow

from vargen import config
from vargen.cli import preflight
from vargen.errors import UserError

CONFIGS = pathlib.Path(__file__).parents[2] / "configs"
INF, NAN = float("inf"), float("nan")

# system, field, value, words of the message
WRONG = [
    ("var", "seed", -1, "from 0 to 18446744073709551615"),
    ("var", "seed", 2**64, "from 0 to 18446744073709551615"),
    ("var", "seed", 1.5, "a whole number"),
    ("var", "compute_dtype", "float16", "one of auto, float32, bfloat16"),
    ("var", "compute_dtype", "bfloat", "did you mean bfloat16?"),
    ("var", "data.source", "digit", "did you mean digits?"),
    ("var", "data.crop", "centre", "did you mean center?"),
    ("var", "data.channels", 2, "one of 1, 3"),
    ("var", "data.image_size", 0, "from 1 to 16384"),
    ("var", "data.image_size", 4, "at least 8 for digits"),
    ("var", "data.image_size", 20, "tokenizer.levels: expected the last to be the latent grid 5x5"),
    ("var", "data.image_size", 64, "for instance (1,2,3,4,5,6,8,10,13,16), or tokenizer.encoder.patch=16"),
    ("llamagen", "data.image_size", 30, "found 4; for instance 2, 3 or 5"),
    ("var", "data.image_size", 18, "tokenizer.encoder.patch: expected a divisor of the image's 18x18"),
    ("var", "data.shift", 16, "less than image_size"),
    ("var", "data.shift", -1, "from 0"),
    ("var", "data.test_fraction", 0.0, "above 0 and below 1"),
    ("var", "data.test_fraction", 1.0, "above 0 and below 1"),
    ("var", "data.num_classes", -3, "from 0"),
    ("var", "data.flip", "yes", "true or false"),
    ("var", "sampling.guidance", INF, "from 0 to"),
    ("var", "sampling.guidance", NAN, "from 0 to"),
    ("var", "sampling.guidance", -1.0, "from 0 to"),
    ("var", "sampling.guidance_schedule", "ramps", "did you mean ramp?"),
    ("var", "sampling.temperature", -0.1, "from 0 to"),
    ("var", "sampling.top_p", 0.0, "above 0"),
    ("var", "sampling.top_k", -1, "from 0"),
    ("var", "sampling.top_k", 2.5, "a whole number"),
    ("var", "sampling.steps", 7, "this order has 4 steps"),
    ("var", "sampling.policy", "jacobbi", "did you mean jacobi?"),
    ("var", "sampling.policy", "jacobi", "a feed whose rows may hold drafts (shift), found refine"),
    ("arpg", "sampling.policy", "jacobi", "a feed whose rows may hold drafts (shift), found query"),
    ("var", "sampling.lookahead", 0, "from 1 to"),
    ("var", "sampling.guess", "right", "one of random, left"),
    ("mar", "sampling.steps", 17, "1 to 16"),
    ("mar", "sampling.top_k", 5, "categorical head"),
    ("mar", "sampling.top_p", 0.9, "categorical head"),
    ("var", "training.steps", 0, "from 1 to"),
    ("var", "training.steps", 10**12, "from 1 to"),
    ("var", "training.batch_size", 0, "from 1 to"),
    ("var", "training.batch_size", 63, "a multiple of 2"),
    ("var", "training.accumulate", 3, "training.batch_size: expected a multiple of 6"),
    ("var", "training.accumulate", 0, "from 1 to"),
    ("var", "training.learning_rate", -1e-3, "from 0 to 100"),
    ("var", "training.learning_rate", INF, "a number"),
    ("var", "training.min_learning_rate", 1.0, "at most learning_rate"),
    ("var", "training.warmup_steps", -1, "from 0"),
    ("var", "training.schedule", "cosin", "did you mean cosine?"),
    ("var", "training.optimizer", "adam", "did you mean adamw?"),
    ("var", "training.b1", 1.0, "from 0 and below 1"),
    ("var", "training.b2", -0.1, "from 0 and below 1"),
    ("var", "training.ema_decay", 1.0, "from 0 and below 1"),
    ("var", "training.ema_decay", 1.5, "from 0 and below 1"),
    ("var", "training.weight_decay", -1.0, "from 0 to"),
    ("var", "training.clip_norm", -1.0, "of at least 0"),
    ("var", "training.log_every", 0, "from 1 to"),
    ("var", "training.save_every", 0, "from 1 to"),
    ("var", "training.keep", 0, "from 1 to"),
    ("var", "training.image_every", -5, "from 0"),
    ("var", "training.augmented_copies", 0, "from 1 to"),
    ("var", "training.remat", "block", "did you mean blocks?"),
    ("var", "training.mesh.data", 3, "multiply to the number of devices"),
    ("var", "training.mesh.fsdp", 0, "positive sizes"),
    ("var", "training.mesh.tensor", -1, "at most one -1"),
    ("var", "tokenizer_training.batch_size", 7, "a multiple of 2"),
    ("var", "tokenizer_training.losses.l2", 0.0, "a weight above 0"),
    ("var", "tokenizer_training.losses.l1", -1.0, "of at least 0"),
    (
        "var",
        "tokenizer_training.losses.adversarial",
        0.1,
        "discriminator.layers: expected images of 24 pixels",
    ),
    ("var", "tokenizer_training.losses.adversarial_kind", "hing", "did you mean hinge?"),
    ("var", "tokenizer_training.losses.r1_every", 0, "from 1 to"),
    ("var", "tokenizer_training.losses.lecam_decay", 1.0, "from 0 and below 1"),
    ("var", "tokenizer_training.losses.gram", -1.0, "of at least 0"),
    ("var", "tokenizer_training.losses.ms_ssim", -1.0, "of at least 0"),
    ("var", "evaluation.samples", 2, "from 4 to"),
    ("var", "evaluation.batch_size", 0, "from 1 to"),
    ("var", "evaluation.seed", -1, "from 0 to"),
    ("var", "model.layers", 0, "from 1 to"),
    ("mar", "model.layers", 3, "a number that 2 stages share evenly"),
    ("mar", "model.layers", (2, 2, 2), "or one for each"),
    ("var", "model.layers", "four", "a whole number"),
    ("var", "model.width", 0, "from 1 to"),
    ("var", "model.width", 130, "mixer.heads: expected a divisor of the width 130"),
    ("var", "model.mlp", "gelus", "did you mean gelu?"),
    ("var", "model.norm", "batch", "one of layer, rms"),
    ("var", "model.adaptive", "adaln_zero", "one of none, adaln, shared"),
    ("var", "model.eps", 0.0, "above 0"),
    ("var", "model.dropout", 1.0, "from 0 and below 1"),
    ("var", "model.drop_path", -0.1, "from 0 and below 1"),
    ("var", "model.init_std", NAN, "a number"),
    ("var", "mixer.name", "atention", "did you mean attention?"),
    ("var", "mixer.heads", 0, "from 1 to"),
    ("var", "mixer.heads", 3, "a divisor of the width 128"),
    ("var", "mixer.kv_heads", 3, "a divisor of the 4 heads"),
    ("var", "mixer.kv_heads", -1, "from 0"),
    ("var", "mixer.qk_norm", "l3", "did you mean l2?"),
    ("var", "mixer.bias", "k", "one of none, qv, qkv"),
    ("var", "mixer.rope", "place", "did you mean places?"),
    ("var", "mixer.window", -1, "of at least 0"),
    ("var", "mixer.dropout", 2.0, "from 0 and below 1"),
    ("var", "mixer.ropes", 1, "did you mean rope?"),
    ("var", "order.name", "spiral", "one of cells, chunks"),
    ("var", "order.name", "raster", "refine"),
    ("mar", "order.steps", 17, "1 to 16"),
    ("mar", "order.steps", 0, "from 1 to"),
    ("mar", "order.mask_ratio_min", 0.0, "above 0 to 1"),
    ("mar", "order.mask_ratio_min", 1.5, "above 0 to 1"),
    ("rar", "order.end", -1, "from 0"),
    ("rar", "order.start", 0.9, "order.end: expected at least start"),
    ("mar", "feed.name", "shift", "feed shift: needs an order whose steps"),
    ("var", "feed.name", "mask", "feed mask: needs an order of random sets"),
    ("mar", "feed.buffer", 0, "from 1 to"),
    ("var", "head.name", "diffusion", "head"),
    ("var", "head.label_smoothing", 1.0, "from 0 and below 1"),
    ("var", "head.init_std", -1.0, "from 0 to"),
    ("mar", "head.sample_steps", 1001, "1 to 1000"),
    ("mar", "head.sample_steps", 0, "from 1 to"),
    ("mar", "head.train_steps", 0, "from 1 to"),
    ("mar", "head.schedule", "cosin", "did you mean cosine?"),
    ("mar", "head.depth", 0, "from 1 to"),
    ("mar", "head.width", -8, "from 1 to"),
    ("mar", "head.repeat", 0, "from 1 to"),
    ("mar", "head.clip", -1.0, "of at least 0"),
    ("var", "conditioning.dropout", 1.5, "from 0 to 1"),
    ("var", "conditioning.name", "labels", "did you mean label?"),
    ("var", "conditioning.lead", 1, "needs the feed shift"),
    ("var", "tokenizer.name", "multiscale", "did you mean multiscale_vq?"),
    ("var", "tokenizer.vocab", 1, "from 2 to"),
    ("var", "tokenizer.channels", 0, "from 1 to"),
    ("var", "tokenizer.levels", (1, 2, 3), "the last to be the latent grid 4x4, found 3x3"),
    ("var", "tokenizer.levels", (1, 2.5, 4), "a tuple"),
    ("var", "tokenizer.levels", (0, 4), "from 1 to"),
    ("var", "tokenizer.phi", -1, "from 0 to"),
    ("var", "tokenizer.beta", -1.0, "of at least 0"),
    ("var", "tokenizer.centre_weight", -1.0, "of at least 0"),
    ("var", "tokenizer.revive_until", 1600, "from 0 to 1"),
    ("llamagen", "tokenizer.entropy_temperature", 0.0, "above 0"),
    ("mar", "tokenizer.scale", 0.0, "above 0"),
    ("mar", "tokenizer.kl_weight", -1.0, "of at least 0"),
    (
        "var",
        "tokenizer.encoder.name",
        "convolution",
        "one of across, adaptive, conv, depths, patch, pixel_cnn",
    ),
    ("var", "tokenizer.encoder.patch", 5, "a divisor of the image's 16x16"),
    ("var", "tokenizer.encoder.patch", 0, "from 1 to"),
    ("var", "tokenizer.encoder.width", "wide", "a whole number"),
    ("var", "tokenizer.encoder.size", 3, "unknown"),
]


def changed(system, fields):
    return config.override(config.load(CONFIGS / f"{system}.py"), list(fields.items()))


@pytest.mark.parametrize(
    "system, field, value, words", WRONG, ids=lambda x: str(x) if isinstance(x, (str, int)) else ""
)
def test_mistakes(system, field, value, words):
    with pytest.raises(UserError) as caught:
        preflight.check(changed(system, {field: value}), devices=2)
    text = str(caught.value)
    assert words in text and "\n" not in text, text
    # The field by its whole name, or the other one that it doesn't fit.
    assert text.startswith((f"config field {field}", "config field ")) or field.split(".")[0] in text, text


RIGHT = {
    "var": {
        "model.norm": "rms",
        "model.mlp": "swiglu",
        "model.eps": 1e-5,
        "model.drop_path": 0.1,
        "training.accumulate": 2,
        "training.mesh.fsdp": 2,
        "seed": 2**64 - 1,
    },
    "mar": {"model.layers": (2, 4), "sampling.steps": 4},
    "rar": {"training.mesh.tensor": 2},
    "llamagen": {"mixer.rope": "places", "sampling.policy": "jacobi"},
    "rqtransformer": {"tokenizer.temperature": 0.5},
}


@pytest.mark.parametrize("system", some_slow(RIGHT, ("mar", "rqtransformer")))
def test_what_fits_is_not_refused(system):
    generator = preflight.check(changed(system, RIGHT[system]), devices=2)
    assert generator.tokenizer.grid.size in (16, 30)


def test_nothing_is_allocated():
    before = len(jax.live_arrays())
    preflight.check(config.load(CONFIGS / "llamagen.py"), devices=1)
    assert len(jax.live_arrays()) - before < 50  # constants; a parameter tree has hundreds


def test_missing_parts():
    for axis in ("tokenizer", "order", "feed", "mixer", "head", "model", "conditioning"):
        c = config.load(CONFIGS / "var.py")
        del c[axis]
        with pytest.raises(UserError, match=f"config field {axis}: expected"):
            preflight.check(c, devices=1)
