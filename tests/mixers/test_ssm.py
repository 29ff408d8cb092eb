"""Selective scans and Mamba: the recurrence against its authors', both forms under every order."""

import dataclasses
import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from golden import Golden
from harness import CASES, SELDOM, check_mixer, init, make, parallel
from systems import some_slow

from vargen.layers import KERNEL_INIT
from vargen.layout import Layout
from vargen.mixers import selective_scan as module
from vargen.mixers.conv_s5 import ConvS5
from vargen.mixers.hippo import hippo_n
from vargen.mixers.mamba import Mamba
from vargen.mixers.mamba_2d import Mamba2D
from vargen.mixers.paths import CROSS_SCAN, inverse, sequence
from vargen.mixers.place_conv import place_conv, whole_grids
from vargen.mixers.s5 import S5
from vargen.mixers.selective_scan import selective_scan
from vargen.mixers.ssm_2d import SSM2D
from vargen.slots import Grid

SMALL = dict(state=3, conv_width=3)


@pytest.mark.parametrize("chunk,accelerated", [(4, False), (64, False), (4, True)])
def test_selective_scan_is_its_authors(chunk, accelerated, monkeypatch):
    """Values and every gradient, in chunks (the last of them padded) and whole; also in accelerators' form."""
    if accelerated:
        for table in (module.FORWARD, module.BACKWARD):
            monkeypatch.setitem(table, "xla", table["tpu"])
    golden = Golden("mamba")
    g = {k: jnp.asarray(golden[f"scan/{k}"]) for k in ("u", "delta", "A", "B", "C", "D", "bias", "w", "wl")}
    turn = lambda x: jnp.moveaxis(x, 1, 2)  # noqa: E731

    def run(u, delta, A, B, C, D, bias):
        dt = jax.nn.softplus(turn(delta) + bias)
        y, last = selective_scan(turn(u), dt, A, turn(B), turn(C), D, chunk=chunk)
        y = turn(y)
        return jnp.sum(y * g["w"]) + jnp.sum(last * g["wl"]), (y, last)

    names = ("u", "delta", "A", "B", "C", "D", "bias")
    grads, (y, last) = jax.jit(jax.grad(run, argnums=tuple(range(7)), has_aux=True))(*(g[k] for k in names))
    np.testing.assert_allclose(y, golden["scan/y"], atol=2e-6)
    np.testing.assert_allclose(last, golden["scan/last"], atol=2e-6)
    for name, found in zip(names, grads, strict=True):
        np.testing.assert_allclose(found, golden[f"scan/grad/{name}"], atol=2e-5, err_msg=name)


def authors_block():
    """The Mamba block of the golden: mixer, parameters, input and output."""
    golden = Golden("mamba")
    w = {k: jnp.asarray(v) for k, v in golden.weights.items()}
    mixer = Mamba(16, KERNEL_INIT, KERNEL_INIT, state=4, conv_width=3, rank=3)
    inner = mixer.inner
    params = {
        "in": {"kernel": w["in_proj.weight"][:inner].T},
        "gate": {"kernel": w["in_proj.weight"][inner:].T},
        "out": {"kernel": w["out_proj.weight"].T},
        "conv_kernel": w["conv1d.weight"][None, :, 0].swapaxes(1, 2),
        "conv_bias": w["conv1d.bias"][None],
        "x_kernel": w["x_proj.weight"].T[None],
        "dt_kernel": w["dt_proj.weight"].T[None],
        "dt_bias": w["dt_proj.bias"][None],
        "log_a": w["A_log"][None],
        "d": w["D"][None],
    }
    return mixer, params, jnp.asarray(golden["x"]), golden["y"]


def test_mamba_is_its_authors():
    mixer, params, x, expected = authors_block()
    layout = Layout(np.arange(x.shape[1]), np.full((x.shape[1], 2), -1))
    y = jax.jit(lambda p, x: parallel(mixer, p, x, layout))(params, x)
    np.testing.assert_allclose(y, expected, atol=3e-6)
    fresh = jax.eval_shape(lambda k: nn.meta.unbox(mixer.init(k, x, layout)["params"]), jax.random.key(0))
    assert jax.tree.map(jnp.shape, params) == jax.tree.map(jnp.shape, fresh)


