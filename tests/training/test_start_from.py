"""Training that starts with a trained model's parameters takes over the rows of the classes that both have."""

import jax
import numpy as np
import pytest
from systems import maskgit

from vargen import models
from vargen.conditioning.label import TABLE
from vargen.errors import UserError
from vargen.heads.masked_lm import CLASS_BIAS
from vargen.sharding import make_mesh
from vargen.training import optimizer, state
from vargen.training.tasks import GeneratorTask
from vargen.weights_file import flatten


def made(classes, dropout):
    c = maskgit()
    c.data.num_classes, c.conditioning.dropout = classes, dropout
    tokenizer = models.build_tokenizer(c)
    task = GeneratorTask(models.build_generator(c, tokenizer), tokenizer)
    mesh = make_mesh(1, 1, 1, devices=jax.devices()[:1])
    return state.create(task, optimizer.build(c.training, ["model"]), mesh, jax.random.key(classes))


@pytest.mark.parametrize("dropout", [0.1, None])
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
