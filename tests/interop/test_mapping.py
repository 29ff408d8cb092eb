"""Tables that carry arrays over, both ways."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vargen.errors import UserError
from vargen.interop import mapping as m
from vargen.interop import shapes


def like(**shapes):
    return m.unflatten({k: jax.ShapeDtypeStruct(v, jnp.float32) for k, v in shapes.items()})


def test_layers():
    rng = np.random.default_rng(0)
    theirs = {
        "c.weight": (5, 4, 3, 2),
        "c.bias": (5,),
        "n.weight": (4,),
        "n.bias": (4,),
        **{f"l.{i}.weight": (6, 4) for i in range(2)},
        "p.weight": (3, 4, 1, 1),
        "qk.weight": (5, 4),
        "qk.bias": (5,),
        "classes": (3, 2),
        "none": (1, 2),
        "places": (1, 9, 2),
        "gates": (6, 2),
        "count": (),
    }
    arrays = {name: rng.normal(size=shape).astype(np.float32) for name, shape in theirs.items()}
    table = m.conv("a/conv", "c") + m.norm("a/norm", "n") + m.pointwise("p", "p", bias=False)
    table += m.stacked(2, lambda i: m.dense("layers", f"l.{i}", bias=False))
    table += m.split_dense(["q", "k"], "qk", [3, 2])
    table += m.joined("table", ["classes", "none"], [3, 1])
    table += m.some_rows("places", "places", 1, 5, 9)
    table += m.permuted("gates", "gates", (2, 0, 1), m.DENSE)
    table += m.array("count", "count")
    table += m.constant("scale", lambda: np.full(2, 0.5))
    table += m.buffer("mask", lambda: np.ones(3))
    shapes = {
        "a/conv/kernel": (3, 2, 4, 5),
        "a/conv/bias": (5,),
        "a/norm/scale": (4,),
        "a/norm/bias": (4,),
        "p/kernel": (4, 3),
        "layers/kernel": (2, 4, 6),
        "q/kernel": (4, 3),
        "q/bias": (3,),
        "k/kernel": (4, 2),
        "k/bias": (2,),
        "table": (4, 2),
        "places": (5, 2),
        "gates": (2, 6),
        "count": (),
        "scale": (2,),
    }
    out = m.read(table, {**arrays, "step": np.zeros(())}, like(**shapes), ignore=("st*",))
    found = dict(m.flatten(out))
    assert {k: v.shape for k, v in found.items()} == shapes
    assert found["a/conv/kernel"][2, 1, 3, 4] == arrays["c.weight"][4, 3, 2, 1]
    np.testing.assert_array_equal(found["layers/kernel"][1], arrays["l.1.weight"].T)
    np.testing.assert_array_equal(found["p/kernel"], arrays["p.weight"][:, :, 0, 0].T)
    np.testing.assert_array_equal(found["k/kernel"], arrays["qk.weight"][3:].T)
    np.testing.assert_array_equal(found["q/bias"], arrays["qk.bias"][:3])
    np.testing.assert_array_equal(found["table"][3], arrays["none"][0])
    np.testing.assert_array_equal(found["places"], arrays["places"][0, 1:6])
    np.testing.assert_array_equal(found["gates"][:, :2], arrays["gates"][4:].T)
    np.testing.assert_array_equal(found["scale"], [0.5, 0.5])

    # And back: everything but the places that are not used.
    back = m.write(table, out)
    assert back.keys() == {*theirs, "mask"}
    np.testing.assert_array_equal(back.pop("mask"), np.ones(3))
    places = back.pop("places")
    np.testing.assert_array_equal(places[:, 1:6], arrays["places"][:, 1:6])
    assert not places[:, 0].any() and not places[:, 6:].any()
    for name, array in back.items():
        np.testing.assert_array_equal(array, arrays[name], strict=True)


def test_refused():
    table = m.dense("d", "l") + m.some_rows("rows", "rows", 0, 2, 4) + m.buffer("b", lambda: np.zeros(2))
    good = {"l.weight": np.zeros((2, 3)), "l.bias": np.zeros(2), "rows": np.zeros((1, 4, 3))}
    model = like(**{"d/kernel": (3, 2), "d/bias": (2,), "rows": (2, 3)})
    assert m.read(table, good, model).keys() == {"d", "rows"}
    assert m.read(table, {**good, "b": np.zeros(7), "rows": np.zeros((1, 3, 3))}, model)
    without = {"l.weight": good["l.weight"], "x": good["l.bias"], "rows": good["rows"]}
    with pytest.raises(UserError, match=r"thing: missing arrays: l\.bias \(2,\); unexpected arrays: x$"):
        m.read(table, without, model, what="thing")
    with pytest.raises(UserError, match=r"l\.weight \(expected \(2, 3\), found \(2, 4\)\)"):
        m.read(table, {**good, "l.weight": np.zeros((2, 4))}, model)
    with pytest.raises(UserError, match=r"rows \(expected \(1, 4, 3\), found \(1, 1, 3\)\)"):
        m.read(table, {**good, "rows": np.zeros((1, 1, 3))}, model)
    with pytest.raises(UserError, match="unfilled e, unknown none"):
        m.read(table, good, {**model, "e": model["d"]["bias"]})
    many = {**good, **{f"x{i:02}": good["l.bias"] for i in range(11)}}
    with pytest.raises(UserError, match="x07 and 3 more$"):
        m.read(table, many, model)
    with pytest.raises(UserError, match="unfilled none, unknown d/bias, d/kernel"):
        m.write(table, {"rows": np.zeros((2, 3))})
    with pytest.raises(UserError, match=r"VAE: expected the array y\.weight, found 3 others \(l\.weight, "):
        shapes.shape(good, "y.weight", "VAE")
    assert shapes.count({"a.0": 1, "a.1": 1, "a.3": 1}, "a.{}") == 2
