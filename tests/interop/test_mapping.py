"""Tables that carry arrays over."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vargen.errors import UserError
from vargen.interop import mapping as m


def like(**shapes):
    return m.unflatten({k: jax.ShapeDtypeStruct(v, jnp.float32) for k, v in shapes.items()})


def test_layers():
    rng = np.random.default_rng(0)
    arrays = {
        "c.weight": rng.normal(size=(5, 4, 3, 2)),
        "c.bias": rng.normal(size=5),
        "n.weight": rng.normal(size=4),
        "n.bias": rng.normal(size=4),
        **{f"l.{i}.weight": rng.normal(size=(6, 4)) for i in range(2)},
        "q.weight": rng.normal(size=(3, 4, 1, 1)),
        "k.weight": rng.normal(size=(2, 4, 1, 1)),
        "q.bias": rng.normal(size=3),
        "k.bias": rng.normal(size=2),
        "step": np.zeros(()),
    }
    entries = m.conv("a/conv", "c") + m.norm("a/norm", "n") + m.fused_dense("qk", ["q", "k"])
    entries += m.stacked(2, lambda i: m.dense("layers", f"l.{i}", bias=False))
    shapes = {
        "a/conv/kernel": (3, 2, 4, 5),
        "a/conv/bias": (5,),
        "a/norm/scale": (4,),
        "a/norm/bias": (4,),
        "qk/kernel": (4, 5),
        "qk/bias": (5,),
        "layers/kernel": (2, 4, 6),
    }
    out = m.apply(entries, arrays, like(**shapes), ignore=("st*",))
    assert jax.tree.all(jax.tree.map(lambda a: a.dtype == np.float32, out))
    np.testing.assert_allclose(
        out["a"]["conv"]["kernel"][2, 1, 3, 4], arrays["c.weight"][4, 3, 2, 1], rtol=1e-6
    )
    np.testing.assert_allclose(out["layers"]["kernel"][1], arrays["l.1.weight"].T, rtol=1e-6)
    np.testing.assert_allclose(out["qk"]["kernel"][:, 3:], arrays["k.weight"][:, :, 0, 0].T, rtol=1e-6)
    np.testing.assert_allclose(out["qk"]["bias"][:3], arrays["q.bias"], rtol=1e-6)


def test_refused():
    entries = m.dense("d", "l")
    good = {"l.weight": np.zeros((2, 3)), "l.bias": np.zeros(2)}
    model = like(**{"d/kernel": (3, 2), "d/bias": (2,)})
    with pytest.raises(UserError, match=r"thing: missing arrays: l\.bias; unexpected arrays: x"):
        m.apply(entries, {"l.weight": good["l.weight"], "x": good["l.bias"]}, model, what="thing")
    with pytest.raises(UserError, match=r"l\.weight \(expected \(3, 2\) after conversion, found \(4, 2\)"):
        m.apply(entries, {**good, "l.weight": np.zeros((2, 4))}, model)
    with pytest.raises(UserError, match="unfilled e, unknown none"):
        m.apply(entries, good, {**model, "e": model["d"]["bias"]})
    many = {**good, **{f"x{i:02}": good["l.bias"] for i in range(11)}}
    with pytest.raises(UserError, match="x07 and 3 more$"):
        m.apply(entries, many, model)
