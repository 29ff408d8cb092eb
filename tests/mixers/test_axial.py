"""Axial attention: both forms, the order it needs, a dense formula of its context, and a public reference."""

import jax
import numpy as np
import pytest
from golden import Golden
from harness import CASES, check_mixer, make

from vargen.layout import Layout
from vargen.mixers.axial import Axial
from vargen.slots import Grid


def test_forms_agree_in_raster_order():
    """And nothing earlier is left out: every output depends on every input up to it."""
    mixer, params, x, _ = check_mixer(Axial, "raster", heads=2)
    layout = CASES["raster"].layout
    jacobian = jax.jit(jax.jacrev(lambda x: mixer.apply({"params": params}, x, layout)[0][0].sum(-1)))(x)
    reach = np.abs(np.asarray(jacobian)[:, 0]).max(-1) > 1e-7
    np.testing.assert_array_equal(reach, np.tril(np.ones((12, 12), bool)))


def test_bidirectional():
    check_mixer(Axial, "all", heads=2, causal=False)


def test_as_the_public_reference():
    """Sum of one attention along each axis; values and input gradient 1e-5."""
    g = Golden("axial")
    grid = Grid(((3, 4),))
    mixer = make(Axial, CASES["all"], heads=2, causal=False)

    def line(i):
        p = {n: g.weights[f"axial_attentions.{i}.fn.{n}"] for n in ("to_q.weight", "to_kv.weight")}
        key, value = np.split(p["to_kv.weight"].T, 2, axis=1)
        out = {n: g.weights[f"axial_attentions.{i}.fn.to_out.{n}"] for n in ("weight", "bias")}
        kernels = dict(query=p["to_q.weight"].T, key=key, value=value)
        return {n: {"kernel": k} for n, k in kernels.items()} | {
            "out": {"kernel": out["weight"].T, "bias": out["bias"]}
        }

    params = {f"lines_axis_{i}": line(i) for i in range(2)}
    layout = Layout(np.zeros(12, np.int32), grid.places)

    def run(x):
        return mixer.apply({"params": params}, x.reshape(2, 12, 8), layout)[0].reshape(x.shape)

    @jax.jit
    def both(x, w):
        y, pull = jax.vjp(run, x)
        return y, pull(w)[0]

    y, dx = both(g["x"], g["w"])
    np.testing.assert_allclose(y, g["y"], atol=1e-5)
    np.testing.assert_allclose(dx, g["dx"], atol=1e-5)


@pytest.mark.parametrize(
    "case,causal", [("levels", True), ("groups", True), ("all", True), ("raster", False)]
)
def test_orders_it_refuses(case, causal):
    with pytest.raises(ValueError, match="mixer axial: "):
        make(Axial, CASES[case], heads=2, causal=causal)
