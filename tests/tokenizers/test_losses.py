"""Losses and discriminators beside numbers worked out by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from common import FOLDER, tiny
from vargen.tokenizers.discriminator import Discriminator

from vargen.errors import UserError
from vargen.tokenizers import losses, perceptual, vq
from vargen.tokenizers.kl import divergence


def test_reconstruction():
    images, decoded = jnp.zeros((1, 1, 2, 1)), jnp.array([1.0, -3.0]).reshape(1, 1, 2, 1)
    loss, metrics = losses.reconstruction(images, decoded, dict(l1=10.0, l2=1.0))
    assert (metrics["l1"], metrics["l2"], loss) == (2.0, 5.0, 25.0)
    np.testing.assert_allclose(metrics["psnr_db"], 10 * np.log10(4 / 5), rtol=1e-5)
    with pytest.raises(UserError, match="losses.perceptual: expected a distance, of the file"):
        losses.reconstruction(images, decoded, dict(perceptual=1.0))
    loss, _ = losses.reconstruction(images, decoded, dict(perceptual=2.0), lambda x, y: jnp.array([3.0]))
    assert loss == 6.0


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


def test_discriminator():
    module = Discriminator(width=8, layers=2)
    images = jax.random.normal(jax.random.key(0), (2, 16, 16, 1))
    params = jax.jit(module.init)(jax.random.key(1), images)
    apply = jax.jit(module.apply)
    logits = apply(params, images)
    assert logits.shape == (2, 2, 2, 1) and logits.dtype == jnp.float32
    # No example sees another, so that a batch may be split over devices at will.
    np.testing.assert_allclose(apply(params, images[:1]), logits[:1], atol=1e-6)
    with pytest.raises(UserError, match="images of 24 pixels a side or more for 3 layers, found 16"):
        Discriminator(width=8, layers=3).init(jax.random.key(0), images)


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
        return function(params, x, jax.lax.stop_gradient(x)).sum()

    found, (same, slope) = jax.jit(lambda x, y: (function(params, x, y), jax.value_and_grad(equal)(x)))(x, y)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    np.testing.assert_allclose(same, 0, atol=1e-6)
    assert np.isfinite(slope).all()
    grey = jax.eval_shape(function, params, x[..., :1], y[..., :1])
    assert grey.shape == expected.shape

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
