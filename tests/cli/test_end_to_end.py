"""Every system that trains on the digits, through all commands, at a tiny size."""

import argparse
import contextlib
import io
import itertools
import json
import shutil

import jax
import numpy as np
import pytest
from commands import ROOT, tiny
from PIL import Image
from systems import rqtransformer

import vargen
from vargen import config, data, fine_tuning, models, progress
from vargen.cli import complete, main
from vargen.data import listing
from vargen.errors import UserError
from vargen.model import Model

SYSTEMS = sorted(path.stem for path in (ROOT / "configs").glob("*.py"))
SYSTEMS.remove("orthus")  # which takes captions: tests/cli/test_caption_commands.py
OFTEN = ("var",)  # the others take as long, and have the parts of these
CONFIG = {system: ROOT / "configs" / f"{system}.py" for system in SYSTEMS}


def run(*arguments):
    assert main.main([str(a) for a in arguments]) == 0


def often(*systems):
    """A parameter for each system; those that aren't named are slow."""
    return [s if s in systems else pytest.param(s, marks=pytest.mark.slow) for s in SYSTEMS]


@pytest.fixture(scope="module")
def workdir(trained, judged, tmp_path_factory):
    """A trained system's workdir that tests may go on with, and what the command that trained it printed."""
    made = {}

    def of(system):
        if system not in made:
            folder = tmp_path_factory.mktemp(system) / "w"
            if system == "var":
                shutil.copytree(trained.workdir, folder)
                made[system] = folder, trained.printed
            else:
                with contextlib.redirect_stdout(io.StringIO()) as out:
                    run("train", "--config", CONFIG[system], "--workdir", folder, *tiny(system))
                made[system] = folder, out.getvalue()
        return made[system]

    return of


@pytest.mark.slow
def test_completions(workdir, tmp_path, capsys, monkeypatch):
    where, _ = workdir("llamagen")
    out, options = tmp_path / "o", ["--pictures", 2, "--count", 3, "--guidance", 1000]
    run("complete", "--workdir", where, "--keep", "top", *options, "--out", out)
    names = sorted(p.name for p in out.iterdir())
    assert names == [f"{i:04d}-{j:03d}.png" for i in range(2) for j in range(3)]
    drawn = [np.asarray(Image.open(out / name).convert("L")) for name in names]
    # What stays are codes (tests/test_model.py): in pixels the halves differ by what the decoder mixes.
    apart = np.abs(np.diff(np.float32(drawn[:3]), axis=0)).mean(axis=(0, 2))
    assert apart[:8].mean() < 0.5 * apart[8:].mean() and not np.array_equal(drawn[0], drawn[3])
    assert (tmp_path / "o_sheet.png").is_file()
    assert (tmp_path / "o.html").read_text().count("<img") == 2 * (2 + 3)
    said = capsys.readouterr().out
    assert f"6 completions of 2 pictures in {out}; look at {tmp_path / 'o.html'}\n" in said
    Image.new("L", (32, 16)).save(tmp_path / "wide.png")
    mask = Image.new("L", (32, 32))
    mask.paste(255, (0, 0, 32, 16))
    mask.save(tmp_path / "mask.png")
    # Each picture is of its own class: the data's, or that of the folder in which it lies.
    originals, labels = data.arrays(data.load(vargen.load(where).config.data, "test"), 2)
    assert labels[0] != labels[1]
    said = [json.loads(Image.open(out / name).text["vargen"])["class"] for name in names]
    assert said == [str(label) for label in labels for _ in range(3)]
    for label, original in zip(labels, originals, strict=True):
        file = tmp_path / "pictures" / str(label) / "any" / "1.png"
        file.parent.mkdir(parents=True)
        Image.fromarray(original[..., 0]).save(file)
    mine = [tmp_path / "pictures" / str(label) for label in labels]
    for folder, more, same in (
        ("named", ("--classes", labels[0]), [True, False]),
        ("mine", ("--input", *mine), [True, True]),
    ):
        place = ("--keep", tmp_path / "mask.png", "--out", tmp_path / folder)
        run("complete", "--workdir", where, *options, *more, *place)
        again = [np.asarray(Image.open(tmp_path / folder / name).convert("L")) for name in names]
        assert [np.array_equal(again[i : i + 3], drawn[i : i + 3]) for i in (0, 3)] == same
    capsys.readouterr()
    monkeypatch.setattr(progress, "bar", None)  # nothing is drawn any more
    for wrong, words in (
        (["--keep", "border"], "--keep border: expected whole steps of the order, from the first one on"),
        (["--keep", "1"], "--keep 1: expected a part of the picture, as there is one level"),
        (
            ["--keep", str(tmp_path / "wide.png")],
            "wide.png: expected the proportions of the held-out pictures, 16 x 16 pixels, found 32 x 16",
        ),
        (
            ["--keep", "middle"],
            "--keep middle: expected top, bottom, left, right, border, a number of levels, or a picture, found none",
        ),
        (["--keep", "top", "--steps", "3"], "sampling.steps: this order has 16 steps, found 3"),
        (["--keep", "top", "--classes", "1,2"], "--classes: expected one class for all pictures, found 2"),
        (["--keep", "top", "--classes", "11"], "class"),
    ):
        assert main.main(["complete", "--workdir", str(where), *wrong, "--out", str(tmp_path / "none")]) == 2
        error = capsys.readouterr().err
        assert words in error and error.count("\n") == 1 and not (tmp_path / "none").exists()


