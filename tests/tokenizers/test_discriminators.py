"""Discriminators beside the authors' own outputs and formulas in float64."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from golden import Golden

from vargen import parts
from vargen.errors import UserError
from vargen.tokenizers import discriminators
from vargen.tokenizers.discriminators import PLACE, among, dino, spectral, stylegan, vit
from vargen.tokenizers.discriminators.dino import Dino
from vargen.tokenizers.discriminators.patch import Patch
from vargen.tokenizers.discriminators.stylegan import StyleGAN
from vargen.weights_file import flatten, unflatten


def last(x):
    """[B, C, ...] -> [B, ..., C]."""
    return np.moveaxis(x, 1, -1)


def layer(golden, name, weight="weight", bias=True):
    """A convolution [O, I, ...] of PyTorch."""
    kernel = golden.weights[f"{name}.{weight}"]
    own = dict(bias=golden.weights[f"{name}.bias"]) if bias else {}
    return dict(kernel=np.moveaxis(kernel, (0, 1), (-1, -2)), **own)


def convolved(x, kernel, bias, stride, padding):
    x = np.pad(x, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(x, kernel.shape[:2], (1, 2))[:, ::stride, ::stride]
    return np.einsum("bhwcij,ijco->bhwo", windows, kernel) + bias


def grouped(x, scale, bias):
    """Normalised over each channel's places: as many groups as channels, as where these are 32 or fewer."""
    x = x - x.mean(axis=(1, 2), keepdims=True)
    return x / np.sqrt(np.square(x).mean(axis=(1, 2), keepdims=True) + 1e-6) * scale + bias


@pytest.mark.parametrize("norm", ["group", "none"])
def test_patch(norm):
    """float64, 1e-5."""
    module = Patch(width=8, layers=2, norm=norm)
    images = jax.random.normal(jax.random.key(0), (2, 16, 16, 1))
    params = jax.jit(module.init)(jax.random.key(1), images, {})
    noisy = jax.tree.map(lambda x: x + 0.1 * jax.random.normal(jax.random.key(x.size), x.shape), params)
    apply = jax.jit(module.apply)
    logits = apply(noisy, images, {})
    assert logits.shape == (2, 2, 2, 1) and logits.dtype == jnp.float32
    own = jax.tree.map(lambda x: np.asarray(x, np.float64), nn.meta.unbox(noisy)["params"])
    assert ("norm1" in own) == (norm == "group")
    x = np.asarray(images, np.float64)
    for i, stride in enumerate((2, 2, 1)):
        x = convolved(x, **own[f"conv{i}"], stride=stride, padding=1)
        if f"norm{i}" in own:
            x = grouped(x, **own[f"norm{i}"])
        x = np.where(x > 0, x, 0.2 * x)
    np.testing.assert_allclose(logits, convolved(x, **own["conv_out"], stride=1, padding=1), atol=1e-5)
    # No example sees another, so that a batch may be split over devices at will.
    np.testing.assert_allclose(apply(noisy, images[:1], {}), logits[:1], atol=1e-6)


def test_patch_by_the_batch():
    """taming-transformers' own, in training: logits, and the gradient to the pictures."""
    golden = Golden("patch_discriminator")
    convs = dict(conv0="main.0", conv1="main.2", conv2="main.5", conv3="main.8", conv_out="main.11")
    params = {
        ours: layer(golden, theirs, bias=ours in ("conv0", "conv_out")) for ours, theirs in convs.items()
    }
    for i, theirs in enumerate(("main.3", "main.6", "main.9"), 1):
        params[f"norm{i}"] = dict(
            scale=golden.weights[f"{theirs}.weight"], bias=golden.weights[f"{theirs}.bias"]
        )

    @jax.jit
    def run(x):
        logits, back = jax.vjp(lambda x: Patch(width=8).apply(dict(params=params), x, {}), x)
        return logits, back(2 * logits)[0]

    logits, gradient = run(last(golden["in/x"]))
    np.testing.assert_allclose(logits, last(golden["out/train"]), atol=1e-5)
    np.testing.assert_allclose(gradient, last(golden["out/dx"]), atol=1e-5)


