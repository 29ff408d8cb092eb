"""FID's Inception, at a sixteenth of its width, against the public port layer by layer, and against the whole network
written out in NumPy and float64."""

import jax
import numpy as np
import pytest
import seeded
from golden import Golden

from vargen.evaluation import inception
from vargen.interop import inception as weights
from vargen.interop import mapping
from vargen.weights_file import flatten

WIDTH = 2


@pytest.fixture(scope="module")
def arrays():
    """The port's arrays by name, random, with statistics that keep every layer alive."""
    rng = np.random.default_rng(0)
    like = weights.expected(WIDTH)
    found = {}
    for name, shape in mapping.source_shapes(weights.table(like), dict(flatten(like))).items():
        scale = np.sqrt(2 / np.prod(shape[1:])) if len(shape) > 1 else 0.2
        found[name] = rng.normal(size=shape) * scale
        if name.endswith(("bn.weight", "running_var")):
            found[name] = rng.uniform(0.6, 1.4, shape)
    return {name: array.astype(np.float32) for name, array in found.items()}


def conv(x, kernel, stride, padding):
    """[H, W, C] and [O, I, h, w]: a sum over offsets."""
    x = np.pad(x, [(padding[0], padding[0]), (padding[1], padding[1]), (0, 0)])
    h, w = kernel.shape[2:]
    rows, columns = (x.shape[0] - h) // stride + 1, (x.shape[1] - w) // stride + 1
    return sum(
        x[i : i + stride * rows : stride, j : j + stride * columns : stride][:rows, :columns]
        @ kernel[:, :, i, j].T
        for i in range(h)
        for j in range(w)
    )


def pool(x, how, stride, padding):
    """3x3; what lies outside is no number and counts for nothing."""
    x = np.pad(x, [(padding, padding)] * 2 + [(0, 0)], constant_values=np.nan)
    windows = np.lib.stride_tricks.sliding_window_view(x, (3, 3), axis=(0, 1))[::stride, ::stride]
    return how(windows, axis=(3, 4))


class Dense:
    """The network of the port, layer by layer in float64, one image at a time."""

    def __init__(self, arrays):
        self.arrays = {name: array.astype(np.float64) for name, array in arrays.items()}

    def layer(self, name, x, stride=1, padding=(0, 0)):
        get = lambda last: self.arrays[f"{name}.{last}"]  # noqa: E731
        x = conv(x, get("conv.weight"), stride, padding)
        x = (x - get("bn.running_mean")) / np.sqrt(get("bn.running_var") + 1e-3)
        return np.maximum(x * get("bn.weight") + get("bn.bias"), 0)

    def chain(self, block, x, *layers):
        """Layers (name, padding) one after the other; of stride 2 where the padding is None."""
        for name, padding in layers:
            x = self.layer(f"{block}.{name}", x, *((2, (0, 0)) if padding is None else (1, padding)))
        return x

    def __call__(self, image):
        x = (scaled(image.astype(np.float64), 299) - 128) / 128
        x = self.layer("Conv2d_1a_3x3", x, 2)
        x = self.layer("Conv2d_2b_3x3", self.layer("Conv2d_2a_3x3", x), 1, (1, 1))
        x = self.layer("Conv2d_3b_1x1", pool(x, np.nanmax, 2, 0))
        x = pool(self.layer("Conv2d_4a_3x3", x), np.nanmax, 2, 0)
        one, three, row, column = (0, 0), (1, 1), (0, 3), (3, 0)
        for b in ("Mixed_5b", "Mixed_5c", "Mixed_5d"):
            fives = self.chain(b, x, ("branch5x5_1", one), ("branch5x5_2", (2, 2)))
            threes = self.chain(
                b, x, ("branch3x3dbl_1", one), ("branch3x3dbl_2", three), ("branch3x3dbl_3", three)
            )
            pooled = self.chain(b, pool(x, np.nanmean, 1, 1), ("branch_pool", one))
            x = np.concatenate([self.chain(b, x, ("branch1x1", one)), fives, threes, pooled], -1)
        b = "Mixed_6a"
        threes = self.chain(
            b, x, ("branch3x3dbl_1", one), ("branch3x3dbl_2", three), ("branch3x3dbl_3", None)
        )
        x = np.concatenate([self.chain(b, x, ("branch3x3", None)), threes, pool(x, np.nanmax, 2, 0)], -1)
        for b in ("Mixed_6b", "Mixed_6c", "Mixed_6d", "Mixed_6e"):
            first = self.chain(b, x, ("branch1x1", one))
            sevens = self.chain(b, x, ("branch7x7_1", one), ("branch7x7_2", row), ("branch7x7_3", column))
            names = [(f"branch7x7dbl_{i + 1}", p) for i, p in enumerate((one, column, row, column, row))]
            pooled = self.chain(b, pool(x, np.nanmean, 1, 1), ("branch_pool", one))
            x = np.concatenate([first, sevens, self.chain(b, x, *names), pooled], -1)
            if b == "Mixed_6d":
                spatial = first[..., :7].reshape(-1)
        b = "Mixed_7a"
        threes = self.chain(b, x, ("branch3x3_1", one), ("branch3x3_2", None))
        names = [(f"branch7x7x3_{i + 1}", p) for i, p in enumerate((one, row, column, None))]
        x = np.concatenate([threes, self.chain(b, x, *names), pool(x, np.nanmax, 2, 0)], -1)
        for b, how in (("Mixed_7b", np.nanmean), ("Mixed_7c", np.nanmax)):
            parts = [self.chain(b, x, ("branch1x1", one))]
            for before, last in (
                ([("branch3x3_1", one)], "branch3x3_2"),
                ([("branch3x3dbl_1", one), ("branch3x3dbl_2", three)], "branch3x3dbl_3"),
            ):
                y = self.chain(b, x, *before)
                parts += [self.chain(b, y, (f"{last}a", (0, 1))), self.chain(b, y, (f"{last}b", (1, 0)))]
            parts.append(self.chain(b, pool(x, how, 1, 1), ("branch_pool", one)))
            x = np.concatenate(parts, -1)
        features = x.mean(axis=(0, 1))
        return features, spatial, features @ self.arrays["fc.weight"].T


