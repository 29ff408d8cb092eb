"""Images of any size: encoders that take them whole, tiles for the others, and what is seen of their seams."""

import re

import in_parquet
import jax
import numpy as np
import pytest
from PIL import Image

from vargen import config, data, tiles, tokenizers, weights_file
from vargen.cli import evaluate_vtbench, main
from vargen.config import part
from vargen.data import transforms
from vargen.errors import UserError
from vargen.evaluation import metrics
from vargen.model import Model
from vargen.report import pictures
from vargen.training import checkpoints

CONV = part("conv", width=8, multipliers=(1, 2, 2), blocks=1, groups=4)


def photo(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Smooth colours with an edge: float32 [H, W, 3] in [-1, 1]."""
    y, x = np.mgrid[:height, :width].astype(np.float32)
    waves = [np.sin(x / 7 + seed) * np.cos(y / 5), np.cos(x / 11 - y / 9), np.sign(x - y + 3 * seed) * 0.5]
    return np.stack(waves, axis=-1).astype(np.float32) * 0.9


@pytest.mark.parametrize(
    "side, tile, overlap", [(40, 16, 4), (17, 16, 4), (16, 16, 4), (64, 16, 0), (61, 16, 9)]
)
def test_tiles_cover_everything_once(side, tile, overlap):
    """Weights of each pixel add up to 1; neighbours share at least the overlap; alone, a tile counts wholly."""
    places = tiles.starts(side, tile, overlap)
    assert places[0] == 0 and places[-1] == side - tile
    assert all(before + tile - after >= overlap for before, after in zip(places, places[1:]))
    total, covered = np.zeros(side), np.zeros(side)
    for place, share in zip(places, tiles.weights(side, tile, places), strict=True):
        total[place : place + tile] += share
        covered[place : place + tile] += 1
    np.testing.assert_allclose(total, 1, atol=1e-6)
    assert covered.min() == 1


def test_what_no_tile_changes_stays():
    image = photo(40, 61)
    np.testing.assert_allclose(tiles.through(lambda x: x, image, (16, 24)), image, atol=1e-6)
    with pytest.raises(UserError, match="no larger than the picture, 40x61 pixels, found 48x16"):
        tiles.through(lambda x: x, image, (48, 16))


def test_blending_hides_seams():
    """Each tile brighter by its own amount: steps at borders without an overlap, ramps with one."""
    image, grain = photo(64, 96), np.random.default_rng(1).normal(size=(64, 96, 3)).astype(np.float32) * 0.01

    def brighter(cut):
        return cut + np.random.default_rng(0).uniform(-0.2, 0.2, (len(cut), 1, 1, 1)).astype(np.float32)

    found = {o: tiles.through(brighter, image, (32, 32), (o, o)) + grain for o in (0, 16)}
    shown = {o: tiles.seams(image, x, (32, 32), (o, o)) for o, x in found.items()}
    assert shown[0] > 5 and 1 < shown[16] < 2  # the grain's own jumps are 1
    assert tiles.seams(image, image + grain, (32, 32)) == pytest.approx(1, abs=0.1)
    assert tiles.seams(image, image, (32, 32)) == 1


@pytest.mark.parametrize("name, options", [
    pytest.param("vq", dict(vocab=32, channels=4), marks=pytest.mark.slow),
    ("multiscale_vq", dict(vocab=32, channels=4, levels=(1, 2, 4))),
    pytest.param("fsq", dict(levels=(4, 3, 3)), marks=pytest.mark.slow),
    ("rq", dict(vocab=32, channels=4, depth=2)),
    pytest.param("pyramid_vq", dict(vocab=32, channels=4, levels=(1, 2, 4)), marks=pytest.mark.slow),
    pytest.param("product_vq", dict(vocab=16, channels=4, groups=2), marks=pytest.mark.slow),
])  # fmt: skip
def test_sizes_of_a_tokenizer(name, options):
    """The same parameters over a wider picture: the grid grows with it, as where it is built for that size."""
    t = tokenizers.build(part(name, encoder=CONV, **options), 16, 3)
    params, wide = t.init(jax.random.key(0)), t.sized((16, 40))
    assert wide.grid.levels[-1] == (4, 10) and len(wide.grid.levels) == len(t.grid.levels)
    images = np.stack([photo(16, 40), photo(16, 40, 2)])
    content = jax.jit(wide.encode)(params, images)
    assert content.shape[1] == wide.grid.size
    assert jax.jit(wide.decode)(params, content).shape == images.shape
    assert t.sized((16, 16)) is t
    with pytest.raises(
        UserError, match="divisible by the downsampling, 4x4, found 16x42 pixels; for instance 16x40"
    ):
        t.sized((16, 42))


def test_one_size_alone():
    for given in (
        part("vq", encoder=part("patch", patch=4), vocab=8, channels=4),
        part("jpeg", quality=5, length=99),
    ):
        t = tokenizers.build(given, 16, 3)
        assert t.sized((16, 16)) is t
        with pytest.raises(UserError, match="expected 16x16 pixels, as .* takes? no other|room for no other"):
            t.sized((16, 32))


@pytest.fixture(scope="module")
def model():
    """Untrained, of convolutions, 16x16 in colour."""
    c = config.load("llamagen:pictures32")
    c.data.image_size = 16
    c.tokenizer = part("vq", encoder=CONV, vocab=32, channels=4)
    return Model(c, tokenizers.build(c.tokenizer, 16, 3).init(jax.random.key(0)))


@pytest.mark.slow
def test_model(model):
    """Whole and in tiles; one tile is the whole; tiles as large as the picture leave no seam."""
    images = np.stack([photo(24, 40), photo(24, 40, 1)])
    wide = model.sized(24, 40)
    whole = np.asarray(wide.reconstruct(images))
    np.testing.assert_array_equal(wide.with_config(wide.config).reconstruct(images), whole)
    np.testing.assert_array_equal(wide.decode(wide.encode(images)), whole)
    np.testing.assert_allclose(wide.tiled(images), whole, atol=1e-5)
    tiled = model.tiled(images)
    np.testing.assert_allclose(model.tiled(images[1:]), tiled[1:], atol=1e-5)
    assert tiled.shape == images.shape and np.abs(tiled - whole).max() > 1e-4  # attention sees a tile alone
    own = model.reconstruct(images[:, :16, :16])
    np.testing.assert_allclose(model.tiled(images[:, :16, :16]), own, atol=1e-5)
    np.testing.assert_allclose(model.tiled(images, tile=(8, 16), overlap=0)[:, :8, :8].shape, (2, 8, 8, 3))
    with pytest.raises(UserError, match="images: expected float"):
        model.tiled(images[0])
    with pytest.raises(UserError, match="overlap: expected a whole number from 0 to 15"):
        model.tiled(images, overlap=16)


@pytest.fixture(scope="module")
def workdir(model, tmp_path_factory):
    """A run with that tokenizer."""
    where = tmp_path_factory.mktemp("run") / "run"
    (where / "tokenizer").mkdir(parents=True)
    weights_file.write(
        where / "tokenizer" / checkpoints.WEIGHTS, jax.tree.map(np.asarray, model.tokenizer_params)
    )
    (where / "tokenizer" / checkpoints.CONFIG).write_text(config.to_json(model.config))
    return where


def save(picture: np.ndarray, file) -> str:
    Image.fromarray(np.asarray((picture + 1) * 127.5, np.uint8)).save(file)
    return str(file)


def test_command_whole(model, workdir, tmp_path, capsys):
    """Pictures of two sizes at once, each as the model over its size has it."""
    files = [save(photo(24, 40), tmp_path / "a.png"), save(photo(32, 20, 1), tmp_path / "b.png")]
    given = [
        "reconstruct",
        "--workdir",
        str(workdir),
        "--input",
        *files,
        "--out",
        str(tmp_path / "o"),
        "--whole",
    ]
    assert main.main(given) == 0
    assert "2 images, PSNR" in capsys.readouterr().out
    for i, (file, size) in enumerate(zip(files, [(24, 40), (32, 20)], strict=True)):
        with Image.open(file) as original, Image.open(tmp_path / "o" / f"{i:04d}.png") as found:
            expected = model.sized(*size).reconstruct(data.to_float(np.asarray(original))[None])[0]
            np.testing.assert_allclose(np.asarray(found), pictures.to_uint8(expected), atol=1)
    with Image.open(tmp_path / "o_sheet.png") as sheet:
        assert sheet.width > 80


def test_command_in_tiles(model, workdir, tmp_path, capsys):
    """Sides that nothing divides; the seams that it tells are those between the two files."""
    file = save(photo(33, 50), tmp_path / "a.png")
    given = [
        "reconstruct",
        "--workdir",
        str(workdir),
        "--input",
        file,
        "--out",
        str(tmp_path / "o"),
        "--tile",
        "16",
    ]
    assert main.main(given) == 0
    told = float(re.search(r"seams ([\d.]+)", capsys.readouterr().out)[1])
    with Image.open(file) as original, Image.open(tmp_path / "o" / "0000.png") as found:
        a, b = (data.to_float(np.asarray(x)) for x in (original, found))
        np.testing.assert_allclose(b, model.tiled(a[None])[0], atol=2 / 255)
        assert told == pytest.approx(tiles.seams(a, b, (16, 16)), abs=0.05)


@pytest.mark.parametrize(
    "size, options, words",
    [
        (
            (24, 42),
            ["--whole"],
            "a.png: expected sides divisible by the downsampling, 4x4, found 24x42 pixels",
        ),
        (
            (24, 42),
            ["--tile", "18"],
            "--tile: expected sides divisible by the downsampling, 4x4, found 18x18",
        ),
        ((24, 12), ["--tile", "16"], "a.png: expected sides of at least --tile 16 pixels, found 24x12"),
        (None, ["--tile", "16"], "--tile: expected --input beside it"),
        (None, ["--whole"], "--whole: expected --input beside it"),
    ],
)
def test_refused(workdir, tmp_path, capsys, size, options, words):
    given = [] if size is None else ["--input", save(photo(*size), tmp_path / "a.png")]
    out = ["--out", str(tmp_path / "o")]
    assert main.main(["reconstruct", "--workdir", str(workdir), *given, *out, *options]) == 2
    said = capsys.readouterr().err
    assert words in said and said.count("\n") == 1 and not (tmp_path / "o").exists()


def test_published_pictures_keep_their_size(model, tmp_path):
    """VTBench's pictures of any size: the middle that the downsampling divides; ImageNet's are cut to the model's."""
    image = np.asarray((photo(26, 43) + 1) * 127.5, np.uint8)
    for folder, name in (("DIV2K", "test-0"), ("imagenet", "val-0")):
        in_parquet.write(tmp_path / folder / f"{name}.parquet", [image])
    found, before, after = evaluate_vtbench.published(model, str(tmp_path), None, None)
    assert found.keys() == {
        f"vtbench_{s}_{m}" for s in ("varying_resolution", "imagenet") for m in ("psnr_db", "ssim")
    }
    middle, square = image[1:25, 1:41], transforms.fit(image, 16)
    for name, part_of in (("varying_resolution", middle), ("imagenet", square)):
        floats = data.to_float(part_of[None])
        psnr = metrics.psnr(floats, np.asarray(model.sized(*part_of.shape[:2]).reconstruct(floats)))[0]
        assert found[f"vtbench_{name}_psnr_db"] == pytest.approx(psnr, rel=1e-5)
    assert before.shape == after.shape == (2, 24, 40, 3)