def test_completions_of_a_class_that_is_not_known(tmp_path):
    """A model that has learnt no pictures without a class wants to be told those that no folder tells."""
    c = rqtransformer()
    c.conditioning = config.part("label", dropout=None)
    files = [tmp_path / name for name in ("3/1.png", "holiday/2.png")]
    for file in files:
        file.parent.mkdir()
        Image.new("L", (16, 16)).save(file)
    args = argparse.Namespace(input=[str(file) for file in files], classes=None, pictures=9)
    for wanted, dropout, found in ((None, 0.1, [3, None]), ("5", None, [5, 5])):
        c.conditioning.dropout, args.classes = dropout, wanted
        assert complete.chosen(args, Model(c, {}, {})).labels == found
    args.classes = None
    with pytest.raises(
        UserError, match="--classes: expected the class of picture 1, which isn't known, as .* none$"
    ):
        complete.chosen(args, Model(c, {}, {}))
    # A class whose name the folder has in another form of Unicode.
    model = Model(c, {}, {})
    model.classes = [*model.classes[:-1], "caf\u00e9"]
    args.input = [str(files[0].parent.rename(tmp_path / "cafe\u0301"))]
    assert complete.chosen(args, model).labels == [9]


AGAIN = dict(jpeglm=(), flexvar=("--levels", "1,2,3x4"))