def test_stylegan():
    """LlamaGen's: logits and gradients at the pictures, 1e-6 of their size."""
    golden = Golden("stylegan_discriminator")
    params = dict(conv_in=layer(golden, "blocks.0"), conv_out=layer(golden, "final_conv.0"))
    for i in range(3):
        theirs = dict(skip="conv_res", conv0="net.0", conv1="net.2", conv2="downsample.1")
        params |= {f"block{i}_{k}": layer(golden, f"blocks.{i + 2}.{v}") for k, v in theirs.items()}
    for ours, name, shape in (
        ("hidden", "final_linear.0", (16, 16, 4, 4)),
        ("out", "final_linear.2", (1, 16)),
    ):
        kernel = last(golden.weights[f"{name}.weight"].reshape(shape))
        params[ours] = dict(kernel=kernel.reshape(shape[0], -1).T, bias=golden.weights[f"{name}.bias"])
    module = StyleGAN(width=12, widest=16)

    @jax.jit
    def run(images):
        def squares(images):
            logits = module.apply({"params": params}, images, {})
            return jnp.sum(jnp.square(logits)), logits

        return jax.grad(squares, has_aux=True)(images)

    gradient, logits = run(last(golden["in/x"]))
    np.testing.assert_allclose(logits, golden["out/logits"], rtol=1e-5)
    np.testing.assert_allclose(gradient, last(golden["out/dx"]), atol=1e-9)