@pytest.mark.parametrize("case", some_slow(CASES, SELDOM))
def test_mamba_forms_agree(case):
    check_mixer(Mamba, case, **SMALL)


@pytest.mark.parametrize("case", some_slow([c for c in CASES if c != "raster"], [*SELDOM, "levels"]))
def test_cross_scan_forms_agree(case):
    check_mixer(Mamba, case, paths=CROSS_SCAN, out_norm=True, **SMALL)


def test_convolution_on_the_grid_forms_agree():
    check_mixer(Mamba, "frames", paths=("reverse",), conv="2d", state=3)
    check_mixer(Mamba, "groups", paths=("columns",), conv="2d", state=3)


def test_paths_add_up():
    """Two paths are two Mambas on rows put in their sequence (float32 against the authors' block's own scan)."""
    mixer, one, _, _ = authors_block()
    case = CASES["all"]
    n = len(case.layout.times)
    x = jax.random.normal(jax.random.key(1), (2, n, 16))
    paths = ("windows_2", "columns_reverse")
    two = {k: v if isinstance(v, dict) else jnp.concatenate([v, 1.5 * v]) for k, v in one.items()}
    both = dataclasses.replace(mixer, paths=paths, grid=case.grid)
    found = jax.jit(lambda p, x: parallel(both, p, x, case.layout))(two, x)
    alone = jax.jit(lambda p, x: parallel(mixer, p, x, Layout(np.arange(n), np.full((n, 2), -1))))
    expected = 0.0
    for i, path in enumerate(paths):
        rows = sequence(path, case.layout.times, case.layout.coords, case.grid)
        params = {k: v if isinstance(v, dict) else v[i : i + 1] for k, v in two.items()}
        expected = expected + alone(params, x[:, rows])[:, inverse(rows)]
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_layers_take_turns_at_the_paths():
    case = CASES["levels"]
    mixer = make(Mamba, case, paths=("zigzag_0", "zigzag_3", "zigzag_6"), alternate=True, **SMALL)
    params, x = init(mixer, case)

    def run(mixer, layer):
        return parallel(mixer, params, x, dataclasses.replace(case.layout, layer=layer))

    @jax.jit
    def compare():
        turns = jax.lax.map(lambda layer: run(mixer, layer), jnp.arange(4))
        alone = [run(dataclasses.replace(mixer, paths=(path,)), 0) for path in mixer.paths]
        return turns, jnp.stack(alone), run(mixer, 5)

    turns, alone, last = compare()
    np.testing.assert_allclose(turns, alone[np.arange(4) % 3], atol=1e-5)
    np.testing.assert_allclose(last, alone[2], atol=1e-5)
    assert np.abs(turns[0] - turns[1]).max() > 1e-2


def test_refused_orders_are_named():
    with pytest.raises(ValueError, match="mixer mamba: path reverse needs steps of several slots"):
        make(Mamba, CASES["raster"], paths=("forward", "reverse"))


S5_SMALL = dict(state=4, blocks=2)


@pytest.mark.parametrize("activation", ["gelu", "half_glu1", "half_glu2", "full_glu"])
def test_s5_is_its_authors(activation):
    golden = Golden("s5")
    w = {k.split("/sd/")[1]: golden[k] for k in golden.arrays.files if k.startswith(f"{activation}/sd/")}
    params = {
        "lambda_re": w["seq/Lambda_re"],
        "lambda_im": w["seq/Lambda_im"],
        "log_step": w["seq/log_step"][:, 0],
        "b": w["seq/B"],
        "c": w["seq/C"],
        "d": w["seq/D"],
    }
    for ours, theirs in (("value", "out1"), ("gate", "out2")):
        if f"{theirs}/kernel" in w:
            params[ours] = {"kernel": w[f"{theirs}/kernel"], "bias": w[f"{theirs}/bias"]}
    x = jnp.asarray(golden[f"{activation}/x"])[None]
    mixer = S5(6, KERNEL_INIT, state=8, blocks=2, activation=activation)
    layout = Layout(np.arange(10), np.full((10, 2), -1))
    y = jax.jit(lambda p, x: parallel(mixer, p, x, layout))(params, x)
    np.testing.assert_allclose(y[0], golden[f"{activation}/y"], atol=3e-6)
    fresh = nn.meta.unbox(mixer.init(jax.random.key(0), x, layout)["params"])
    assert jax.tree.map(jnp.shape, params) == jax.tree.map(jnp.shape, fresh)