def scaled(image, side):
    """TensorFlow 1's bilinear scaling, pixel by pixel: pixel i is at i H / side."""
    weights = []
    for size in image.shape[:2]:
        matrix = np.zeros((side, size))
        for i in range(side):
            place = i * size / side
            low = int(place)
            matrix[i, low] += 1 - (place - low)
            matrix[i, min(low + 1, size - 1)] += place - low
        weights.append(matrix)
    return np.einsum("ih,jw,hwc->ijc", *weights, image)


@pytest.mark.slow
def test_the_whole_network(arrays):
    """Float32 against float64, relative to the largest value."""
    encoder = inception.Encoder(weights.variables(arrays), batch_size=2)
    images = np.random.default_rng(1).integers(0, 256, (3, 40, 48, 3), dtype=np.uint8)
    found = encoder(images)
    assert encoder.network.width == WIDTH
    assert encoder.sizes == (128, 2023) == (found.pool.shape[1], found.spatial.shape[1])
    assert found.logits.shape == (3, 1008)
    dense = Dense(arrays)
    for i in (0, 2):  # the last is in a batch that was filled up
        for ours, theirs in zip(found, dense(images[i]), strict=True):
            assert np.abs(theirs).max() > 0.1
            np.testing.assert_allclose(ours[i], theirs, atol=2e-5 * np.abs(theirs).max())


@pytest.fixture(scope="module")
def drawn():
    """The port's arrays by name, as the golden was recorded with."""
    like = weights.expected(WIDTH)
    return seeded.weights(mapping.source_shapes(weights.table(like), dict(flatten(like))))


def test_layers_are_the_public_ports(drawn):
    """Outputs of all 94 layers and 11 blocks of torch-fidelity's port, scaled pictures, pool_3 and logits among them.

    The same weights gave the blocks of pytorch-fid the same outputs, bit by bit, when the golden was recorded.
    """
    golden = Golden("inception")
    assert golden.meta["width"] == WIDTH
    encoder = inception.Encoder(weights.variables(drawn))
    images = seeded.images("inception", golden.meta["shape"])
    apply = jax.jit(lambda v, x: encoder.network.apply(v, x, capture_intermediates=True))
    found, seen = apply(encoder.variables, images)
    for name in found._fields:
        close(found._asdict()[name], golden[f"out/{name}"])
    layers = [k.removeprefix("out/") for k in golden.arrays.files if k.startswith(("out/Conv", "out/Mixed"))]
    assert len(layers) == 94 + 11
    for name in layers:
        inner = seen["intermediates"]
        for part in name.split("."):
            inner = inner[part]
        ours, theirs = inner["__call__"][0], golden[f"out/{name}"]
        places = np.round(np.linspace(0, ours.shape[1] - 1, theirs.shape[1])).astype(
            int
        )  # first and last ones too
        close(ours[:, places][:, :, places], theirs)


def close(ours, theirs):
    """Float32 against float32, relative to the largest value."""
    assert ours.shape == theirs.shape and theirs.std() > 0.01
    np.testing.assert_allclose(ours, theirs, atol=3e-5 * np.abs(theirs).max())


@pytest.mark.slow
def test_one_channel_is_taken_thrice(arrays):
    encoder = inception.Encoder(weights.variables(arrays), batch_size=2)
    grey = np.random.default_rng(1).integers(0, 256, (2, 40, 48, 1), dtype=np.uint8)
    for one, three in zip(encoder(grey), encoder(grey.repeat(3, axis=-1)), strict=True):
        np.testing.assert_array_equal(one, three)


def test_scaling_by_hand():
    """Twice as large: each pixel, and the mean of it and the next; the last has no next."""
    image = np.array([[0.0, 8.0]]).reshape(1, 1, 2, 1)
    found = inception.resize(jax.numpy.asarray(image, np.float32), 4)
    np.testing.assert_array_equal(found[0, 0, :, 0], [0, 4, 8, 8])
    # A third as large: every third pixel, without smoothing.
    image = np.arange(81, dtype=np.float32).reshape(1, 9, 9, 1)
    np.testing.assert_array_equal(inception.resize(image, 3)[0, ..., 0], image[0, ::3, ::3, 0])
    image = np.random.default_rng(0).uniform(0, 255, (1, 20, 31, 2)).astype(np.float32)
    np.testing.assert_allclose(
        inception.resize(image)[0], scaled(image[0].astype(np.float64), 299), atol=2e-3
    )


def test_the_published_size():
    """The port counts 23,850,960 parameters; the bias of its 1008 logits is in no measure."""
    like = weights.expected()
    assert sum(np.prod(leaf.shape) for leaf in jax.tree.leaves(like["params"])) == 23_850_960 - 1008
    assert inception.Encoder(like).sizes == (2048, 2023)
    assert like["params"]["fc"]["kernel"].shape == (2048, 1008)