@pytest.mark.parametrize("system", often(*OFTEN))
def test_all_commands(system, workdir, tmp_path):
    where, printed = workdir(system)
    coded = bool(models.build_tokenizer(config.load(CONFIG[system])).vocab)
    trained, suffixes = system != "jpeglm", [".png"]
    if not trained:
        assert "tokenizer jpeg: nothing to train" in printed
        assert not (where / "tokenizer" / "metrics.jsonl").exists()
        suffixes = [".jpg", ".png"]
    for part in ("tokenizer", "generator")[not trained :]:
        rows = [json.loads(line) for line in (where / part / "metrics.jsonl").read_text().splitlines()]
        assert rows[-1]["step"] == 4 and np.isfinite(rows[-1]["validation_loss"])
        # Of codes, how they are used, at every level, in training and on held-out images.
        level = "codebook_use_level_1"
        shown = part == "tokenizer" and coded
        assert all((key in rows[-1]) == shown for key in (level, f"validation_{level}"))
    assert ("codebook use" in printed) == coded

    # As many as evaluation draws at once, so that both run the same compiled program.
    out = tmp_path / "samples"
    run("sample", "--workdir", where, "--classes", "7,2-3,9", "--count", 10, "--seed", 5, "--out", out)
    names = sorted(path.name for path in out.iterdir())
    assert names == [f"{c}-{i:03d}{s}" for c in (2, 3, 7, 9) for i in range(10) for s in suffixes]
    assert (tmp_path / "samples_grid.png").is_file() and (tmp_path / "samples_steps.png").is_file()
    with Image.open(out / "9-001.png") as image:
        assert image.size == (16, 16)
        said = json.loads(image.text["vargen"])
    assert (said["class"], said["seed"], said["labels"], said["index"]) == ("9", 5, "7,2-3,9", 31)

    # Drawn again with what is special to it: levels that were not trained, files beside the pictures.
    if system in AGAIN:
        options = ("--count", 3, "--classes", "2", *AGAIN[system])
        run("sample", "--workdir", where, *options, "--out", tmp_path / "special")
        run("sample", "--like", tmp_path / "special" / "2-001.png", "--out", tmp_path / "like")
        for suffix in suffixes:
            first, again = (tmp_path / f / f"2-001{suffix}" for f in ("special", "like"))
            assert first.read_bytes() == again.read_bytes()
        assert len(list((tmp_path / "like").iterdir())) == len(suffixes)

    run("reconstruct", "--workdir", where, "--count", 3, "--out", tmp_path / "reconstructed")
    assert (tmp_path / "reconstructed_sheet.png").is_file()

    run("evaluate", "--workdir", where, "--out", tmp_path)
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    expected = {"label_accuracy", "real_label_accuracy", "psnr_db", "train_seconds", "images_per_second"}
    expected |= {"codebook_perplexity_level_1"} if coded else set()
    expected |= set() if trained else {"valid"}
    assert expected <= set(metrics)
    assert metrics["real_label_accuracy"] > 0.9 and metrics["train_seconds"] > 0
    assert (tmp_path / "report.html").is_file() and (tmp_path / "samples.png").is_file()

    # Fine-tuning that learns nothing leaves the model what it was.
    fine, rate = tmp_path / "fine", ["--config.training.learning_rate=0", "--config.training.steps=2"]
    run("train", "--from", where, "--workdir", fine, *rate)
    before, after = vargen.load(where), vargen.load(fine)
    for name in ("tokenizer_params", "generator_params"):
        jax.tree.map(np.testing.assert_array_equal, getattr(after, name), getattr(before, name))
    for axis in config.AXES:
        expected = fine_tuning.begun(before.config)[axis]
        assert after.config[axis] == expected, axis
    assert after.config.training.schedule == "constant" and after.config.training.ema_decay == 0.999


