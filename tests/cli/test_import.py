"""Published files through `vargen import`, every command after it, and back through `vargen export`."""

import json

import jax
import numpy as np
import pytest
from PIL import Image
from published_files import IMAGE, imported, publish, published_tiny, run, tiny

import vargen
from vargen import config, models, paths
from vargen.cli import copying, evaluate, main
from vargen.config import part
from vargen.interop import files, mapping, systems

SYSTEMS = ("var", "hmar", "llamagen", "mar", "rar", "acdit", "xar", "rqtransformer", "dnd")
OFTEN = ("var", "mar")  # the commands treat all systems alike


@pytest.mark.parametrize("system", SYSTEMS)
def test_tables_go_both_ways(system):
    for name, (params, arrays) in published_tiny(system).items():
        built = dict(zip(("tokenizer", "generator"), systems.build(tiny(system)), strict=True))[name]
        like = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), params)
        table = getattr(systems.system(system), name).table(built)
        jax.tree.map(np.testing.assert_array_equal, mapping.read(table, arrays, like), params)


@pytest.mark.parametrize(
    "system", [s if s in OFTEN else pytest.param(s, marks=pytest.mark.slow) for s in SYSTEMS]
)
def test_import_and_export(system, tmp_path, capsys):
    params = publish(system, tmp_path)
    out = imported(system, tmp_path, "--heads", 2)
    assert f"8x8: tokenizer {models.parameter_count(systems.build(tiny(system))[0]) / 1e6:.1f} M" in (
        capsys.readouterr().out
    )
    assert sorted(p.name for p in tmp_path.iterdir()) == ["generator.npz", "model", "tokenizer.npz"]
    model = vargen.load(out)
    jax.tree.map(np.testing.assert_array_equal, model.tokenizer_params, params["tokenizer"])
    jax.tree.map(np.testing.assert_array_equal, model.generator_params, params["generator"])
    expected = tiny(system)
    if system == "rar":
        expected.order.update(dict(start=0, end=0))
    for axis in ("conditioning", "order", "feed", "mixer", "head"):
        assert model.config[axis] == expected[axis], axis

    # Back under the authors' names, in another format: the same arrays; imported again: the same parameters.
    exported = {name: tmp_path / f"{name}.safetensors" for name in ("generator", "tokenizer")}
    run("export", system, "--workdir", out, *(x for n, f in exported.items() for x in (f"--{n}", f)))
    for name, file in exported.items():
        first, again = files.read(tmp_path / f"{name}.npz"), files.read(file)
        assert set(first) <= set(again)
        for array in first:
            np.testing.assert_array_equal(again[array], first[array], strict=True)
    exported["out"] = tmp_path / "again"
    run(
        "import",
        system,
        *(x for n, f in exported.items() for x in (f"--{n}", f)),
        "--heads",
        2,
        "--image-size",
        8,
    )
    again = vargen.load(tmp_path / "again")
    jax.tree.map(np.testing.assert_array_equal, again.generator_params, params["generator"])
    jax.tree.map(np.testing.assert_array_equal, again.tokenizer_params, params["tokenizer"])


@pytest.mark.slow
def test_commands_after_an_import(tmp_path, capsys):
    publish("rar", tmp_path)
    out = imported("rar", tmp_path)
    run("sample", "--workdir", out, "--classes", "1,4", "--preset", "paper", "--count", 2, "--batch-size", 4)
    names = sorted(p.name for p in (out / "samples").iterdir())
    assert names == ["1-000.png", "1-001.png", "4-000.png", "4-001.png"]

    # The preset's numbers are the paper's: without it the samples are others.
    model = vargen.load(out)
    paper = model.config.presets.paper.sampling.to_dict()
    assert (paper["guidance"], paper["guidance_power"], paper["guidance_schedule"]) == (16.0, 2.75, "cosine")
    labels = np.repeat([1, 4], 2)
    key = jax.random.fold_in(jax.random.key(0), 0)
    pixels = np.asarray(Image.open(out / "samples" / "4-001.png"))
    for options, same in ((paper, True), ({}, False)):
        image = np.asarray(model.sample(labels, key, **options))[3]
        found = np.abs(pixels - (np.clip(image, -1, 1) + 1) * 127.5).max() < 1
        assert found == same

    # And one line makes the file of its FID, with levels rounded down as the authors do.
    out_npz, fid = tmp_path / "samples.npz", ("--fid-samples", 4, "--batch-size", 4)
    run("sample", "--workdir", out, "--classes", "1,4", "--preset", "paper", *fid, "--out", out_npz)
    with np.load(out_npz) as found:
        assert found["arr_1"].tolist() == [1, 4, 1, 4]
        below = (np.asarray(model.sample([1, 4, 1, 4], key, **paper)) + 1) * 127.5 - found["arr_0"]
    assert -0.01 < below.min() and 0.6 < below.max() < 1.01  # to the nearest: from -0.5 to 0.5

    # Given codes become the images that the tokenizer makes of them.
    codes = np.asarray(model.generate([1, 2], 3)[0])
    np.save(tmp_path / "codes.npy", codes)
    run("sample", "--workdir", out, "--codes", tmp_path / "codes.npy", "--out", tmp_path / "decoded")
    image = (np.clip(model.decode(codes)[1], -1, 1) + 1) * 127.5
    pixels = np.asarray(Image.open(tmp_path / "decoded" / "000001.png"))
    assert np.abs(pixels - image).max() < 1
    capsys.readouterr()
    np.save(tmp_path / "wrong.npy", codes + 16)
    for flags, words in (
        (["--codes", tmp_path / "wrong.npy"], "whole numbers [B, 16] from 0 to 15, found "),
        (["--codes", tmp_path / "none.npy"], "expected an .npy"),
        (["--preset", "papers"], "--preset: expected one of demo, paper, found 'papers'"),
    ):
        assert main.main(["sample", "--workdir", str(out), "--overwrite", *map(str, flags)]) == 2
        error = capsys.readouterr().err
        assert words in error and error.count("\n") == 1


