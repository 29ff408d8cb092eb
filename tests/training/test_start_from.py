"""Training that starts with a trained model's parameters takes over the rows of the classes that both have."""

import jax
import numpy as np
import pytest
from systems import make, maskgit

from vargen import fine_tuning, models, sharding
from vargen.conditioning.label import TABLE
from vargen.errors import UserError
from vargen.heads.masked_lm import CLASS_BIAS
from vargen.sharding import make_mesh
from vargen.training import optimizer, state
from vargen.training.step import make_step
from vargen.training.tasks import GeneratorTask
from vargen.weights_file import flatten


def made(classes, dropout):
    c = maskgit()
    c.data.num_classes, c.conditioning.dropout = classes, dropout
    tokenizer = models.build_tokenizer(c)
    task = GeneratorTask(models.build_generator(c, tokenizer), tokenizer)
    mesh = make_mesh(1, 1, 1, devices=jax.devices()[:1])
    return state.create(task, optimizer.build(c.training, ["model"]), mesh, jax.random.key(classes))


@pytest.mark.slow
@pytest.mark.parametrize("dropout", [0.1, pytest.param(None, marks=pytest.mark.slow)])
def test_rows_of_classes(dropout, capsys):
    """Of the table and of the head's biases; with labels that are taken away, the row for none too."""
    rng = np.random.default_rng(0)
    theirs = jax.tree.map(
        lambda x: rng.normal(size=x.shape).astype(np.float32), made(10, dropout).params["model"]
    )
    ours = made(3, dropout)
    started = state.start_from(ours, theirs, rows=[7, -1, 2])
    for name in (TABLE, CLASS_BIAS):
        before, given, after = (
            np.asarray(dict(flatten(t))[name])
            for t in (ours.params["model"], theirs, started.params["model"])
        )
        assert len(after) == 3 + (dropout is not None)
        np.testing.assert_array_equal(after[[0, 2]], given[[7, 2]])
        np.testing.assert_array_equal(after[1], before[1])
        if dropout is not None:
            np.testing.assert_array_equal(after[3], given[10])
    for name, array in flatten(started.params["model"]):
        if name not in (TABLE, CLASS_BIAS):
            np.testing.assert_array_equal(array, dict(flatten(theirs))[name])
    jax.tree.map(
        np.testing.assert_array_equal,
        started.ema["model"] if "model" in started.ema else started.ema,
        started.params["model"],
    )
    state.start_from(ours, theirs)
    assert TABLE in capsys.readouterr().out
    theirs["head"]["dense"]["bias"] = np.zeros(3, np.float32)
    with pytest.raises(UserError, match=r"initial parameters: head/dense/bias \(expected"):
        state.start_from(ours, theirs)


def test_a_branch_begins_as_the_end_of_the_first():
    """Of HMAR's second stage, over a model of its first: a copy of blocks, norm and head, and a fresh mask."""
    _, first, theirs, _ = make("hmar")
    _, generator, _, _ = make("hmar_masked")
    found = fine_tuning.grown(generator, theirs, jax.random.key(3))
    assert not state.differing(jax.eval_shape(generator.init, jax.random.key(0)), found)
    for ours, own in (("masked", "next"), ("masked_norm", "next_norm"), ("masked_head", "head")):
        jax.tree.map(np.testing.assert_array_equal, found[ours], theirs[own])
    assert found["feed"]["mask"].shape == (1, 16) and np.any(found["feed"]["mask"])
    rest = {k: v for k, v in found.items() if not k.startswith("masked")}
    rest["feed"] = {k: v for k, v in found["feed"].items() if k != "mask"}
    jax.tree.map(np.testing.assert_array_equal, rest, theirs)
    assert fine_tuning.grown(generator, found, jax.random.key(4)) is found
    assert fine_tuning.grown(first, theirs, jax.random.key(4)) is theirs


@pytest.mark.slow
def test_what_is_not_trained_stays():
    """Of the second stage a step changes the mask, the last blocks, the head and its norm alone; and no moment else."""
    c, generator, params, tokenizer_params = make("hmar_masked")
    c.training.update(dict(batch_size=4, trained=("masked*", "feed/mask"), ema_decay=0.9))
    task, mesh = GeneratorTask(generator, generator.tokenizer), make_mesh(1, 1, 1, devices=jax.devices()[:1])
    optimizers = optimizer.build(c.training, ["model"])
    before = state.start_from(state.create(task, optimizers, mesh, jax.random.key(0)), params)
    rng = np.random.default_rng(0)
    batch = dict(content=rng.integers(0, 16, (4, 21), np.int32), label=np.arange(4, dtype=np.int32))
    batch = sharding.put_batch(batch, mesh)
    kept = jax.tree.map(np.array, before)
    after, metrics = make_step(task, c.training, mesh)(before, tokenizer_params, batch, jax.random.key(1))
    moments = dict(flatten(after.opt_state["model"][0][1].mu))
    moved = dict(
        flatten(
            jax.tree.map(lambda a, b: np.any(a != b, axis=None), kept.params["model"], after.params["model"])
        )
    )
    averaged = dict(flatten(jax.tree.map(lambda a, b: np.any(a != b), kept.ema, after.ema)))
    for name in moved:
        trained = name.startswith("masked") or name == "feed/mask"
        assert moved[name] == averaged[name] == trained, name
        assert np.any(moments[name]) == trained, name
    assert metrics["grad_norm"] > 0
    with pytest.raises(UserError, match=r"training\.trained: expected patterns .* found 'mask_\*'"):
        optimizer.check_patterns(kept.params["model"], ("mask_*",), "training.trained")
