"""What is kept of detail and text: nothing changed is perfect, blur is worse; sets and error rates by other means."""

import itertools

import in_parquet
import numpy as np
import pytest
from PIL import Image, ImageFilter

from vargen import paths
from vargen.data import vtbench
from vargen.errors import UserError
from vargen.evaluation import detail, metrics, text

SHARES = ("characters", "words", "lines", "contrast", "texture", "ssim")


def blurred(images, radius):
    """Pillow's blur of uint8 [M, H, W, C]."""
    pictures = [Image.fromarray(x.squeeze(-1) if x.shape[-1] == 1 else x) for x in images]
    return np.stack([p.filter(ImageFilter.GaussianBlur(radius)) for p in pictures]).reshape(images.shape)


@pytest.mark.parametrize("size, channels", [((16, 16), 1), ((32, 48), 3), ((64, 64), 3), ((8, 8), 3)])
def test_nothing_changed_is_perfect(size, channels):
    made = detail.draw(size, channels)
    assert made.images.shape == (sum(made.kinds), *size, channels)
    found = detail.measure(made, made.images)
    assert [found[f"detail_{name}"] for name in SHARES] == pytest.approx([1] * len(SHARES), abs=1e-3)
    assert found["detail_psnr_db"] > 100
    floats = made.images / np.float32(127.5) - 1
    assert detail.measure(made, floats) == found


def test_blur_is_worse():
    """Each measure falls with the radius; far beyond a letter's strokes it is near chance."""
    made = detail.draw((32, 32), 3)
    found = [detail.measure(made, blurred(made.images, r)) for r in (0.6, 1.2, 2.4, 6)]
    for name in SHARES:
        values = [1, *(x[f"detail_{name}"] for x in found)]
        assert all(a >= b or a < 0.1 for a, b in itertools.pairwise(values)), name  # chance
        assert values[-1] < 0.3 and values[0] - values[-1] > 0.6, name
    grey = np.full_like(made.images, 128)
    flat = detail.measure(made, grey)
    assert flat["detail_characters"] == flat["detail_words"] == 0 and flat["detail_texture"] < 1e-12


def test_the_same_each_time():
    a, b = (detail.draw((32, 32), 3) for _ in range(2))
    np.testing.assert_array_equal(a.images, b.images)
    assert a.written == b.written and len({word.number for word in a.written}) > 30


def test_letters_of_another_word_are_read_as_they_are():
    """Pages of other words in these words' places: none is read right but where letters are the same by chance."""
    made = detail.draw((32, 32), 3)
    pages = made.kinds[0]
    # Four pages on, as colours repeat.
    others = np.concatenate([np.roll(made.images[:pages], 4, axis=0), made.images[pages:]])
    places = {(w.picture, w.top, w.left): w.number for w in made.written}
    pairs = [(w.number, places[(w.picture - 4) % pages, w.top, w.left]) for w in made.written]
    letters = [x == y for a, b in pairs for x, y in zip(made.words[a], made.words[b], strict=True)]
    found = detail.measure(made, others)
    assert found["detail_words"] == np.mean([a == b for a, b in pairs])
    assert found["detail_characters"] == np.mean(letters)


def test_texture_is_coherent_spectral_energy():
    """The share by a Fourier transform of each picture, of reconstructions that are fainter and noisy."""
    made = detail.draw((16, 16), 1)
    rng, first = np.random.default_rng(0), sum(made.kinds[:2])
    paper, ink = (made.colours[first:, i, 0][:, None, None] for i in (0, 1))
    covered = made.covered[first:]
    faint = (
        rng.uniform(0.2, 0.9, (len(covered), 1, 1)) * (covered - 0.5)
        + 0.5
        + 0.05 * rng.normal(size=covered.shape)
    )
    changed = made.images.copy()
    changed[first:] = np.rint(np.clip(paper + faint * (ink - paper), 0, 255))[..., None]
    spectra = [np.fft.fft2(x) for x in (covered, (changed[first:, ..., 0] - paper) / (ink - paper))]
    spectra[0][:, 0, 0] = 0
    drawn = np.sum(np.abs(spectra[0]) ** 2, axis=(1, 2))
    gain = np.real(np.sum(np.conj(spectra[0]) * spectra[1], axis=(1, 2))) / drawn
    assert 0.2 < gain.min() < gain.max() < 0.95
    assert detail.measure(made, changed)["detail_texture"] == pytest.approx(np.mean(gain**2), rel=1e-6)


def slow(a, b):
    """Levenshtein's distance by its recursion."""
    if not a or not b:
        return len(a) + len(b)
    return min(slow(a[1:], b) + 1, slow(a, b[1:]) + 1, slow(a[1:], b[1:]) + (a[0] != b[0]))


def test_distance():
    rng = np.random.default_rng(0)
    for _ in range(60):
        a, b = ("".join(rng.choice(list("abc"), rng.integers(0, 7))) for _ in range(2))
        assert text.distance(a, b) == slow(a, b)
    assert text.distance("kitten", "sitting") == 3
    errors = text.Errors()
    errors.add("one two three", "one tow three")
    errors.add("four", "")
    assert errors.rates() == dict(cer=(2 + 4) / 17, wer=2 / 4)
    assert text.Errors().rates() == dict(cer=0, wer=0)


def test_sets_on_disk(tmp_path):
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (*size, 3), dtype=np.uint8) for size in ((20, 30), (7, 9), (16, 16))]
    in_parquet.write(tmp_path / "patterns" / "test-00000-of-00002.parquet", images[:2])
    in_parquet.write(tmp_path / "patterns" / "test-00001-of-00002.parquet", images[2:])
    in_parquet.write(tmp_path / "multilingual" / "Hindi-00000-of-00001.parquet", images[:1])
    found = vtbench.files(paths.path(tmp_path))
    assert {k: [f.name[:12] for f in v] for k, v in found.items()} == dict(
        patterns=["test-00000-o", "test-00001-o"], hindi=["Hindi-00000-"]
    )
    read = [x for file in found["patterns"] for x in vtbench.pictures(file, 3)]
    assert [vtbench.count(file) for file in found["patterns"]] == [2, 1]
    for a, b in zip(read, images, strict=True):
        np.testing.assert_array_equal(a, b)


def test_broken_sets(tmp_path):
    import pyarrow
    import pyarrow.parquet

    with pytest.raises(UserError, match="expected VTBench's folders, such as patterns/test-"):
        vtbench.files(paths.path(tmp_path))
    (file := paths.path(tmp_path / "x.parquet")).write_text("nothing")
    with pytest.raises(UserError, match="x.parquet: expected a Parquet file, found a broken one"):
        list(vtbench.pictures(file, 3))
    pyarrow.parquet.write_table(pyarrow.table(dict(picture=[1])), file)
    with pytest.raises(UserError, match="expected a column image, found picture"):
        list(vtbench.pictures(file, 3))
    pyarrow.parquet.write_table(pyarrow.table(dict(image=[dict(bytes=b"no", path="")])), file)
    with pytest.raises(UserError, match="x.parquet: expected a whole image"):
        list(vtbench.pictures(file, 3))


def test_measures_are_those_of_metrics():
    made = detail.draw((32, 32), 3)
    after = blurred(made.images, 1)
    a, b = (x.astype(np.float64) / 127.5 - 1 for x in (made.images, after))
    assert detail.measure(made, after)["detail_psnr_db"] == pytest.approx(np.mean(metrics.psnr(a, b)))
