"""Commands on a model of clips that hasn't been trained, and what is of pictures alone."""

import json

import numpy as np
import pytest
from commands import ROOT
from parameters import plain
from PIL import Image

from vargen import config, evaluation, models, weights_file
from vargen.cli import main
from vargen.evaluation import classifier
from vargen.training import checkpoints


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    """configs/clips.py's LARP with random weights: 4 frames, and few of everything else."""
    c = config.load(ROOT / "configs" / "clips.py:larp")
    c.data.frames = 4
    c.tokenizer.encoder.update(dict(width=24, layers=1, heads=2, patch=8, tokens=6))
    c.model.update(dict(layers=1, width=32, mlp_width=48))
    c.mixer.heads, c.evaluation.batch_size = 2, 20
    tokenizer = models.build_tokenizer(c)
    parts = dict(tokenizer=tokenizer, generator=models.build_generator(c, tokenizer))
    where = tmp_path_factory.mktemp("clips") / "w"
    for name, part in parts.items():
        (where / name).mkdir(parents=True)
        weights_file.write(where / name / checkpoints.WEIGHTS, plain(part.init))
        (where / name / checkpoints.CONFIG).write_text(config.to_json(c))
    (where / checkpoints.CONFIG).write_text(config.to_json(c))
    return where


def run(*arguments):
    assert main.main([str(a) for a in arguments]) == 0


def frames(file):
    with Image.open(file) as opened:
        return opened.n_frames, opened.size


def test_samples_move(workdir, tmp_path, capsys):
    out = tmp_path / "s"
    run("sample", "--workdir", workdir, "--classes", "3,5", "--count", 2, "--out", out)
    names = sorted(p.name for p in out.iterdir())
    assert names == ["3-000.png", "3-001.png", "5-000.png", "5-001.png"]
    assert all(frames(out / name) == (4, (16, 16)) for name in names)
    for sheet in ("grid", "steps"):
        with Image.open(tmp_path / f"s_{sheet}.png") as opened:
            assert opened.width > 2 * 4 * 32 and not getattr(opened, "is_animated", False)
    run("sample", "--like", out / "5-001.png", "--workdir", workdir, "--out", tmp_path / "again")
    assert (tmp_path / "again" / "5-001.png").is_file()
    assert "4 images" in capsys.readouterr().out


def test_there_and_back(workdir, tmp_path, capsys):
    run("reconstruct", "--workdir", workdir, "--count", 3, "--out", tmp_path / "r")
    assert frames(tmp_path / "r" / "0002.png") == (4, (16, 16)) and (tmp_path / "r_sheet.png").is_file()
    run("evaluate", "--workdir", workdir, "--tokenizer-only", "--out", tmp_path / "e")
    found = json.loads((tmp_path / "e" / "tokenizer.json").read_text())
    assert np.isfinite(found["psnr_db"]) and found["bits_per_pixel"] == 6 * 8 / (4 * 16 * 16)
    assert 0 <= found["linear_probe"] <= 1 and found["ms_ssim"] <= 1
    assert "PSNR" in capsys.readouterr().out


def test_report(workdir, tmp_path, monkeypatch):
    """Measured as pictures are, by a classifier that knows nothing, with a page that says what it judges."""
    network = classifier.Network(10, classifier.Settings(width=4, features=8))
    params = plain(lambda key: network.init(key, np.zeros((1, 16, 16, 1)))["params"])
    monkeypatch.setattr(evaluation, "fit", lambda *_: classifier.Classifier(network, params))
    run("evaluate", "--workdir", workdir, "--samples", 20, "--out", tmp_path / "e")
    found = json.loads((tmp_path / "e" / "metrics.json").read_text())
    assert {"label_accuracy", "frechet_distance_classifier", "psnr_db", "nearest_distance"} <= {*found}
    text = (tmp_path / "e" / "report.html").read_text()
    assert "know nothing of motion" in text and "Frame by frame" in text and "4×16×16 pixels" in text
    with Image.open(tmp_path / "e" / "samples.png") as opened:
        assert opened.width > 12 * 4 * 32


@pytest.mark.parametrize(
    "command, words",
    [
        ("reconstruct --input a.png", "--input: expected a model of pictures"),
        ("reconstruct --tile 16", "--tile: expected a model of pictures"),
        ("complete --keep top", "complete: expected a model of pictures"),
        ("evaluate --tokenizer-only --vtbench", "--vtbench: expected a model of pictures"),
        ("evaluate --reference a.npz --inception b.pth", "--reference: expected a model of pictures"),
        ("sample --fid-samples 100 --out {tmp}/a.npz", "--fid-samples: expected a model of pictures"),
        ("sample --config.data.frames=8", "data.frames: the model was trained with 4, found 8"),
    ],
)
def test_what_is_of_pictures_alone(workdir, tmp_path, capsys, command, words):
    name, *rest = command.format(tmp=tmp_path).split()
    out = [] if "--out" in rest else ["--out", tmp_path / "o"]
    assert main.main([name, "--workdir", str(workdir), *map(str, [*rest, *out])]) != 0
    error = capsys.readouterr().err.strip()
    assert words in error and len(error.splitlines()) == 1