def test_hippo_n_is_the_authors():
    golden = Golden("s5")
    values, vectors = hippo_n(8, 2)
    np.testing.assert_allclose(values, golden["init/Lambda"], atol=1e-6)

    def matrix(values, vectors):
        """What eigenvectors of any phase stand for."""
        return 2 * (vectors * values) @ vectors.conj().T

    np.testing.assert_allclose(
        matrix(values, vectors), matrix(golden["init/Lambda"], golden["init/V"]), atol=1e-5
    )


@pytest.mark.parametrize("case", some_slow(["raster", "groups", "all"], SELDOM))
def test_s5_forms_agree(case):
    check_mixer(S5, case, **S5_SMALL)


def convolve(x, kernel):
    """A 'same' convolution of [B, H, W, I] with [K, K, I, O], zeros around, a loop over places."""
    k = kernel.shape[0] // 2
    padded = np.pad(x, ((0, 0), (k, k), (k, k), (0, 0)))
    y = np.zeros((*x.shape[:3], kernel.shape[-1]), complex)
    for i, j in np.ndindex(*x.shape[1:3]):
        y[:, i, j] = np.einsum("bhwi,hwio->bo", padded[:, i : i + 2 * k + 1, j : j + 2 * k + 1], kernel)
    return y


def test_conv_s5_is_a_loop_over_frames():
    """Both forms agree, and equal the recurrence in complex128 (tolerance 2e-5)."""
    mixer, params, x, found = check_mixer(ConvS5, "frames", activation="none", state=4, d_size=1)
    p = {k: np.asarray(v, np.float64) for k, v in params.items()}
    lam = np.minimum(p["lambda_re"], -1e-4) + 1j * p["lambda_im"]
    decay = np.exp(lam * np.exp(p["log_step"]))
    b = (p["b"][..., 0] + 1j * p["b"][..., 1]) * (decay - 1) / lam
    c = p["c"][..., 0] + 1j * p["c"][..., 1]
    grid = CASES["frames"].grid
    frames = np.asarray(x, np.float64).reshape(2, grid.frames, *grid.levels[0], -1)
    h, expected = 0.0, []
    for t in range(grid.frames):
        h = decay * h + convolve(frames[:, t], b)
        expected.append(2 * convolve(h, c).real + convolve(frames[:, t], p["d_kernel"]).real)
    np.testing.assert_allclose(found, np.stack(expected, 1).reshape(found.shape), atol=2e-5, rtol=2e-5)


def test_conv_s5_refuses_other_orders():
    for case in ("raster", "levels", "groups", "all"):
        with pytest.raises(ValueError, match="mixer conv_s5: needs the order frames"):
            make(ConvS5, CASES[case])
    with pytest.raises(ValueError, match="state: expected a multiple of twice the 2 blocks, found 6"):
        make(ConvS5, CASES["frames"], state=6, blocks=2)


@pytest.mark.parametrize("directions", [2, 4])
def test_ssm_2d_is_its_authors(directions):
    golden = Golden("ssm_2d")
    w = {k.split("/sd/")[1]: golden[k] for k in golden.arrays.files if k.startswith(f"d{directions}/sd/")}
    both = lambda name: np.stack([w[f"{name}_1"], w[f"{name}_2"]])  # noqa: E731
    params = {
        "a": np.stack([w[f"A.A_{i}"] for i in (1, 2, 3, 4)]),
        "b": both("B"),
        "c": both("C").reshape(2, directions, 8, 3).swapaxes(0, 1),
        "omega": w["omega"],
    }
    grid = Grid(((4, 4),))
    mixer = SSM2D(8, grid, directions=directions, state=3, sets=4)
    x = jnp.asarray(golden[f"d{directions}/x"]).swapaxes(0, 1)
    y = jax.jit(lambda p, x: parallel(mixer, p, x, Layout(np.zeros(16, int), grid.places)))(params, x)
    np.testing.assert_allclose(y.swapaxes(0, 1), golden[f"d{directions}/y"], atol=3e-6)


@pytest.mark.parametrize(
    ("case", "directions"),
    [("raster", 1), ("all", 4), *(pytest.param("frames", n, marks=pytest.mark.slow) for n in (2, 1))],
)
def test_ssm_2d_forms_agree(case, directions):
    check_mixer(SSM2D, case, directions=directions, state=3, sets=2)


