"""Losses and discriminators beside numbers worked out by hand."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from common import FOLDER, tiny
from golden import Golden

from vargen.errors import UserError
from vargen.evaluation import metrics as measured
from vargen.tokenizers import losses, perceptual, similarity, vq
from vargen.tokenizers.kl import divergence


def test_reconstruction():
    images, decoded = jnp.zeros((1, 1, 2, 1)), jnp.array([1.0, -3.0]).reshape(1, 1, 2, 1)
    loss, metrics = losses.reconstruction(images, decoded, dict(l1=10.0, l2=1.0))
    assert (metrics["l1"], metrics["l2"], loss) == (2.0, 5.0, 25.0)
    np.testing.assert_allclose(metrics["psnr_db"], 10 * np.log10(4 / 5), rtol=1e-5)
    with pytest.raises(UserError, match="losses.perceptual: expected a distance, of the file"):
        losses.reconstruction(images, decoded, dict(perceptual=1.0))
    with pytest.raises(UserError, match="losses.gram: expected a distance"):
        losses.reconstruction(images, decoded, dict(gram=1.0))

    def distances(x, y):
        return dict(perceptual=jnp.array([3.0]), gram=jnp.array([0.5]))

    loss, metrics = losses.reconstruction(images, decoded, dict(l2=0.0, perceptual=2.0, gram=4.0), distances)
    assert (loss, metrics["perceptual"], metrics["gram"]) == (8.0, 3.0, 0.5)
    _, metrics = losses.reconstruction(images, decoded, dict(perceptual=2.0), distances)
    assert "gram" not in metrics and "ms_ssim" not in metrics


@pytest.mark.parametrize(
    "size",
    [(7, 9), (16, 16), *(pytest.param(size, marks=pytest.mark.slow) for size in ((47, 30), (178, 180)))],
)
def test_ms_ssim(size):
    """As it is measured (float64 NumPy, 1e-5), with finite gradients even of a flat picture; 1 of equal ones."""
    rng = np.random.default_rng(0)
    a = rng.uniform(-1, 1, (2, *size, 2)).astype(np.float32)
    b = np.clip(a + rng.normal(scale=[[[[0.1]]], [[[0.15]]]], size=a.shape), -1, 1).astype(np.float32)
    run = jax.jit(jax.value_and_grad(lambda b: similarity.ms_ssim(a, b).sum(), has_aux=False))
    np.testing.assert_allclose(
        similarity.ms_ssim(jnp.asarray(a), jnp.asarray(b)), measured.ms_ssim(a, b), atol=1e-5
    )
    np.testing.assert_allclose(run(a)[0], 2.0, atol=1e-5)
    for picture in (a, b, np.zeros_like(b), -a):
        assert np.isfinite(run(picture)[1]).all()
    # A step along the gradient brings the pictures nearer.
    value, slope = run(b)
    assert run(b + 0.01 * slope / np.abs(slope).max())[0] > value
    loss, told = losses.reconstruction(jnp.asarray(a), jnp.asarray(b), dict(l2=0.0, ms_ssim=2.0))
    np.testing.assert_allclose(loss, 2 * (1 - measured.ms_ssim(a, b).mean()), atol=1e-4)
    np.testing.assert_allclose(told["ms_ssim"], measured.ms_ssim(a, b).mean(), atol=1e-5)


def test_adversarial_losses():
    real, fake = jnp.array([2.0, 0.0]), jnp.array([-2.0, 1.0])
    assert losses.discriminator("hinge", real, fake) == 0.5 * (0.5 + 1.0)
    soft = np.log1p(np.exp([-2.0, 0.0])).mean(), np.log1p(np.exp([-2.0, 1.0])).mean()
    for kind in ("vanilla", "non_saturating"):
        np.testing.assert_allclose(losses.discriminator(kind, real, fake), 0.5 * sum(soft), rtol=1e-6)
    assert losses.generator("hinge", fake) == losses.generator("vanilla", fake) == 0.5
    expected = np.log1p(np.exp([2.0, -1.0])).mean()
    np.testing.assert_allclose(losses.generator("non_saturating", fake), expected, rtol=1e-6)
    with pytest.raises(UserError, match="adversarial_kind: expected one of hinge"):
        losses.generator("wgan", fake)


def test_adversarial_losses_of_the_authors():
    """Values and gradients of taming-transformers, LlamaGen and Open-MAGVIT2, 1e-6."""
    golden = Golden("gan_losses")
    real, fake = (jnp.asarray(golden[f"in/{x}"]) for x in ("real", "fake"))

    def of_means(real, fake):  # MAGVIT2's: of the mean of an image's logits, and not halved
        return 2 * losses.discriminator("non_saturating", *(x.mean(axis=(1, 2, 3)) for x in (real, fake)))

    found = {"magvit_non_saturate": of_means}
    for kind in ("hinge", "vanilla"):
        own = functools.partial(losses.discriminator, kind)
        found |= {f"taming_{kind}": own, f"llamagen_{kind}": own}
    for name, loss in found.items():
        value, slopes = jax.value_and_grad(loss, (0, 1))(real, fake)
        np.testing.assert_allclose(value, golden[f"out/{name}_d"], rtol=1e-6)
        for slope, side in zip(slopes, ("real", "fake"), strict=True):
            np.testing.assert_allclose(slope, golden[f"out/d_{name}_d_{side}"], atol=1e-7)
    value, slope = jax.value_and_grad(losses.generator, 1)("hinge", fake)
    np.testing.assert_allclose(value, golden["out/llamagen_hinge_g"], rtol=1e-6)
    np.testing.assert_allclose(slope, golden["out/d_llamagen_hinge_g_fake"], atol=1e-7)
    value = losses.generator("non_saturating", fake.mean(axis=(1, 2, 3)))
    np.testing.assert_allclose(value, golden["out/magvit_non_saturate_g"], rtol=1e-6)


def test_lecam():
    """Three updates of Open-MAGVIT2's, 1e-6; averages have no gradient."""
    golden, averages = Golden("gan_losses"), jnp.zeros(2)
    for i in range(3):
        real, fake = golden["in/real"] * (1 + 0.3 * i), golden["in/fake"] * (1 - 0.2 * i)
        averages += 0.1 * (jnp.array([real.mean(), fake.mean()]) - averages)
        np.testing.assert_allclose(averages, golden[f"out/lecam_ema_{i}"], rtol=1e-5)
        np.testing.assert_allclose(
            losses.lecam(jnp.asarray(real), jnp.asarray(fake), averages), golden[f"out/lecam_{i}"], rtol=1e-6
        )
    assert not jax.grad(lambda a: losses.lecam(jnp.asarray(real), jnp.asarray(fake), a))(averages).any()


