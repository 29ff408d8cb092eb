"""`vargen evaluate --reference`: files of every kind, and what doesn't belong together."""

import hashlib
import json
import types

import numpy as np
import pytest
from PIL import Image

from vargen.cli import evaluate, image_sets, main
from vargen.errors import UserError
from vargen.evaluation import fid, inception, metrics, mmd
from vargen.evaluation.inception import Outputs
from vargen.interop import files, mapping, views
from vargen.interop import inception as weights
from vargen.weights_file import flatten

RNG = np.random.default_rng(0)
SIZES = 6, 4


class Encoder:
    """Features that are sums of pixels."""

    sizes = SIZES

    def __call__(self, images):
        flat = np.float32(images.reshape(len(images), -1)) / 255
        return Outputs(*(flat[:, 7 : 7 + 11 * n : 11] for n in (*SIZES, 5)))


@pytest.fixture
def encoder(monkeypatch, tmp_path):
    monkeypatch.setattr(weights, "read", lambda path: Encoder())
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.pth").write_bytes(b"weights")
    return Encoder()


def pictures(count, size=16, channels=3):
    return RNG.integers(0, 256, (count, size, size, channels), dtype=np.uint8)


def run(*arguments):
    assert main.main([str(a) for a in ("evaluate", *arguments)]) == 0