def test_deviation():
    """The channel of StyleGAN's sets, in float64; a batch that the size doesn't divide has smaller ones."""
    x = np.random.default_rng(0).normal(size=(6, 2, 3, 5))
    for most, size in ((4, 3), (3, 3), (2, 2), (1, 1), (9, 6)):
        assert among.groups(6, most) == size
        found = stylegan.with_deviation(jnp.asarray(x, jnp.float32), most)
        np.testing.assert_array_equal(found[..., :-1], x.astype(np.float32))
        for i in range(6):
            members = [j for j in range(6) if j % (6 // size) == i % (6 // size)]
            expected = np.sqrt(x[members].var(axis=0) + 1e-8).mean()
            np.testing.assert_allclose(found[i, ..., -1], expected, rtol=1e-5)
    module, images = (
        StyleGAN(width=4, widest=8, deviation=2),
        jnp.asarray(x[:4, :1, :1, :1]) + jnp.zeros((8, 8, 1)),
    )
    params = jax.eval_shape(module.init, jax.random.key(0), images, {})["params"]
    assert params["conv_out"]["kernel"].value.shape == (3, 3, 9, 8)


def of_dino(golden):
    """The frozen arrays, parameters and vectors of the golden's discriminator."""
    frozen = {k[5:]: v for k, v in golden.weights.items() if k.startswith("dino.")}
    params, vectors = {}, {}
    for i in range(3):
        own = params[f"head{i}"] = {}
        for ours, conv, norm in (("0", "0.0", "0.1"), ("1", "1.fn.0", "1.fn.1"), ("_out", "2", "")):
            name = f"heads.{i}.{conv}"
            own[f"conv{ours}"] = layer(golden, name, "weight_orig")
            vectors[f"head{i}/conv{ours}/kernel"] = golden.weights[f"{name}.weight_u"]
            if norm:
                scale, bias = (golden.weights[f"heads.{i}.{norm}.{kind}"] for kind in ("weight", "bias"))
                own[f"norm{ours}"] = dict(scale=scale, bias=bias)
    return frozen, params, unflatten(vectors)


def theirs(name):
    """The authors' name of a kernel."""
    head, conv, _ = name.split("/")
    return f"heads.{head[4:]}.{dict(conv0='0.0', conv1='1.fn.0', conv_out='2')[conv]}"


def test_dino():
    """ImageFolder's: features 2e-5, logits of a training pass 1e-5, vectors 1e-6, gradients 1e-4 of their norms."""
    golden = Golden("dino_discriminator")
    module = Dino(width=24, heads=3, side=64, depths=(0, 2), kernel=5)
    frozen, params, vectors = of_dino(golden)
    assert {k: x.shape for k, x in module.frozen().items()} == {k: x.shape for k, x in frozen.items()}
    image = jnp.asarray(last(golden["in/x"]))
    features = [jnp.asarray(last(golden[f"out/act_{i}"])) for i in range(3)]

    @jax.jit
    def run(params):
        def judged(params):
            own, after = spectral.normalised(params, vectors)
            heads = [
                dino.Head(5, "batch").apply({"params": own[f"head{i}"]}, x) for i, x in enumerate(features)
            ]
            logits = jnp.concatenate(heads, axis=1)
            alone = [
                dino.Head(5, "batch").apply({"params": own[f"head{i}"]}, x[:1])
                for i, x in enumerate(features)
            ]
            whole = module.apply({"params": own}, image, frozen)
            return jnp.sum(logits * golden["in/g"]), (logits, after, whole, jnp.concatenate(alone, axis=1))

        return jax.grad(judged, has_aux=True)(params), vit.rows(frozen, image, 64, 3, (0, 2))

    (gradients, (logits, after, whole, alone)), read = run(params)
    for found, expected in zip(read, features, strict=True):
        np.testing.assert_allclose(found, expected[:1], atol=2e-5)
    np.testing.assert_allclose(logits, golden["out/logits_train"], atol=1e-5)
    np.testing.assert_allclose(whole, alone, atol=1e-4)
    for name, found in flatten(after):
        np.testing.assert_allclose(found, golden[f"out/u_after/{theirs(name)}.weight_u"], atol=1e-6)
        head, conv, _ = name.split("/")
        norm = golden[f"out/grad_norm/{theirs(name)}.weight_orig"]
        np.testing.assert_allclose(np.linalg.norm(gradients[head][conv]["kernel"]), norm, rtol=1e-4)


@pytest.mark.slow
def test_pictures_larger_than_the_network():
    """Grey ones of 12 pixels before a network of 8: averages of what lies over a pixel, the same in all channels."""
    module = Dino(width=8, heads=2, patch=4, side=8, depths=(0,), kernel=3)
    shapes = module.frozen()
    frozen = {
        k: 0.3 * jax.random.normal(jax.random.key(i), x.shape) for i, (k, x) in enumerate(shapes.items())
    }
    large = jax.random.normal(jax.random.key(99), (1, 24, 24, 1))
    small = large.reshape(1, 8, 3, 8, 3, 1).mean(axis=(2, 4)).repeat(3, axis=-1)
    rows = [vit.rows(frozen, x, 8, 2, (0,)) for x in (large, small)]
    for a, b in zip(*rows, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)
    assert [x.shape for x in rows[0]] == [(1, 4, 8)] * 2


@pytest.mark.parametrize("norm", ["batch", "group", "none"])
def test_who_sees_whom(norm):
    """By the batch, those of eight that follow each other; else none."""
    head, x = dino.Head(3, norm), jax.random.normal(jax.random.key(0), (16, 5, 8))
    params = head.init(jax.random.key(1), x)
    found, changed = head.apply(params, x), head.apply(params, x.at[0].multiply(x[1]))
    same = [bool(np.allclose(a, b, atol=1e-7)) for a, b in zip(found, changed, strict=True)]
    assert same == ([False] * 8 + [True] * 8 if norm == "batch" else [False] + [True] * 15)


def test_spectral_norm():
    """Followed, it is the largest singular value, and a kernel divided by it has 1 (float64 SVD, 1e-4)."""
    rng = np.random.default_rng(0)
    kernel = rng.normal(size=(3, 3, 4, 6)).astype(np.float32)
    params = dict(a=dict(kernel=kernel, bias=np.ones(6, np.float32)), norm=dict(scale=np.ones(6, np.float32)))
    vectors = spectral.start(params)
    assert jax.tree.map(jnp.shape, vectors) == dict(a=dict(kernel=(6,)))
    step = jax.jit(spectral.normalised)
    for _ in range(60):
        found, vectors = step(params, vectors)
    largest = np.linalg.svd(kernel.reshape(-1, 6).astype(np.float64), compute_uv=False)[0]
    np.testing.assert_allclose(kernel / found["a"]["kernel"], np.full(kernel.shape, largest), rtol=1e-4)
    np.testing.assert_array_equal(found["a"]["bias"], params["a"]["bias"])
    # Of the norm the gradient takes part: scaling a kernel changes nothing.

    def scaled(factor):
        own = dict(params, a=dict(params["a"], kernel=factor * kernel))
        return spectral.normalised(own, vectors)[0]["a"]["kernel"].sum()

    np.testing.assert_allclose(jax.grad(scaled)(1.0), 0, atol=1e-5)


def test_weights_of_dino(tmp_path):
    part = dict(name="dino", width=8, heads=2, patch=4, side=8, depths=(0,), kernel=3)
    with pytest.raises(
        UserError, match=r"discriminator.weights: expected the file of the frozen network.*found none"
    ):
        dino.load(discriminators.build(part))
    shapes = discriminators.build(part).frozen()
    arrays = {k: np.full(x.shape, i, np.float64) for i, (k, x) in enumerate(shapes.items())}
    file = tmp_path / "dino.npz"
    named = discriminators.build(part | dict(weights=str(file)))
    with pytest.raises(UserError, match="discriminator weights .*: expected a file, found none"):
        dino.load(named)
    np.savez(file, **arrays, **{"head.weight": np.zeros(3)})
    found = dino.load(named)
    assert found.keys() == shapes.keys() and all(x.dtype == np.float32 for x in found.values())
    for wrong, words in ((np.zeros((1, 5, 9)), r"\(1, 5, 9\)"), (None, "none")):
        np.savez(file, **{k: v for k, v in (arrays | dict(pos_embed=wrong)).items() if v is not None})
        with pytest.raises(UserError, match=rf"expected pos_embed of shape \(1, 5, 8\), found {words}"):
            dino.load(named)
    assert dino.load(Patch()) == dino.load(StyleGAN()) == {}


@pytest.mark.parametrize(
    "part, side, words",
    [
        (
            dict(name="patch", width=8, layers=3),
            16,
            "layers: expected images of 24 pixels a side or more for 3 layers",
        ),
        (dict(name="stylegan", width=8), 7, "stylegan needs images of 8 pixels a side or more, found 7"),
    ],
)
def test_pictures_that_are_too_small(part, side, words):
    with pytest.raises(UserError, match=words):
        jax.eval_shape(discriminators.build(part).init, jax.random.key(0), jnp.zeros((1, side, 32, 1)), {})


@pytest.mark.parametrize(
    "part, words",
    [
        (
            dict(name="patchgan"),
            "name: expected one of dino, patch, stylegan, found 'patchgan'; did you mean patch?",
        ),
        (dict(name="patch", norm="layer"), "norm: expected one of batch, group, none, found 'layer'"),
        (dict(name="patch", layer=3), "layer: unknown; did you mean layers"),
        (dict(name="stylegan", deviation=-1), "deviation: expected a whole number from 0"),
        (dict(name="dino", heads=5), "heads: expected a divisor of 384, found 5; for instance 3, 4 or 6"),
        (dict(name="dino", patch=15), "patch: expected a divisor of 224, found 15"),
        (dict(name="dino", depths=(5, 2)), "depths: expected at least one number, each above the last"),
        (dict(name="dino", depths=()), "depths: expected at least one number, each above the last"),
    ],
)
def test_mistakes(part, words):
    with pytest.raises(UserError) as caught:
        discriminators.build(part)
    assert str(caught.value).startswith(f"config field {PLACE}.") and words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_sizes():
    """Of the published ones: VQGAN's patches see 70 pixels, StyleGAN's has 512 channels at 4x4, DINO's five heads."""

    def count(part, side=256):
        module = parts.build(discriminators.DISCRIMINATORS, part, PLACE)
        args = (jnp.zeros((1, side, side, 3)), {k: jnp.zeros(x.shape) for k, x in module.frozen().items()})
        shapes = jax.eval_shape(module.init, jax.random.key(0), *args)
        return sum(x.size for x in jax.tree.leaves(shapes))

    # pix2pix's 2.77 M.
    patch = 16 * (3 * 64 + 64 * 128 + 128 * 256 + 256 * 512 + 512) + 64 + 2 * (128 + 256 + 512) + 1
    assert count(dict(name="patch")) == patch
    # Heads of ImageFolder's: five of 384 channels, kernels of 1, 9 and 1.
    head = (384 + 9 * 384 + 1) * 384 + 2 * 3 * 384 + 1
    assert count(dict(name="dino")) == 5 * head
    widths = [64, 128, 256, 512, 512, 512, 512]
    stylegan_ = 27 * 64 + 64
    for a, b in zip(widths, widths[1:]):
        stylegan_ += a * b + 9 * (a * b + 2 * b * b) + 4 * b
    stylegan_ += 9 * 512 * 512 + 512 + 16 * 512 * 512 + 512 + 513
    assert count(dict(name="stylegan")) == stylegan_