def test_r1():
    """Of a judge whose gradient is known: logits w.x^2 at two places, so 2 (w + v) x."""
    w, v = np.random.default_rng(0).normal(size=(2, 2, 3, 1)).astype(np.float32)
    x = np.random.default_rng(1).normal(size=(4, 2, 3, 1)).astype(np.float32)

    def judge(w, v):
        return lambda images: jnp.stack([jnp.sum(k * images**2, axis=(1, 2, 3)) for k in (w, v)], axis=1)

    expected = np.square(2 * (w + v) * x).sum(axis=(1, 2, 3)).mean()
    found, slope = jax.value_and_grad(lambda w: losses.r1(judge(w, v), jnp.asarray(x)))(w)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    np.testing.assert_allclose(slope, (8 * (w + v) * x**2).mean(axis=0), rtol=1e-5)


def test_entropy_loss():
    # Two vectors sure of two codes: no entropy each, ln 2 in the mean. Undecided ones: ln 2 both, so 0.
    sure = jnp.array([[0.0, 100.0], [100.0, 0.0]])
    np.testing.assert_allclose(vq.entropy_loss(sure, 1.0), -np.log(2), atol=1e-4)
    np.testing.assert_allclose(vq.entropy_loss(jnp.zeros((2, 2)), 1.0), 0.0, atol=1e-4)


def test_divergence():
    assert divergence(jnp.array(0.0), jnp.array(0.0)) == 0
    np.testing.assert_allclose(
        divergence(jnp.array(2.0), jnp.log(3.0)), 0.5 * (4 + 3 - 1 - np.log(3)), rtol=1e-6
    )


