"""Training on several devices and processes, by the command: everything works, and losses are as on one device."""

import commands
import numpy as np
import pytest
from PIL import Image

import vargen

SYSTEMS = sorted(path.stem for path in (commands.ROOT / "configs").glob("*.py"))
SYSTEMS.remove("orthus")  # which takes captions: tests/cli/test_caption_commands.py
# Sums in another order: a few float32 roundings of the loss, grown over the steps that follow.
TOLERANCE = 2e-5
PICTURES = [f"--config.{group}.image_every=2" for group in ("training", "tokenizer_training")]


def train(system, workdir, *more):
    config = commands.ROOT / "configs" / f"{system}.py"
    return ["train", "--config", config, "--workdir", workdir, *commands.tiny(system), *more]


def losses_agree(a, b):
    trained = vargen.load(b).tokenizer.trained  # not so of JPEG's
    assert [(w / "tokenizer" / "metrics.jsonl").exists() for w in (a, b)] == [trained] * 2
    for stage in ("tokenizer", "generator")[not trained :]:
        found, expected = (commands.rows(workdir, stage) for workdir in (a, b))
        assert [row["step"] for row in found] == [row["step"] for row in expected]
        for name in ("loss", "validation_loss"):
            pairs = [(x[name], y[name]) for x, y in zip(found, expected) if name in y]
            assert pairs, (stage, name)
            np.testing.assert_allclose(*np.transpose(pairs), rtol=TOLERANCE, err_msg=f"{stage} {name}")


@pytest.fixture(scope="module")
def alone(trained, tmp_path_factory):
    """Each system trained on one device, once."""
    made = dict(var=trained.workdir)

    def of(system):
        if system not in made:
            made[system] = tmp_path_factory.mktemp(system) / "one"
            commands.run(*train(system, made[system]))
        return made[system]

    return of


def everything(system, workdir, devices, *more):
    commands.run(*train(system, workdir, *PICTURES, *more), devices=devices)
    for command in (["sample", "--classes", "3,7", "--count", 5], ["evaluate", "--samples", 20]):
        commands.run(*command, "--workdir", workdir, devices=devices)
    assert (workdir / "samples_grid.png").is_file() and (workdir / "report.html").is_file()
    assert list((workdir / "generator" / "tb").iterdir())


def test_two_devices(alone, tmp_path):
    commands.run(*train("var", tmp_path / "two", *PICTURES), devices=2)
    losses_agree(tmp_path / "two", alone("var"))


SPLIT = [(2, 2, 1), (2, 2, 2), (1, 8, 1), (4, 1, 2)]  # data, fsdp, tensor


@pytest.mark.slow
@pytest.mark.parametrize(
    "system, mesh",
    [
        *((system, (devices, 1, 1)) for system in SYSTEMS for devices in (2, 8)),
        *((system, mesh) for system in ("var", "mar") for mesh in SPLIT),
    ],
)
def test_meshes(system, mesh, alone, tmp_path):
    """All commands on 2 and 8 devices, with parameters split and whole."""
    sizes = zip(("data", "fsdp", "tensor"), mesh, strict=True)
    groups = ("training", "tokenizer_training")
    options = [f"--config.{group}.mesh.{name}={size}" for name, size in sizes for group in groups]
    everything(system, tmp_path / "w", int(np.prod(mesh)), *options)
    losses_agree(tmp_path / "w", alone(system))


@pytest.mark.slow
@pytest.mark.parametrize("system", SYSTEMS)
def test_two_processes_of_two_devices(system, alone, tmp_path):
    outputs = commands.together(*train(system, tmp_path / "w", *PICTURES))
    assert [text.count("trained; next") for text in outputs] == [1, 0]
    losses_agree(tmp_path / "w", alone(system))
    commands.run("sample", "--workdir", tmp_path / "w", "--count", 1)


@pytest.mark.slow
@pytest.mark.parametrize("system", ["var", "mar"])
def test_a_run_goes_on_elsewhere(system, tmp_path):
    """One device, then two, then two processes of two, eight, and one again: the losses of one device all along."""
    places = [dict(), dict(devices=2), dict(processes=2, devices=2), dict(devices=8), dict()]
    steps = [2, 4, 6, 8, 10]
    # The learning rate's schedule knows the number of steps, so it is constant here.
    constant = "--config.training.schedule=constant"
    for place, until in zip(places, steps, strict=True):
        run = commands.together if "processes" in place else commands.run
        run(*train(system, tmp_path / "w", constant, f"--config.training.steps={until}"), **place)
    commands.run(*train(system, tmp_path / "one", constant, "--config.training.steps=10"))
    for a, b in zip(
        commands.rows(tmp_path / "w", "generator"), commands.rows(tmp_path / "one", "generator"), strict=True
    ):
        assert a["step"] == b["step"]
        np.testing.assert_allclose(a["loss"], b["loss"], rtol=TOLERANCE)


@pytest.mark.slow
def test_a_broken_picture_ends_two_processes(tmp_path):
    """The one that reads it names it, while a save is under way; the other says why it ends, and nobody waits."""
    for k in range(80):
        file = tmp_path / "pictures" / ("train" if k < 64 else "val") / "ab"[k % 2] / f"{k}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (20, 24), (3 * k,) * 3).save(file)
        if k == 63:
            file.write_bytes(file.read_bytes()[:50])
    fields = ["source=folder", f"path={tmp_path / 'pictures'}", "num_classes=0", "channels=3"]
    more = [f"--config.data.{x}" for x in fields]
    more += ["--config.tokenizer_training.steps=40", "--config.tokenizer_training.save_every=1"]
    outputs = commands.together(*train("var", tmp_path / "w", *more), code=2)
    assert all("63.png: expected a whole image" in text for text in outputs)
    assert sum("of 2 ended: image " in text for text in outputs) == 1
