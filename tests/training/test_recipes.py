"""The recipes of the papers' sizes, against the authors' own formulas and numbers, typed from their code in float64."""

import math
import pathlib

import jax
import numpy as np
import pytest
from flax.core import meta
from training_fakes import FROZEN, FakeTask, batch_at, settings

from vargen import config, fine_tuning, orders, sharding
from vargen.errors import UserError
from vargen.interop import mapping, systems
from vargen.slots import Grid
from vargen.training import optimizer, state
from vargen.training.step import make_step

CONFIGS = pathlib.Path(__file__).parents[2] / "configs"
IMAGES = 1_281_167
VAR = ["d16", "d20", "d24", "d30", "d36"]
LLAMAGEN = ["b", "l", "xl", "xxl", "3b"]
MAR, RAR = list("blh"), ["b", "l", "xl", "xxl"]
SIZES = [
    *(("var", size) for size in VAR),
    *(("llamagen", size) for size in (*LLAMAGEN, "text256", "text512")),
    *(("mar", size) for size in MAR),
    *(("rar", size) for size in RAR),
]


def load(system, size):
    return config.load(f"{CONFIGS / system}.py:{size}")


# Learning rate and weight decay.

# FoundationVision/VAR, README: batch, epochs, tblr, wpe, twd, twde.
VAR_RUNS = dict(
    d16=(768, 200, 1e-4, 0.1, 0.05, 0.05),
    d20=(768, 250, 1e-4, 0.1, 0.05, 0.05),
    d24=(768, 350, 8e-5, 0.01, 0.05, 0.05),
    d30=(1024, 350, 8e-5, 0.01, 0.05, 0.08),
    d36=(768, 350, 8e-5, 0.01, 0.05, 0.08),
)


def var_run(size, epochs=None):
    """Updates, learning rate and weight decay of update `it` (train.py, utils/lr_control.py, sche lin0)."""
    batch, usual, tblr, wpe, twd, twde = VAR_RUNS[size]
    epochs = epochs or usual
    per_epoch = math.ceil(IMAGES / batch)  # the last batch is filled up
    most, warmup, peak = epochs * per_epoch, epochs / 50 * per_epoch, tblr * batch / 256

    def rate(it):
        warm = round(warmup)
        if it < warm:
            share = 0.005 + (1 - 0.005) * it / warm
        else:
            passed = (it - warm) / (most - 1 - warm)
            share = 1 if passed < 0.05 else wpe + (1 - wpe) * (1 - passed) / 0.95
        return share * peak

    def decay(it):
        return twde + (twd - twde) * (0.5 + 0.5 * math.cos(math.pi * it / (most - 1)))

    return most, batch, rate, decay


def hmar_run(size):
    """VAR's, and 100 epochs for the second stage (NVlabs/HMAR)."""
    first, masked = size.removesuffix("_masked"), size.endswith("_masked")
    return var_run(first, 100 if masked else None)


def llamagen_run(size):
    """Constant (train_c2i.py); batches and rates of the authors' tracker, issue 8."""
    batch, peak, ranks = {
        "b": (256, 1e-4, 8),
        "l": (256, 1e-4, 8),
        "xl": (256, 2e-4, 16),
        "xxl": (512, 2e-4, 32),
        "3b": (512, 2e-4, 32),
    }[size]
    per_epoch = math.ceil(IMAGES / ranks) // (batch // ranks)  # DistributedSampler, drop_last
    return 300 * per_epoch, batch, lambda it: peak, lambda it: 0.05


def mar_run(size):
    """util/lr_sched.py, by epochs and their fractions; README: 64 images on each of 32 devices, 800 epochs."""
    del size
    per_epoch = math.ceil(IMAGES / 32) // 64
    peak = 1e-4 * 2048 / 256

    def rate(it):
        epoch = it / per_epoch
        return peak * epoch / 100 if epoch < 100 else peak

    return 800 * per_epoch, 2048, rate, lambda it: 0.02


def rar_run(size):
    """utils/lr_schedulers.py (cosine), configs/training/generator/rar.yaml."""
    del size
    base, end, warmup, most = 4e-4, 1e-5, 62_500, 250_000

    def rate(it):
        if it < warmup:
            return base * it / warmup
        progress = (it - warmup) / (most - warmup)
        ratio = max(0.0, 0.5 * (1.0 + math.cos(math.pi * progress)))
        return end + (base - end) * ratio

    return most, 2048, rate, lambda it: 0.03


RUNS = dict(var=var_run, hmar=hmar_run, llamagen=llamagen_run, mar=mar_run, rar=rar_run)
# Clipping, betas of AdamW, the average's decay.
NUMBERS = dict(
    var=(2.0, 0.9, 0.95, 0.0), hmar=(2.0, 0.9, 0.95, 0.0),
    llamagen=(1.0, 0.9, 0.95, 0.0), mar=(3.0, 0.9, 0.95, 0.9999), rar=(1.0, 0.9, 0.96, 0.0)
)  # fmt: skip


