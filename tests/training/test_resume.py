"""What may change in a workdir that has been trained, and what may not."""

import json
import shutil

import pytest

from vargen import config, paths
from vargen.errors import UserError
from vargen.training import checkpoints, resume


@pytest.fixture
def trained(tmp_path):
    """A workdir that looks trained: manifests and configs of both stages, without arrays."""
    c = config.override(
        config.load("configs/var.py:digits"), [("tokenizer_training.steps", 8), ("training.steps", 8)]
    )
    for stage in resume.STAGES:
        path = tmp_path / stage / checkpoints.FOLDER / "8"
        path.mkdir(parents=True)
        (path / checkpoints.CONFIG).write_text(config.to_json(c))
        content = dict(step=8, metrics={}, files={})
        (path / checkpoints.MANIFEST).write_text(checkpoints._manifest_text(content))
    return tmp_path, c


FREE = [
    ("training.steps", 20),
    ("training.log_every", 3),
    ("training.save_every", 3),
    ("training.keep", 9),
    ("training.image_every", 5),
    ("training.validate_every", 5),
    ("training.remat", "products"),
    ("training.scan_layers", False),
    ("training.mesh.fsdp", 2),
    ("tokenizer_training.keep", 1),
    ("evaluation.samples", 77),
    ("sampling.guidance", 3.0),
    ("compute_dtype", "bfloat16"),
    ("name", "mine"),
    ("data.skip_broken", 10),
    ("data.path", "elsewhere"),
]
FIXED = [
    ("seed", 5),
    ("data.source", "emoji"),
    ("data.channels", 3),
    ("data.flip", True),
    ("data.test_fraction", 0.3),
    ("tokenizer.vocab", 64),
    ("tokenizer.encoder.patch", 8),
    ("tokenizer.levels", (1, 4)),
    ("tokenizer_training.batch_size", 32),
    ("tokenizer_training.losses.l1", 1.0),
    ("model.layers", 6),
    ("model.norm", "rms"),
    ("mixer.rope", "places"),
    ("order.name", "raster"),
    ("head.label_smoothing", 0.1),
    ("conditioning.dropout", 0.3),
    ("training.learning_rate", 1e-4),
    ("training.accumulate", 2),
    ("training.augmented_copies", 2),
]


COPIED = ("data.source", "data.test_fraction", "seed", "tokenizer_training.batch_size", "data.flip")


@pytest.mark.parametrize("field, value", [x for x in FIXED if x[0].startswith(("data", "seed", "tokenizer"))])
def test_a_copied_tokenizer_was_trained_on_whatever_it_was(trained, field, value):
    """Another workdir's pictures and recipe; what it is and what it takes stays."""
    workdir, c = trained
    (workdir / "tokenizer" / checkpoints.ORIGIN).write_text("elsewhere")
    shutil.rmtree(workdir / "generator")
    changed = config.override(c, [(field, value), ("tokenizer_training.steps", 3)])
    if field in COPIED or field.startswith("tokenizer_training"):
        resume.check(changed, workdir)
    else:
        with pytest.raises(UserError, match=f"config field {field}: the tokenizer in .* was trained with"):
            resume.check(changed, workdir)


@pytest.mark.parametrize("field, value", FREE)
def test_free_fields(trained, field, value):
    workdir, c = trained
    resume.check(config.override(c, [(field, value)]), workdir)


@pytest.mark.parametrize("field, value", FIXED)
def test_fixed_fields(trained, field, value):
    workdir, c = trained
    was = c
    for key in field.split("."):
        was = was.get(key, "none")
    with pytest.raises(UserError) as caught:
        resume.check(config.override(c, [(field, value)]), workdir)
    text = str(caught.value)
    assert f"config field {field}: the " in text and f"found {json.dumps(value)}" in text
    assert (was if was == "none" else json.dumps(was)) in text and "take another --workdir" in text


def test_another_system(trained):
    with pytest.raises(UserError, match="config field .*was trained with"):
        resume.check(config.load("configs/mar.py:digits"), trained[0])


def test_a_tokenizer_alone_leaves_the_generator_free(trained):
    workdir, c = trained
    paths.path(workdir / "generator").rmtree()
    changed = config.override(
        c, [("model.layers", 6), ("training.batch_size", 32), ("training.codes", False)]
    )
    resume.check(changed, workdir)
    with pytest.raises(UserError, match="tokenizer.vocab"):
        resume.check(config.override(c, [("tokenizer.vocab", 64)]), workdir)
    resume.check(config.override(c, [("tokenizer_training.steps", 20)]), workdir)


@pytest.mark.parametrize(
    "field, value, words",
    [
        ("training.steps", 7, "training.steps: the generator in .* was trained for 8 steps, found 7"),
        (
            "tokenizer_training.steps",
            20,
            "the generator in .* was trained on a tokenizer of 8 steps, found 20",
        ),
    ],
)
def test_steps(trained, field, value, words):
    workdir, c = trained
    with pytest.raises(UserError, match=words):
        resume.check(config.override(c, [(field, value)]), workdir)


def test_a_damaged_config_is_known_from_an_earlier_checkpoint(trained):
    workdir, c = trained
    folder = paths.path(workdir / "generator" / checkpoints.FOLDER)
    later = folder / "9"
    later.mkdir()
    (later / checkpoints.MANIFEST).write_text((folder / "8" / checkpoints.MANIFEST).read_text())
    (later / checkpoints.CONFIG).write_text("{")
    assert resume.trained_config(workdir / "generator").to_dict() == c.to_dict()


def test_nothing_trained_is_free(tmp_path):
    resume.check(config.load("configs/var.py:digits"), tmp_path / "none")