@pytest.mark.parametrize("system", often())
def test_commands_again(system, workdir, tmp_path, capsys):
    """What is there is kept, goes on, comes out the same, or stands in the way."""
    where, _ = workdir(system)
    train = ["train", "--config", CONFIG[system], "--workdir", where, *tiny(system)]
    # Complete stages are skipped, and codes that fit are kept.
    before = (where / "codes" / "index.json").stat().st_mtime_ns
    run(*train)
    assert (where / "codes" / "index.json").stat().st_mtime_ns == before

    sample = ["sample", "--workdir", where, "--count", 10, "--seed", 5]
    run(*sample, "--classes", "7,2-3,9")
    first, out = (where / "samples_grid.png").read_bytes(), tmp_path / "again"
    run(*sample, "--classes", "7,2,3,9", "--out", out)
    assert (tmp_path / "again_grid.png").read_bytes() == first

    # One of them drawn again, by the settings inside it.
    run("sample", "--like", out / "9-001.png", "--out", tmp_path / "one")
    # Files of bytes lie beside their pictures.
    assert {path.stem for path in (tmp_path / "one").iterdir()} == {"9-001"}
    assert (tmp_path / "one" / "9-001.png").read_bytes() == (out / "9-001.png").read_bytes()
    run("sample", "--like", out / "9-001.png", "--out", tmp_path / "other", "--temperature", 3)
    assert (tmp_path / "other" / "9-001.png").read_bytes() != (out / "9-001.png").read_bytes()

    # Older samples stay unless they are to go.
    again = ["sample", "--workdir", where, "--classes", "7", "--count", 40, "--seed", 6, "--out", out]
    assert main.main([str(a) for a in again]) == 2
    assert "found 40; --overwrite clears them" in capsys.readouterr().err
    run(*again, "--overwrite")
    assert sorted(path.name for path in out.glob("*.png")) == [f"7-{i:03d}.png" for i in range(40)]
    assert {path.stem for path in out.iterdir()} == {f"7-{i:03d}" for i in range(40)}

    run("reconstruct", "--workdir", where, "--input", where / "samples", "--out", tmp_path / "mine")
    assert (tmp_path / "mine_sheet.png").is_file() and len(list((tmp_path / "mine").iterdir())) == 32

    capsys.readouterr()
    run("quickstart", *train[1:])
    printed = capsys.readouterr().out
    assert "Label accuracy" in printed and str(where / "report.html") in printed

    # Fine-tuning that was done has nothing to do.
    rate = ["--config.training.learning_rate=0", "--config.training.steps=1"]
    for _ in range(2):
        run("train", "--from", where, "--workdir", tmp_path / "fine", *rate)
    assert len((tmp_path / "fine" / "generator" / "metrics.jsonl").read_text().splitlines()) == 1

    for wrong in (["--classes", "10"], ["--steps", "1000"]):
        assert main.main(["sample", "--workdir", str(where), "--overwrite", *wrong]) == 2
        assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.slow
def test_another_workdirs_tokenizer_and_no_stored_codes(judged, tmp_path, capsys):
    options = ["--config", CONFIG["llamagen"], *tiny("llamagen")]
    run("train", *options, "--workdir", tmp_path / "a", "--stage", "tokenizer")
    assert not (tmp_path / "a" / "generator").exists()
    options += ["--config.training.codes=false", "--config.tokenizer_training.steps=100"]
    run("train", *options, "--workdir", tmp_path / "b", "--tokenizer", tmp_path / "a")
    assert not (tmp_path / "b" / "codes").exists()
    out = tmp_path / "out"
    run("evaluate", "--workdir", tmp_path / "b", "--samples", 40, "--temperature", 0.9, "--out", out)
    assert json.loads((out / "metrics.json").read_text())["samples"] == 40
    assert (out / "report.html").is_file()

    capsys.readouterr()
    other = ["--config.tokenizer.vocab=16", "--tokenizer", tmp_path / "a", "--workdir", tmp_path / "c"]
    assert main.main([str(a) for a in ["train", *options, *other]]) == 2
    assert "vocab" in capsys.readouterr().err


def test_a_folder_of_pictures(tmp_path, capsys, monkeypatch):
    """One's own pictures: the classes are the folder's; a run lists it once."""
    rng = np.random.default_rng(0)
    for name in ("bright", "dark"):
        (tmp_path / "pictures" / name).mkdir(parents=True)
        for i in range(12):
            pixels = rng.integers(0, 128, (20, 24, 3)) + (127 if name == "bright" else 0)
            Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / "pictures" / name / f"{i}.png")
    source = ["source=folder", f"path={tmp_path / 'pictures'}", "num_classes=0", "channels=3"]
    arguments = [f"--config.data.{field}" for field in [*source, "test_fraction=0.4"]]
    workdir, listed, items = tmp_path / "w", [], listing._items
    options = ["--config", CONFIG["llamagen"], *tiny("llamagen"), *arguments]
    with monkeypatch.context() as patched:
        patched.setattr(listing, "_items", lambda folder: (listed.append(folder), items(folder))[1])
        run("train", *options, "--workdir", workdir, "--check-data")
    assert sorted(folder.name for folder in listed) == ["bright", "dark", "pictures"]
    run("sample", "--workdir", workdir, "--classes", "dark", "--count", "1")
    with Image.open(workdir / "samples" / "dark-000.png") as image:
        assert image.size == (16, 16) and image.mode == "RGB"

    # Fine-tuned on other pictures: the class that both have keeps its embedding, though it is another number.
    (tmp_path / "pictures" / "bright").rename(tmp_path / "pictures" / "night")
    fine = tmp_path / "fine"
    rate = ["--config.training.learning_rate=0", "--config.training.steps=2"]
    shutil.move(tmp_path / "pictures", tmp_path / "others")
    others = ["--config.data.num_classes=0", f"--config.data.path={tmp_path / 'others'}"]
    run("train", "--from", workdir, "--workdir", fine, *others, *rate)
    for again in (["--from", workdir, *others, *rate], []):  # there is nothing left to do
        run("train", *again, "--workdir", fine)
    assert "1 of 2 classes are among the model's and keep their embeddings: dark" in capsys.readouterr().out
    assert [vargen.load(d).classes for d in (workdir, fine)] == [["bright", "dark"], ["dark", "night"]]
    before, after = (
        np.asarray(vargen.load(d).generator_params["condition"]["classes"]["table"]) for d in (workdir, fine)
    )
    np.testing.assert_allclose(after[[0, 2]], before[[1, 2]], atol=1e-7)  # and that of no class
    assert np.abs(after[1] - before).min(axis=0).max() > 1e-3