HMAR = [("hmar", "d16"), ("hmar", "d30"), ("hmar", "d24_masked"), ("hmar", "d30_masked")]


@pytest.mark.parametrize("system, size", [*HMAR, *(pair for pair in SIZES if not pair[1].startswith("text"))])
def test_rates(system, size):
    s = load(system, size).training
    most, batch, rate, decay = RUNS[system](size)
    assert (s.steps, s.batch_size) == (most, batch)
    assert (s.clip_norm, s.b1, s.b2, s.ema_decay) == NUMBERS[system]
    rng = np.random.default_rng(0)
    warm = s.warmup_steps
    edges = [0, 1, warm - 1, warm, warm + 1, most - 2, most - 1]
    steps = np.unique([*np.clip(edges, 0, most - 1), *rng.integers(0, most, 200)])
    expected = [rate(int(it)) for it in steps]
    found = jax.vmap(optimizer.schedule(s))(steps)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-7 * s.learning_rate)
    decays = optimizer.weight_decay(s)
    found = [decays(it) if callable(decays) else decays for it in steps[::20]]
    np.testing.assert_allclose(found, [decay(int(it)) for it in steps[::20]], rtol=1e-6)


def test_share_of_random_orders():
    """utils/train_utils.py get_rar_random_ratio: 1 before update 125,000, 0 after 187,500, a line between."""
    c = load("rar", "b")
    order = orders.random_to_raster(Grid(((3, 3),)), c.order.start, c.order.end)
    for update, expected in (
        (0, 1.0),
        (125_000, 1.0),
        (140_625, 0.75),
        (171_875, 0.25),
        (187_500, 0.0),
        (249_999, 0.0),
    ):
        slots = order.training(jax.random.key(update), np.zeros((4000, 9)), update / c.training.steps).slots
        share = np.mean(np.any(np.asarray(slots) != np.arange(9), axis=1))
        assert abs(share - expected) < 0.03 * (0 < expected < 1) + 1e-9  # four standard deviations