@pytest.mark.slow
def test_fine_tuning(tmp_path, capsys, monkeypatch):
    """On a folder with another number of classes: their table starts anew, all else where the import left it."""
    published = tmp_path / "published"
    params = publish("rar", published)["generator"]
    out = imported("rar", published)
    for name in ("cats", "dogs", "birds"):
        (tmp_path / "images" / name).mkdir(parents=True)
        for i in range(8):
            Image.new("RGB", (IMAGE, IMAGE), (30 * i, 100, 7)).save(tmp_path / "images" / name / f"{i}.png")
    settings = dict(
        steps=2, batch_size=8, learning_rate=0.0, warmup_steps=0, save_every=2, log_every=1, ema_decay=0.9
    )
    overrides = [f"--config.training.{k}={v}" for k, v in settings.items()]
    overrides += ["--config.data.source=folder", f"--config.data.path={tmp_path / 'images'}"]
    overrides += ["--config.data.num_classes=0", "--config.evaluation.batch_size=2"]
    run("train", "--from", out, "--workdir", tmp_path / "fine", *overrides)
    assert (
        "starts anew: condition/classes/table (expected (4, 128), found (6, 128))" in capsys.readouterr().out
    )
    tuned = vargen.load(tmp_path / "fine")
    null = tuned.generator_params["condition"]["classes"]["table"][-1]
    np.testing.assert_allclose(null, params["condition"]["classes"]["table"][-1], atol=1e-6)  # no class stays
    assert tuned.config.data.num_classes == 3
    found, given = dict(mapping.flatten(tuned.generator_params)), dict(mapping.flatten(params))
    for name in given:
        if name == "condition/classes/table":
            assert found[name].shape == (4, 128)
        else:  # a rate of 0
            np.testing.assert_allclose(found[name], given[name], atol=1e-6)
    run("sample", "--workdir", tmp_path / "fine", "--classes", "dogs", "--count", 2)
    assert (tmp_path / "fine" / "samples_grid.png").is_file()

    # Pictures too large for the small classifier are measured without it.
    monkeypatch.setattr(evaluate, "LARGEST", IMAGE - 1)
    run("evaluate", "--workdir", tmp_path / "fine", "--samples", 4)
    metrics = json.loads((tmp_path / "fine" / "metrics.json").read_text())
    assert metrics["psnr_db"] > 0 and metrics["bits_per_code"] > 0 and "label_accuracy" not in metrics
    assert (tmp_path / "fine" / "report.html").is_file()
    # A wrong origin changes nothing.
    other = tmp_path / "other"
    c = tiny("rar")
    c.model.width = 64
    publish("rar", other, c)
    narrow = imported("rar", other)
    capsys.readouterr()
    wrong = [
        "train",
        "--from",
        str(narrow),
        "--config",
        str(out / "config.json"),
        "--workdir",
        str(tmp_path / "b"),
    ]
    assert main.main([*wrong, *overrides]) == 2
    assert "initial parameters: blocks/" in capsys.readouterr().err
    assert not (tmp_path / "b" / "generator").exists() and not (tmp_path / "b" / "config.json").exists()


