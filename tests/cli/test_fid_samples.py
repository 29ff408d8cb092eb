"""The samples of a FID: ADM's form, the same on any number of devices and processes, and gone on with after a stop."""

import json
import shutil
import zipfile

import commands
import jax
import numpy as np
import pytest

import vargen
from vargen import seeds
from vargen.cli import fid_samples, main
from vargen.errors import UserError

TOTAL, BATCH = 22, 4


def arguments(trained, out, *more):
    given = ["--workdir", trained.workdir, "--fid-samples", TOTAL, "--batch-size", BATCH, "--out", out, *more]
    return ["sample", *map(str, given)]


@pytest.fixture(scope="module")
def alone(trained, tmp_path_factory):
    """The file that one device writes."""
    out = tmp_path_factory.mktemp("fid") / "samples.npz"
    assert main.main(arguments(trained, out)) == 0
    return out


def test_the_form_is_adms(trained, alone):
    """What it holds is what the model draws, batch by batch, of classes in turn."""
    with np.load(alone) as found:
        assert found.files == ["arr_0", "arr_1"]
        images, labels = found["arr_0"], found["arr_1"]
    assert images.shape == (TOTAL, 16, 16, 3) and images.dtype == np.uint8
    assert labels.dtype == np.int64 and labels.tolist() == [i % 10 for i in range(TOTAL)]
    assert (images[..., :1] == images).all()  # grey ones
    model = vargen.load(trained.workdir)
    for start in (0, 4, 20):
        some = np.resize(labels[start : start + BATCH], BATCH) if start < 20 else np.array([0, 1, 1, 1])
        drawn = model.sample(some, jax.random.fold_in(seeds.key(0), start))
        count = min(BATCH, TOTAL - start)
        off = images[start : start + count, ..., :1] - (np.asarray(drawn)[:count] + 1) * 127.5
        assert np.abs(off).max() <= 0.501  # the nearest level
    assert not alone.with_name("samples.npz.parts").exists()
    with zipfile.ZipFile(alone) as archive:
        assert {info.compress_type for info in archive.infolist()} == {zipfile.ZIP_STORED}
        assert json.loads(archive.comment)["fid_samples"] == TOTAL


def test_four_devices_write_the_same_file(trained, alone, tmp_path):
    commands.run(*arguments(trained, tmp_path / "four.npz"), devices=4)
    assert (tmp_path / "four.npz").read_bytes() == alone.read_bytes()


@pytest.mark.slow
def test_two_processes_write_the_same_file(trained, alone, tmp_path):
    outputs = commands.together(*arguments(trained, tmp_path / "two.npz"))
    assert (tmp_path / "two.npz").read_bytes() == alone.read_bytes()
    assert sum("samples in" in text for text in outputs) == 1


def test_a_stopped_run_goes_on(trained, alone, tmp_path, monkeypatch, capsys):
    """What is there isn't drawn again, what was cut is; of other settings nothing is taken."""
    out, put, drawn = tmp_path / "s.npz", fid_samples.Store.put, []

    def stops(store, start, images):
        if len(drawn) == 3:
            raise UserError("stopped")
        drawn.append(start)
        put(store, start, images)

    monkeypatch.setattr(fid_samples.Store, "put", stops)
    assert main.main(arguments(trained, out)) == 2
    parts = tmp_path / "s.npz.parts"
    assert not out.exists() and sorted(p.name for p in parts.iterdir())[:3] == [
        f"{i:08d}.bin" for i in (0, 4, 8)
    ]
    (parts / "00000004.bin").write_bytes(b"cut")
    capsys.readouterr()
    for more, words in (
        (("--seed", "1"), "found seed 0 and not 1"),
        (("--temperature", "0.5"), "found sampling.temperature 1.0 and not 0.5"),
        (("--classes", "0-4"), "found labels 'balanced of 0-9' and not 'balanced of 0-4'"),
    ):
        assert main.main(arguments(trained, out, *more)) == 2
        error = capsys.readouterr().err
        assert words in error and "--overwrite" in error and error.count("\n") == 1
    monkeypatch.setattr(fid_samples.Store, "put", lambda *args: drawn.append(args[1]) or put(*args))
    drawn.clear()
    assert main.main(arguments(trained, out)) == 0
    assert drawn == [4, 12, 16, 20]
    assert out.read_bytes() == alone.read_bytes() and not parts.exists()
    # Once more there is nothing to do; of other settings the file is replaced where that is asked for.
    drawn.clear()
    assert main.main(arguments(trained, out)) == 0 and not drawn
    assert main.main(arguments(trained, out, "--seed", "1")) == 2
    assert "found seed 0 and not 1" in capsys.readouterr().err
    assert main.main(arguments(trained, out, "--seed", "1", "--overwrite")) == 0
    assert out.read_bytes() != alone.read_bytes()


def test_labels_balanced_or_drawn():
    assert fid_samples.labels_of([3, 5, 9], 7, "balanced", 0).tolist() == [3, 5, 9, 3, 5, 9, 3]
    drawn = fid_samples.labels_of([3, 5, 9], 3000, "random", 0)
    assert drawn.dtype == np.int64 and set(drawn.tolist()) == {3, 5, 9}
    assert np.abs(np.bincount(drawn)[[3, 5, 9]] - 1000).max() < 130  # 5 deviations of 25.8
    assert (drawn == fid_samples.labels_of([3, 5, 9], 3000, "random", 0)).all()
    assert (drawn != fid_samples.labels_of([3, 5, 9], 3000, "random", 1)).any()


def test_levels():
    images = np.array([-1.0, -0.5, 0.0, 0.999, 1.0], np.float32)[
        :, None, None
    ]  # 0, 63.75, 127.5, 254.87, 255
    assert fid_samples.levels(images, "nearest")[:, 0, 0].tolist() == [0, 64, 128, 255, 255]
    assert fid_samples.levels(images, "down")[:, 0, 2].tolist() == [0, 63, 127, 254, 255]


def test_mistakes_in_one_line(trained, tmp_path, capsys):
    (tmp_path / "other.npz").write_bytes(b"something")
    (tmp_path / "folder.npz").mkdir()
    for more, words in (
        (("--out", tmp_path / "a"), "--out: expected FILE.npz for --fid-samples, found"),
        (
            ("--out", tmp_path / "none" / "a.npz"),
            f"expected a folder {tmp_path}/none to write it in, found none",
        ),
        (("--out", tmp_path / "folder.npz"), "expected a file, or nothing, found a directory"),
        (("--out", tmp_path / "other.npz"), "found a file of something else; --overwrite"),
        (("--fid-samples", "9"), "--fid-samples: expected at least 10, one of each class, found 9"),
        (("--count", "2"), "expected --fid-samples or --count, found both"),
        (("--classes", "11"), "class"),
        (("--preset", "none"), "--preset"),
    ):
        assert main.main(arguments(trained, tmp_path / "a.npz", *more)) == 2
        error = capsys.readouterr().err
        assert words in error and error.count("\n") == 1, error
    assert sorted(p.name for p in tmp_path.iterdir()) == ["folder.npz", "other.npz"]
    shutil.rmtree(tmp_path / "folder.npz")