def test_ssm_2d_refuses_other_orders():
    with pytest.raises(ValueError, match="mixer ssm_2d: needs whole frames in every step"):
        make(SSM2D, CASES["raster"], directions=4)
    with pytest.raises(ValueError, match="mixer ssm_2d: needs the order raster or whole frames"):
        make(SSM2D, CASES["groups"])
    with pytest.raises(ValueError, match="needs a grid of one level, found 3 levels"):
        make(SSM2D, CASES["levels"])


@pytest.mark.parametrize("shuffled", [False, True])
def test_convolution_of_places_is_a_loop(shuffled):
    """Rows of a whole grid as they come, and (by gathering neighbours) in any sequence."""
    case = CASES["all"]
    rng = np.random.default_rng(0)
    n, channels = len(case.layout.times), 2
    u, kernel, bias = (
        rng.normal(size=s).astype(np.float32) for s in ((1, n, channels), (3, 3, channels), (2,))
    )
    order = rng.permutation(n) if shuffled else np.arange(n)
    layout = dataclasses.replace(case.layout, coords=case.layout.coords[order])
    assert (whole_grids(layout) is None) == shuffled
    found = place_conv(*(jnp.asarray(y) for y in (u[:, order], kernel, bias)), layout)
    full = np.einsum("hwc,cd->hwcd", kernel, np.eye(channels))
    cells = convolve(u[:, 2:].reshape(1, 3, 4, channels), full).real.reshape(1, -1, channels)
    expected = np.concatenate([u[:, :2] * kernel[1, 1], cells], axis=1) + bias
    np.testing.assert_allclose(found, expected[:, order], atol=1e-5)


def test_mamba_2d_is_a_loop_over_places():
    """From each of two corners, in float64, after two rows of the condition (tolerance 2e-5)."""
    mixer, params, x, found = check_mixer(Mamba2D, "all", directions=2, state=3, rank=2)
    p = jax.tree.map(lambda v: np.asarray(v, np.float64), params)
    height, width = CASES["all"].grid.levels[0]
    gelu = np.vectorize(lambda t: t * (1 + math.erf(t / math.sqrt(2))) / 2)
    u = gelu(np.asarray(x, np.float64) @ p["in"]["kernel"] + p["in"]["bias"])
    cells, y = u[:, 2:].reshape(2, height, width, -1), []
    for i, turn in enumerate((1, -1)):
        x_kernel, dt_kernel, dt_bias, log_a, d = (
            p[k][i] for k in ("x_kernel", "dt_kernel", "dt_bias", "log_a", "d")
        )
        v, h = cells[:, ::turn, ::turn], np.zeros((2, height, width, 8, 3))
        out = np.zeros_like(v)
        for r, c in np.ndindex(height, width):
            now = v[:, r, c]
            low_t, low_l, b_t, b_l, read = np.split(now @ x_kernel, [2, 4, 7, 10], axis=-1)
            terms = []
            for k, low, b, there in ((0, low_t, b_t, (r - 1, c)), (1, low_l, b_l, (r, c - 1))):
                dt = np.log1p(np.exp(low @ dt_kernel[k] + dt_bias[k]))[..., None]
                before = h[:, there[0], there[1]] if min(there) >= 0 else 0.0
                if min(there) >= 0 or (r == c == 0 and k == 1):
                    terms.append(np.exp(-dt * np.exp(log_a[k])) * before + dt * b[:, None] * now[..., None])
            h[:, r, c] = sum(terms) / len(terms)
            out[:, r, c] = np.sum(h[:, r, c] * read[:, None], axis=-1) + d * now
        y.append(np.concatenate([d * u[:, :2], out[:, ::turn, ::turn].reshape(2, -1, 8)], axis=1))
    expected = gelu((y[0] + y[1]) / 2) @ p["out"]["kernel"] + p["out"]["bias"]
    np.testing.assert_allclose(found, expected, atol=2e-5, rtol=2e-5)


def test_mamba_2d_is_causal_in_raster_order():
    check_mixer(Mamba2D, "raster", state=3)
    with pytest.raises(ValueError, match="mixer mamba_2d: needs whole frames in every step"):
        make(Mamba2D, CASES["raster"], directions=2)