def test_where_training_starts(tmp_path):
    """Before its first step a fine-tuned model is the source's, with the source's classes and in raster order."""
    publish("rar", tmp_path)
    out = imported("rar", tmp_path)
    c = vargen.load(out).config
    c.data = config.images("folder", IMAGE, 3, 2, path="nowhere")
    where = paths.path(tmp_path / "fine")
    for copy in copying.plan(c, where, tokenizer=None, origin=str(out), classes=["0", "1"]):
        copy()
    model = vargen.load(tmp_path / "fine")
    assert model.config.data.num_classes == 5 and model.generate([4], 0)[0].shape == (1, 16)
    order = model.generator.ordering.training(jax.random.key(0), np.zeros((8, 16)), 0)
    np.testing.assert_array_equal(
        np.broadcast_to(order.slots, (8, 16)), np.broadcast_to(np.arange(16), (8, 16))
    )


def test_export_refuses_other_models(tmp_path, capsys):
    """Parts or options that the authors' program doesn't compute."""
    publish("rar", tmp_path)
    out = imported("rar", tmp_path)
    for system, part_name in (
        ("var", "generator"),
        ("var", "tokenizer"),
        ("mar", "generator"),
        ("llamagen", "tokenizer"),
    ):
        flags = ["--workdir", str(out), f"--{part_name}", str(tmp_path / "x.npz")]
        assert main.main(["export", system, *flags]) == 2
        error = capsys.readouterr().err
        assert error.startswith("vargen export: ") and error.count("\n") == 1
    path = out / "generator" / "config.json"
    path.write_text(path.read_text().replace('"mlp": "gelu"', '"mlp": "gelu_tanh"'))
    assert main.main(["export", "rar", "--workdir", str(out), "--generator", str(tmp_path / "x.npz")]) == 2
    assert "block.mlp gelu_tanh instead of gelu" in capsys.readouterr().err
    assert main.main(["export", "rar", "--workdir", str(out), "--generator", str(tmp_path / "x.h5")]) == 2
    assert "expected a name that ends in .safetensors" in capsys.readouterr().err
    assert not list(tmp_path.glob("x.*"))


@pytest.mark.slow
def test_text(tmp_path, capsys):
    c = tiny("llamagen")
    c.conditioning, c.data.num_classes = part("caption", tokens=4, channels=6, dropout=0.1), 1
    publish("llamagen", tmp_path, c)
    out = imported("llamagen", tmp_path, "--heads", 2)
    assert vargen.load(out).config.conditioning == c.conditioning
    rng = np.random.default_rng(0)
    captions = dict(
        embedding=rng.normal(size=(2, 4, 6)).astype(np.float16),
        mask=[[1, 1, 0, 0], [1, 1, 1, 1]],
        text=["a", "b c"],
    )
    np.savez(tmp_path / "captions.npz", **captions)
    run("sample", "--workdir", out, "--captions", tmp_path / "captions.npz", "--count", 2)
    names = sorted(p.name for p in (out / "samples").iterdir())
    assert names == ["a-000.png", "a-001.png", "b c-000.png", "b c-001.png"]
    np.savez(tmp_path / "short.npz", embedding=np.zeros((2, 3, 6)), mask=np.ones((2, 3)))
    capsys.readouterr()
    assert (
        main.main(["sample", "--workdir", str(out), "--captions", str(tmp_path / "short.npz"), "--overwrite"])
        == 2
    )
    assert "expected embeddings [B, 4, 6], found [2, 3, 6]" in capsys.readouterr().err


def test_mistakes_leave_nothing(tmp_path, capsys):
    publish("rar", tmp_path)
    out = tmp_path / "model"
    generator = dict(files.read(tmp_path / "generator.npz"))
    generator["lm_head.bias"] = generator.pop("lm_head.bias")[:-1]
    files.write(tmp_path / "misshapen.npz", generator)
    del generator["lm_head.bias"]
    generator["extra"] = np.zeros(1)
    files.write(tmp_path / "other.npz", generator)
    (tmp_path / "text.npz").write_text("404 not found")
    for file, words in (
        ("misshapen.npz", "RAR: wrong shapes: lm_head.bias (expected (16,), found (15,))"),
        ("other.npz", "RAR: missing arrays: lm_head.bias (16,); unexpected arrays: extra"),
        ("tokenizer.npz", "RAR: expected the array"),
        ("text.npz", "expected a npz file, found text that starts '404 not found'"),
        ("none.npz", "expected a file, found none"),
    ):
        flags = ["--generator", str(tmp_path / file), "--tokenizer", str(tmp_path / "tokenizer.npz")]
        assert main.main(["import", "rar", *flags, "--out", str(out)]) == 2
        error = capsys.readouterr().err
        assert words in error and error.count("\n") == 1
        assert not out.exists() and not list(tmp_path.glob(".*"))
    out.mkdir()
    assert main.main(["import", "rar", *flags, "--out", str(out)]) == 2
    assert "expected a new directory" in capsys.readouterr().err