def test_adversarial_part_of_the_loss():
    """The one backward pass gives what the plain sum of losses would, and the adaptive weight is VQGAN's."""
    t = tiny("vq", revive_every=0)
    params, stats = jax.jit(t.init)(jax.random.key(0)), t.init_stats()
    images = jax.random.uniform(jax.random.key(1), (3, 16, 16, 1), minval=-1)
    key, fool = jax.random.key(2), lambda x: jnp.mean(jnp.sin(3 * x))

    def loss(params, step, adaptive, adversarial=fool, weight=0.5):
        settings = dict(l2=1.0, adversarial=weight, adversarial_start=10, adaptive=adaptive)
        return t.loss(params, stats, images, key, step, settings, adversarial=adversarial)

    @jax.jit
    def run(params):
        grad = jax.value_and_grad(loss, has_aux=True)
        plain = jax.grad(lambda p: loss(p, 0, False, None)[0])(params)

        def fooling(params):
            return fool(loss(params, 0, False, None)[1][2])

        (value, (_, metrics, _)), found = grad(params, 10, False)
        return dict(
            before=grad(params, 9, True)[1],
            plain=plain,
            found=found,
            expected=jax.grad(lambda p: loss(p, 0, False, None)[0] + 0.5 * fooling(p))(params),
            values=(value, loss(params, 0, False, None)[0] + 0.5 * metrics["adversarial"]),
            adaptive=loss(params, 10, True)[1][1]["adaptive_weight"],
            fit=jax.grad(lambda p: jnp.mean(jnp.square(loss(p, 0, False, None)[1][2] - images)))(params),
            fool=jax.grad(fooling)(params),
        )

    r = run(params)
    same = lambda a, b: jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=1e-6), a, b)  # noqa: E731
    same(r["before"], r["plain"])
    same(r["found"], r["expected"])
    np.testing.assert_allclose(*r["values"], rtol=1e-6)
    norms = [np.linalg.norm(r[k]["decoder"]["patch_out"]["kernel"]) for k in ("fit", "fool")]
    np.testing.assert_allclose(r["adaptive"], norms[0] / (norms[1] + 1e-4), rtol=1e-4)


@pytest.mark.parametrize("network", ["alexnet", "vgg16"])
def test_perceptual(network, tmp_path):
    """LPIPS of narrow networks with random weights, computed in PyTorch."""
    golden = dict(np.load(FOLDER / f"lpips_{network}.npz"))
    x, y, expected = (jnp.asarray(golden.pop(k)) for k in ("x", "y", "d"))
    if network == "alexnet":
        path = tmp_path / "weights.npz"
        np.savez(path, **golden)
    else:
        from safetensors.numpy import save_file

        path = tmp_path / "weights.safetensors"
        # torchvision's file also has the classifier.
        save_file(golden | {"classifier.0.weight": np.zeros((2, 2), np.float32)}, path)
    function, params = perceptual.load_perceptual(str(path))

    def equal(x):  # the distance of a picture to itself, where roots have no slope
        return sum(d.sum() for d in function(params, x, jax.lax.stop_gradient(x)).values())

    found, (same, slope) = jax.jit(lambda x, y: (function(params, x, y), jax.value_and_grad(equal)(x)))(x, y)
    np.testing.assert_allclose(found["perceptual"], expected, rtol=1e-5)
    grams = []
    for picture in (x, y):
        layers = [np.asarray(h, np.float64) for h in perceptual.features(network, params, picture)]
        flat = [h.reshape(len(h), -1, h.shape[-1]) for h in layers]
        grams.append([np.swapaxes(h, 1, 2) @ h / h[0].size for h in flat])
    gram = sum(np.square(a - b).sum(axis=(1, 2)) for a, b in zip(*grams, strict=True))
    np.testing.assert_allclose(found["gram"], gram, rtol=1e-4)
    np.testing.assert_allclose(same, 0, atol=1e-6)
    assert np.isfinite(slope).all()
    grey = jax.eval_shape(function, params, x[..., :1], y[..., :1])
    assert {k: v.shape for k, v in grey.items()} == dict(perceptual=expected.shape, gram=expected.shape)

    del golden["lin2.model.1.weight"]
    np.savez(tmp_path / "bad.npz", **golden)
    with pytest.raises(UserError, match=r"missing lin2\.model\.1\.weight"):
        perceptual.load_perceptual(str(tmp_path / "bad.npz"))


def test_perceptual_paths(tmp_path):
    with pytest.raises(UserError, match="losses.perceptual_weights: expected a path"):
        perceptual.load_perceptual("")
    with pytest.raises(UserError, match="expected a file, found none"):
        perceptual.load_perceptual(str(tmp_path / "none.npz"))
    (tmp_path / "broken.safetensors").write_bytes(b"nonsense")
    with pytest.raises(UserError, match="expected safetensors or npz"):
        perceptual.load_perceptual(str(tmp_path / "broken.safetensors"))