def refused(capsys, *arguments):
    assert main.main([str(a) for a in ("evaluate", *arguments)]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    return err


def statistics(features):
    features = np.float64(features)
    return features.mean(axis=0), np.cov(features, rowvar=False)


def test_adms_files(encoder, tmp_path, capsys):
    """A reference of images and statistics of other, more images: FID is of the statistics, recall of the images."""
    real, few, drawn = pictures(60), pictures(12), pictures(40)
    outputs = encoder(real)
    named = zip(("mu", "sigma", "mu_s", "sigma_s"), (*statistics(outputs.pool), *statistics(outputs.spatial)))
    np.savez(tmp_path / "adm.npz", arr_0=few, **dict(named))
    np.savez_compressed(tmp_path / "samples.npz", arr_0=drawn)
    given = ["--inception", "x.pth", "--samples", tmp_path / "samples.npz", "--out", tmp_path / "out"]
    run(*given, "--reference", tmp_path / "adm.npz")
    found = json.loads((tmp_path / "out" / "metrics.json").read_text())
    theirs = encoder(drawn)
    assert found["fid"] == pytest.approx(metrics.frechet_distance(outputs.pool, theirs.pool), rel=1e-6)
    assert found["sfid"] == pytest.approx(metrics.frechet_distance(outputs.spatial, theirs.spatial), rel=1e-6)
    assert found["samples"] == 40 and 0 <= found["inception_recall"] <= 1
    printed = capsys.readouterr().out
    assert f"FID {found['fid']:33.2f}".split() == printed.splitlines()[0].split()

    # Of images alone all comes from them; a folder of the same pictures is the same.
    np.savez(tmp_path / "real.npz", arr_0=real)
    run(*given, "--reference", tmp_path / "real.npz")
    found = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert found["fid"] == pytest.approx(metrics.frechet_distance(outputs.pool, theirs.pool), rel=1e-6)
    (tmp_path / "folder").mkdir()
    for i, image in enumerate(real):
        Image.fromarray(image).save(tmp_path / "folder" / f"{i}.png")
    run(*given, "--reference", tmp_path / "folder")
    assert json.loads((tmp_path / "out" / "metrics.json").read_text()) == found


def test_samples_of_a_model(encoder, trained, judged, tmp_path):
    """The field's figures stand beside the classifier's, in metrics.json and on the page."""
    mean, covariance = statistics(RNG.uniform(size=(50, SIZES[0])))
    np.savez(tmp_path / "stats.npz", mu=mean, sigma=covariance)
    given = ["--reference", tmp_path / "stats.npz", "--inception", "x.pth", "--out", tmp_path / "out"]
    run("--workdir", trained.workdir, "--samples", 40, *given)
    found = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert found["fid"] > 0 and found["inception_score"] >= 1 and "sfid" not in found
    assert "label_accuracy" in found and found["samples"] == 40
    page = (tmp_path / "out" / "report.html").read_text()
    made = json.loads((tmp_path / "out" / "made_from.json").read_text())
    assert made["samples"]["images"] == 40 and made["reference"]["bytes"] > 0
    assert made["networks"]["inception"]["sha256"] == hashlib.sha256(b"weights").hexdigest()
    assert "<span>FID</span>" in page and "--reference" in page and "x.pth" in page


class Vision:
    """Features as `Encoder`'s, of a network of the size of published figures', or of another."""

    network = types.SimpleNamespace(width=128, layers=2)

    def __init__(self, size):
        self.size = size

    def __call__(self, images):
        return Encoder()(images).pool[:, : self.size]


def test_dinov2_and_clip(encoder, monkeypatch, tmp_path, capsys):
    """Beside Inception or without it; what the figures were made from stands beside them."""
    monkeypatch.setattr(views, "dinov2", lambda path: Vision(5))
    monkeypatch.setattr(views, "clip", lambda path: Vision(3))
    monkeypatch.setattr(views, "large", lambda encoder: encoder.size == 5)
    monkeypatch.setattr(fid, "KEPT", 50)
    real, drawn = pictures(90), pictures(70)
    np.savez(tmp_path / "real.npz", arr_0=real)
    np.savez(tmp_path / "drawn.npz", arr_0=drawn)
    for name in ("i.pth", "d.pth", "c.safetensors"):
        (tmp_path / name).write_bytes(name.encode())
    given = ["--samples", tmp_path / "drawn.npz", "--reference", tmp_path / "real.npz", "--out", tmp_path]
    both = ["--dinov2", tmp_path / "d.pth", "--clip", tmp_path / "c.safetensors"]
    run(*given, *both)
    found = json.loads((tmp_path / "metrics.json").read_text())
    a, b = Encoder()(real).pool, Encoder()(drawn).pool
    assert set(found) == {"fd_dinov2", "cmmd", "samples"}
    assert found["fd_dinov2"] == pytest.approx(metrics.frechet_distance(a[:, :5], b[:, :5]), rel=1e-6)
    assert found["cmmd"] == pytest.approx(mmd.cmmd(a[:50, :3], b[:50, :3]), rel=1e-6)
    printed = capsys.readouterr().out
    assert "FD-DINOv2 " in printed and "CMMD is of the first 50 images of each set" in printed
    assert "--clip: width 128 and 2 layers" in printed and "--dinov2: width" not in printed

    run(*given, *both, "--inception", tmp_path / "i.pth")
    assert {"fid", "fd_dinov2", "cmmd"} <= set(json.loads((tmp_path / "metrics.json").read_text()))
    made = json.loads((tmp_path / "made_from.json").read_text())
    sha = {
        name: hashlib.sha256((tmp_path / name).read_bytes()).hexdigest() for name in ("drawn.npz", "d.pth")
    }
    assert (made["samples"]["images"], made["samples"]["sha256"]) == (70, sha["drawn.npz"])
    assert made["reference"]["path"] == str(tmp_path / "real.npz") and made["reference"]["images"] == 90
    assert made["networks"]["dinov2"] == dict(path=str(tmp_path / "d.pth"), bytes=5, sha256=sha["d.pth"])
    assert list(made["networks"]) == ["inception", "dinov2", "clip"]
    said = "precision, recall and KID are of the first 50 images of each set"
    assert any(said in remark for remark in made["remarks"]) and said in capsys.readouterr().out

    np.savez(tmp_path / "stats.npz", mu=np.zeros(6), sigma=np.eye(6))
    statistics = [*given[:3], tmp_path / "stats.npz"]
    assert "expected images (arr_0) beside --dinov2" in refused(capsys, *statistics, *both)
    np.savez(tmp_path / "few.npz", arr_0=real[:5])
    few = [*given[:3], tmp_path / "few.npz"]
    assert "few.npz: expected more than 5" in refused(capsys, *few, *both)


def test_features_of_another_network(tmp_path):
    real, drawn = (RNG.normal(size=(n, 5)).astype(np.float16) for n in (30, 20))
    for name, features in (("real", real), ("drawn", drawn)):
        np.savez(tmp_path / f"{name}.npz", features=features, labels=np.zeros(len(features), np.int64))
    given = ["--samples", tmp_path / "drawn.npz", "--reference", tmp_path / "real.npz", "--out", tmp_path]
    run(*given)
    found = json.loads((tmp_path / "metrics.json").read_text())
    assert found["features_frechet_distance"] == pytest.approx(
        metrics.frechet_distance(real, drawn), rel=1e-6
    )
    assert {"features_cmmd", "features_precision", "features_recall"} <= set(found) and found["samples"] == 20


@pytest.mark.slow
def test_the_network_itself(tmp_path, monkeypatch):
    """From the file of the weights, at a sixteenth of the width, to FID."""
    like = weights.expected(2)
    table = weights.table(like)
    shapes = mapping.source_shapes(table, dict(flatten(like)))
    arrays = {
        name: (np.full(shape, 1.0) if "running_var" in name else RNG.normal(size=shape) * 0.3).astype(
            np.float32
        )
        for name, shape in shapes.items()
    }
    files.write(tmp_path / "weights.npz", arrays)
    drawn = pictures(130, 8)
    np.savez(tmp_path / "drawn.npz", arr_0=drawn)
    np.savez(tmp_path / "stats.npz", mu=np.zeros(128), sigma=np.eye(128))
    seen, call = [], inception.Encoder.__call__

    def spy(encoder, images):
        found = call(encoder, images)
        seen.append(found.pool)
        return found

    monkeypatch.setattr(inception.Encoder, "__call__", spy)
    given = ["--reference", tmp_path / "stats.npz", "--inception", tmp_path / "weights.npz"]
    run("--samples", tmp_path / "drawn.npz", *given, "--out", tmp_path)
    found = json.loads((tmp_path / "metrics.json").read_text())
    assert [len(x) for x in seen] == [64, 64, 2] and seen[0].shape[1] == 128 and seen[0].std() > 0
    expected = metrics.frechet_distance_of_gaussians(
        np.zeros(128), np.eye(128), *statistics(np.concatenate(seen))
    )
    assert found["fid"] == pytest.approx(expected, rel=1e-6)


def test_what_does_not_belong_together(encoder, trained, tmp_path, capsys):
    np.savez(tmp_path / "drawn.npz", arr_0=pictures(40))
    np.savez(tmp_path / "large.npz", arr_0=pictures(40, 32))
    np.savez(tmp_path / "few.npz", arr_0=pictures(6))
    np.savez(tmp_path / "long.npz", mu=np.zeros(9), sigma=np.eye(9))
    np.savez(tmp_path / "features.npz", features=np.ones((9, 2)))
    samples, network = ["--samples", tmp_path / "drawn.npz"], ["--inception", "x.pth"]

    def reference(name):
        return ["--reference", tmp_path / f"{name}.npz"]

    def large(*given):
        return refused(capsys, *given, *network, *reference("large"))

    assert "expected images of 16x16 pixels as the samples are, found 32x32" in large(*samples)
    assert "expected images of 16x16 pixels" in large("--workdir", trained.workdir, "--samples", 40)
    err = refused(capsys, *samples, *network, *reference("few"))
    assert "few.npz: expected more than 6" in err and "found 6" in err
    err = refused(capsys, "--samples", tmp_path / "few.npz", *network, *reference("drawn"))
    assert "--samples" in err and "few.npz: expected more than 6" in err
    assert "expected statistics of 6 features, found 9" in refused(
        capsys, *samples, *network, *reference("long")
    )
    assert "expected images or mu and sigma" in refused(capsys, *samples, *network, *reference("features"))
    assert "drawn.npz: expected features [M, F], or --inception" in refused(
        capsys, *samples, *reference("features")
    )
    assert "beside --inception, found none" in refused(
        capsys, "--samples", tmp_path / "features.npz", *network, *reference("drawn")
    )
    for flags, words in (
        ([], "--workdir: expected a run"),
        (samples, "--reference: expected a file"),
        (["--workdir", trained.workdir, *samples], "expected a number beside --workdir"),
        (["--workdir", trained.workdir, *network], "--reference: expected a file"),
        (["--workdir", trained.workdir, *reference("drawn")], "--inception: expected the weights"),
    ):
        assert words in refused(capsys, *flags)


@pytest.mark.parametrize(
    "arrays, words",
    [
        (dict(images=np.zeros((2, 4, 4, 3), np.uint8)), "found images"),
        (dict(arr_0=np.zeros((2, 4, 4, 3), np.float32)), "arr_0: expected images uint8"),
        (dict(arr_0=np.zeros((0, 4, 4, 3), np.uint8)), "arr_0: expected images uint8"),
        (dict(mu=np.zeros(3)), r"expected \[F\] and \[F, F\], found \[3\] and \[0\]"),
        (dict(mu=np.zeros(3), sigma=np.eye(2)), r"found \[3\] and \[2, 2\]"),
        (dict(mu=np.full(2, np.nan), sigma=np.eye(2)), "expected finite numbers"),
        (dict(mu=np.zeros(2, np.int64), sigma=np.eye(2)), "expected floats, found int64"),
        (dict(features=np.zeros(3)), r"features: expected \[M, F\], found \[3\]"),
    ],
)
def test_broken_files(arrays, words, tmp_path):
    np.savez(tmp_path / "x.npz", **arrays)
    with pytest.raises(UserError, match=words):
        image_sets.read(tmp_path / "x.npz", "--reference")


def test_a_folder_of_two_sizes(tmp_path):
    for i, size in enumerate((8, 9)):
        Image.fromarray(pictures(1, size)[0]).save(tmp_path / f"{i}.png")
    images = image_sets.read(tmp_path, "--samples").images
    assert (images.count, images.size) == (2, (8, 8))
    with pytest.raises(UserError, match="1.png: expected 8x8 pixels as the first .* found 9x9"):
        list(images.batches(4))


def test_rows_are_read_a_few_at_a_time(tmp_path):
    images = pictures(10)
    np.savez_compressed(tmp_path / "x.npz", arr_0=images)
    found = list(image_sets.read(tmp_path / "x.npz", "--samples").images.batches(4))
    assert [len(batch) for batch in found] == [4, 4, 2]
    np.testing.assert_array_equal(np.concatenate(found), images)


def test_counts_and_paths():
    assert evaluate._samples("40") == 40 and evaluate._samples("a/b.npz") == "a/b.npz"