@pytest.mark.slow
def test_a_broken_picture_in_a_long_run(tmp_path, capsys):
    """What was trained is saved and the file named; allowed to skip it, the run goes on as one that never stopped."""
    for k in range(50):
        file = tmp_path / "pictures" / ("train" if k < 48 else "val") / "ab"[k % 2] / f"{k}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (20, 24), (5 * k,) * 3).save(file)
    settings = config.images("folder", 16, 3, 0, path=str(tmp_path / "pictures"))
    third = list(itertools.islice(data.batches(data.load(settings), batch_size=16), 3))[2]["image"]
    name = f"{round((float(third[0].mean()) + 1) * 127.5 / 5)}.png"
    (broken,) = (tmp_path / "pictures" / "train").glob(f"*/{name}")
    broken.write_bytes(broken.read_bytes()[:50])
    fields = ["source=folder", f"path={tmp_path / 'pictures'}", "num_classes=0", "channels=3", "crop=random"]
    fields = [f"--config.data.{field}" for field in fields] + ["--config.tokenizer_training.steps=9"]
    train = ["train", "--config", ROOT / "configs" / "var.py", *tiny("var"), *fields]
    skip = "--config.data.skip_broken=1"

    run(*train, "--workdir", tmp_path / "one", skip)
    assert name in capsys.readouterr().out
    assert main.main([str(a) for a in (*train, "--workdir", tmp_path / "two")]) == 2
    said = capsys.readouterr()
    assert said.out.endswith("saved at step 2\n")
    assert f"{name}: expected a whole image" in said.err.splitlines()[-1]
    assert [p.name for p in (tmp_path / "two" / "tokenizer" / "checkpoints").iterdir()] == ["2"]
    assert main.main([str(a) for a in (*train, "--workdir", tmp_path / "two", "--check-data")]) == 2
    assert (
        f"found 1 of 50 images that cannot be read: train/{broken.parent.name}/{name}"
        in capsys.readouterr().err
    )
    run(*train, "--workdir", tmp_path / "two", skip, "--check-data")
    for part in ("codes/index.json", "codes/content-00000.npy", "codes/labels-00000.npy"):
        assert (tmp_path / "one" / part).read_bytes() == (tmp_path / "two" / part).read_bytes()
    last = [
        json.loads((tmp_path / run_ / "generator" / "metrics.jsonl").read_text().splitlines()[-1])
        for run_ in ("one", "two")
    ]
    assert last[0]["loss"] == last[1]["loss"] and last[0]["validation_loss"] == last[1]["validation_loss"]
    before = (tmp_path / "two" / "codes" / "index.json").stat().st_mtime_ns
    run(*train, "--workdir", tmp_path / "two", "--config.data.skip_broken=7")  # codes are what they were
    assert (tmp_path / "two" / "codes" / "index.json").stat().st_mtime_ns == before