def test_stages_of_text():
    """scripts/autoregressive/train_t2i_stage{1,2}.sh and the defaults of train_t2i.py; the epochs are ours."""
    for size, image, pictures in (("text256", 256, 50e6), ("text512", 512, 10e6)):
        c = load("llamagen", size)
        s = c.training
        assert (s.batch_size, s.learning_rate, s.weight_decay, s.clip_norm) == (256, 1e-4, 0.05, 1.0)
        assert (s.steps, c.data.image_size) == (pictures // 256, image)
        assert (c.conditioning.tokens, c.conditioning.channels, c.conditioning.dropout) == (120, 2048, 0.1)
        assert not s.codes and (c.data.crop, c.data.flip) == ("center", False)


@pytest.mark.parametrize("system, size", SIZES)
def test_fine_tuning_of_what_was_trained_so(system, size):
    """It starts with a config that holds together: a floor under the rate, an average of a short run."""
    c = load(system, size)
    tuned = fine_tuning.begun(c)
    s = tuned.training
    assert (s.learning_rate, s.min_learning_rate, s.schedule, s.ema_warmup) == (1e-5, 0.0, "constant", True)
    assert optimizer.weight_decay(s) == s.weight_decay
    arrived = dict(order=dict(start=0.0, end=0.0)) if system == "rar" else {}  # no random orders any more
    for axis in config.AXES:
        assert tuned[axis].to_dict() == c[axis].to_dict() | arrived.get(axis, {})


def test_fine_tuning_of_an_order_by_its_defaults():
    c = load("rar", "digits")
    c.order = config.part("random_to_raster")
    assert fine_tuning.begun(c).order.to_dict() == dict(name="random_to_raster", start=0.0, end=0.0)
    assert "start" not in c.order
    c.order = config.part("spiral")
    with pytest.raises(UserError, match="order.name: expected one of .*, found 'spiral'"):
        fine_tuning.begun(c)


# Dropout: VAR's drop_rate, models/__init__.py; LlamaGen's ModelArgs; MAR's and RAR's attn and proj; all labels 0.1.
@pytest.mark.parametrize("system, size", SIZES)
def test_dropouts(system, size):
    c = load(system, size)
    everywhere = 0.0 if system == "var" else 0.1
    tokens = 0.1 if system == "llamagen" else 0.0
    weights = 0.1 if system in ("mar", "rar") else 0.0
    assert c.mixer.get("dropout", 0.0) == c.model.get("dropout", 0.0) == everywhere
    assert c.mixer.get("weight_dropout", 0.0) == weights and c.feed.get("dropout", 0.0) == tokens
    assert c.conditioning.dropout == 0.1 and c.head.get("label_smoothing", 0.0) == 0.0
    depth = c.model.layers if system == "var" else 0
    assert c.model.get("drop_path", 0.0) == pytest.approx(0.1 * depth / 24)


# What decays.

VAR_NONE = (
    "cls_token start_token task_token cfg_uncond pos_embed pos_1LC pos_start start_pos lvl_embed gamma beta "
    "ada_gss moe_bias scale_mul"
).split()
RAR_NONE = "ln bias latent_tokens mask_token embedding norm gamma embed".split()
RULES = dict(
    # utils/lr_control.py filter_params with train.py's nowd_keys
    var=lambda n, s: not (len(s) == 1 or n.endswith("bias") or any(k in n for k in VAR_NONE)),
    hmar=lambda n, s: RULES["var"](n, s),
    # creat_optimizer of train_c2i.py
    llamagen=lambda n, s: len(s) >= 2,
    # creat_optimizer_by_name of train_c2i_fsdp.py, which trains the largest
    fsdp=lambda n, s: "norm" not in n,
    # util/misc.py add_weight_decay
    mar=lambda n, s: not (len(s) == 1 or n.endswith(".bias") or "diffloss" in n),
    # utils/train_utils.py create_optimizer
    rar=lambda n, s: not (len(s) < 2 or any(k in n for k in RAR_NONE)),
)
BUFFERS = {"cls_embedding.uncond_embedding"}  # registered as such, and so no parameter of the optimizer


# By the rule of the first.
SELDOM = [pytest.param(*x, marks=pytest.mark.slow) for x in (("var", "d36"), ("hmar", "d16_masked"))]


@pytest.mark.parametrize(
    "system, size", [("var", "d16"), *SELDOM, ("llamagen", "b"), ("llamagen", "3b"), ("llamagen", "text256"),
                     ("mar", "b"), ("rar", "b")],
)  # fmt: skip
def test_what_decays(system, size):
    """The set of the authors' names that decay by their rule, and that by ours, carried over to their names."""
    c = load(system, size)
    c.model.layers = (1, 1, 1) if system == "hmar" else 2
    generator = systems.build(c)[1]
    ours = meta.unbox(jax.eval_shape(generator.init_boxed, jax.random.key(0)))
    entries = systems.system(system).generator.table(generator)
    shapes = mapping.source_shapes(entries, dict(mapping.flatten(ours)))
    rule = RULES["fsdp" if size in ("xxl", "3b") else system]
    parameters = {name for e in entries if e.targets for name in e.sources}
    expected = {name for name in parameters - BUFFERS if rule(name, shapes[name])}
    mask = dict(mapping.flatten(optimizer.matching(ours, c.training.decay)))
    optimizer.check_patterns(ours, c.training.decay, "training.decay")
    found = set()
    for entry in entries:
        decayed = {mask[target] for target in entry.targets}
        assert len(decayed) <= 1, entry.targets  # arrays that are one there decay together or not at all
        found |= set(entry.sources) if True in decayed else set()
    assert found == expected
    assert 0 < len(expected) < len(parameters)


def test_tokenizers_decay_kernels_alone():
    for system, size in SIZES:
        s = load(system, size).tokenizer_training
        assert s.decay == ("*kernel",), (system, size)
        assert system == "var" or s.weight_decay == 0.0  # Adam's


# The average.


@pytest.mark.parametrize(
    "system, size",
    [
        *(pytest.param(*x, marks=pytest.mark.slow) for x in (("var", "d30"), ("llamagen", "xl"))),
        ("mar", "l"),
        ("rar", "b"),
    ],
)
def test_average(system, size):
    """engine_mar.py update_ema: constant, from the initial parameters on; the others publish the parameters."""
    s = load(system, size).training
    fake = settings(ema_decay=s.ema_decay, ema_warmup=s.ema_warmup)
    task, mesh = FakeTask(adversarial=False), sharding.make_mesh(devices=jax.devices()[:1])
    optimizers = optimizer.build(fake, ["model"])
    now = state.create(task, optimizers, mesh, jax.random.key(1))
    step = make_step(task, fake, mesh)
    average = {k: np.float64(v) for k, v in now.params["model"].items()}
    for k in range(3):
        batch = sharding.put_batch(batch_at(k), mesh)
        now, _ = step(now, FROZEN, batch, jax.random.key(2))
        new = jax.device_get(now.params["model"])
        average = {k: s.ema_decay * a + (1 - s.ema_decay) * new[k] for k, a in average.items()}
    assert s.ema_decay == (0.9999 if system == "mar" else 0.0)
    for name, expected in average.items():
        if system == "mar":
            np.testing.assert_allclose(now.ema[name], expected, rtol=1e-6, atol=1e-8)
            assert not np.array_equal(now.ema[name], new[name])
        else:
            np.testing.assert_array_equal(now.ema[name], new[name])
