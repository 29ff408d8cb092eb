"""Checkpoints: damage is seen, the last whole one is used, loading needs the path alone."""

import json
import shutil

import jax
import numpy as np
import pytest
from training_fakes import CONFIG, FakeTask, settings

from vargen import sharding
from vargen.errors import UserError
from vargen.training import checkpoints, optimizer, state
from vargen.training.checkpoints import Checkpoints, load_params


@pytest.fixture(scope="module")
def made():
    task, mesh = FakeTask(), sharding.make_mesh()
    optimizers = optimizer.build(settings(), ["model", "discriminator"])
    fresh = state.create(task, optimizers, mesh, jax.random.key(0))
    return fresh, state.abstract(task, optimizers, mesh)


def at(train_state, step):
    """The state with another step, and parameters that tell it."""
    step = jax.numpy.int32(step)
    return train_state.replace(step=step, ema=jax.tree.map(lambda x: x + step, train_state.ema))


@pytest.fixture(scope="module")
def saved(made, tmp_path_factory):
    directory = tmp_path_factory.mktemp("saved")
    keeper = Checkpoints(directory, CONFIG, keep=3)
    for step in (1, 2, 3):
        keeper.save(at(made[0], step), dict(loss=1.0 / step))
    keeper.wait()
    return directory


@pytest.fixture
def directory(saved, tmp_path):
    shutil.copytree(saved, tmp_path / "copy")
    return tmp_path / "copy"


def largest(path):
    return max((p for p in path.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)


def truncate(path):
    file = largest(path / "params")
    file.write_bytes(file.read_bytes()[:-7])


def delete(path):
    largest(path / "opt_state").unlink()


def flip(path):
    file = largest(path / "ema")
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


def empty(path):
    largest(path / "rest").write_bytes(b"")


def cut_manifest(path):
    file = path / checkpoints.MANIFEST
    file.write_text(file.read_text()[:-20])


def no_manifest(path):
    (path / checkpoints.MANIFEST).unlink()


def other_config(path):
    (path / checkpoints.CONFIG).write_text("{}")


DAMAGES = {
    truncate: "bytes, expected",
    delete: "is missing",
    flip: "its checksum is not the one written",
    empty: "has 0 bytes",
    cut_manifest: "manifest.json is broken",
    no_manifest: "it was not finished",
    other_config: "config.json has 2 bytes",
}


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda f: f.__name__)
def test_damage_is_seen(directory, damage):
    folder = directory / "checkpoints"
    assert checkpoints.problem(folder / "3") is None
    damage(folder / "3")
    assert DAMAGES[damage] in checkpoints.problem(folder / "3")


def test_the_last_whole_one_is_used_and_said(directory, made, capsys):
    folder = directory / "checkpoints"
    truncate(folder / "3")
    delete(folder / "2")
    restored = Checkpoints(directory, CONFIG).restore(made[1])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 and all(line.endswith("using 1") for line in lines)
    assert "checkpoints/3 is not whole (params/" in lines[0]
    assert int(restored.step) == 1
    jax.tree.map(np.testing.assert_array_equal, restored, at(made[0], 1))
    config, params, step = load_params(directory)
    assert step == 1
    flip(folder / "1")
    assert Checkpoints(directory, CONFIG).restore(made[1]) is None
    assert "there is no earlier one" in capsys.readouterr().out
    with pytest.raises(UserError, match="expected one in .*checkpoints"):
        load_params(directory)


def test_a_broken_one_is_replaced_by_a_new_save(directory, made):
    truncate(directory / "checkpoints" / "3")
    keeper = Checkpoints(directory, CONFIG)
    keeper.save(at(made[0], 3), dict(loss=0.5))
    keeper.wait()
    assert checkpoints.problem(directory / "checkpoints" / "3") is None


def test_last_and_best_are_kept(made, tmp_path):
    keeper = Checkpoints(tmp_path, CONFIG, keep=2)
    for step, loss in enumerate([5.0, 1.0, 4.0, 3.0, 2.0, 2.5], 1):
        keeper.save(at(made[0], step), dict(loss=loss))
    keeper.wait()
    assert checkpoints.saved_steps(keeper.folder) == [2, 5, 6]
    assert sorted(p.name for p in keeper.folder.iterdir()) == ["2", "5", "6"]
    assert load_params(tmp_path, step="best")[2] == 2
    assert load_params(tmp_path, step=5)[2] == 5


def test_load_needs_the_path_alone(saved, made):
    config, ema, step = load_params(saved)
    assert step == 3 and config.to_dict() == dict(CONFIG)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b + 3, rtol=1e-6), ema, made[0].params["model"])
    _, params, _ = load_params(saved, "params")
    jax.tree.map(np.testing.assert_array_equal, params, made[0].params["model"])


def test_missing_ones_are_one_clear_line(saved, tmp_path):
    with pytest.raises(UserError, match="checkpoint .*nowhere: expected one in .*found none"):
        load_params(tmp_path / "nowhere")
    with pytest.raises(UserError, match="expected one of step 7 in .*, found 1, 2, 3"):
        load_params(saved, step=7)
    with pytest.raises(UserError, match="which: expected 'ema' or 'params', found 'emma'"):
        load_params(saved, "emma")


def test_leftovers_of_a_killed_process_are_cleared(directory):
    leftover = directory / "checkpoints" / "4.orbax-checkpoint-tmp"
    leftover.mkdir()
    (leftover / "junk").write_text("x")
    Checkpoints(directory, CONFIG)
    assert not leftover.exists()


def test_saving_copies_the_state_before_it_returns(made, tmp_path):
    """The state may be donated, and its memory overwritten, at once."""
    keeper = Checkpoints(tmp_path, CONFIG)
    overwrite = jax.jit(lambda x: jax.tree.map(lambda a: a + 1, x), donate_argnums=0)
    mine = at(made[0], 5)
    expected = jax.tree.map(np.array, mine.ema)
    keeper.save(mine, dict(loss=1.0))
    moving = mine.ema
    for _ in range(5):
        moving = overwrite(moving)
    keeper.wait()
    jax.tree.map(np.testing.assert_array_equal, load_params(tmp_path)[1], expected)


def test_an_error_of_the_background_reaches_the_run(made, tmp_path, monkeypatch):
    keeper = Checkpoints(tmp_path, CONFIG)
    monkeypatch.setattr(
        checkpoints.paths, "write_text", lambda *_: (_ for _ in ()).throw(OSError("disk full"))
    )
    keeper.save(at(made[0], 1), dict(loss=1.0))
    with pytest.raises(OSError, match="disk full"):
        keeper.wait()


def test_manifest_holds_the_metrics(saved):
    manifest = json.loads((saved / "checkpoints" / "2" / checkpoints.MANIFEST).read_text())
    assert manifest["step"] == 2 and manifest["metrics"] == dict(loss=0.5)
