"""How the parameters of the papers' sizes start: deviations by the authors' definitions, at small widths.

torch's trunc_normal_ cuts at -2 and 2, not at two deviations: of such small deviations it is the normal distribution.
"""

import math
import pathlib

import jax
import numpy as np
import pytest
from systems import SYSTEMS, some_slow

from vargen import config, models
from vargen.interop import mapping

CONFIGS = pathlib.Path(__file__).parents[1] / "configs"
WIDTH, LAYERS = 256, 2


def initial(system, size, **changes):
    """Initial parameters by name, of a narrow model of a paper's size."""
    c = config.load(f"{CONFIGS / system}.py:{size}")
    c.model.update(dict(width=WIDTH, layers=LAYERS, **changes))
    c.mixer.heads = 4
    c.data.num_classes = 50
    generator = models.build_generator(c, models.build_tokenizer(c))
    return c, dict(mapping.flatten(jax.device_get(jax.jit(generator.init)(jax.random.key(0)))))


def check_deviations(params, expected):
    """Every parameter once: the deviation of its values around 0, within 4 of its own standard errors (and 1 %)."""
    assert params.keys() == expected.keys()
    for name, std in expected.items():
        values = np.asarray(params[name], np.float64)
        if isinstance(std, dict):  # constants
            np.testing.assert_allclose(values, std["value"], rtol=1e-6, err_msg=name)
            continue
        found = math.sqrt(np.mean(values**2))
        assert found == pytest.approx(std, rel=0.01 + 4 / math.sqrt(2 * values.size)), name


def check_normal(values, std):
    """No value is cut off: 4.55 % lie beyond two deviations."""
    beyond = np.mean(np.abs(values) > 2 * std)
    assert beyond == pytest.approx(0.0455, rel=0.15)


def constant(value):
    return dict(value=value)


def expected_of(params, rules):
    """The first rule whose ending fits a name; biases start at 0 and scales of norms at 1."""
    found = {}
    for name in params:
        ends = [e for e in rules if name.endswith(e)]
        if ends:
            found[name] = rules[max(ends, key=len)]
        elif name.endswith(("bias", "scale")):
            found[name] = constant(1.0 if name.endswith("/scale") else 0.0)
    return found


GATES = dict(d16=1e-3, d20=1e-3, d24=1e-4, d30=1e-5, d36=5e-6)  # --alng of the authors' commands


@pytest.mark.parametrize("size", GATES)
def test_gates_of_var(size):
    c = config.load(f"{CONFIGS}/var.py:{size}")
    assert c.model.gate_gain == GATES[size]


@pytest.mark.parametrize("size", ["d16", pytest.param("d36", marks=pytest.mark.slow)])
def test_var(size):
    """init_weights of models/var.py: init_std sqrt(1 / 3C), head 0.02, ada_lin 0.5, its gammas alng."""
    _, params = initial("var", size)
    std = math.sqrt(1 / WIDTH / 3)
    gate = GATES[size]
    # Six modulations: gamma of attention and FFN, scales, shifts.
    gains = np.array([gate, gate, 0.5, 0.5, 0.5, 0.5])
    shared = size == "d36"
    name = "blocks/offset" if shared else "blocks/modulation/kernel"
    modulation = params.pop(name).reshape(-1, 6, WIDTH)
    found = np.sqrt(np.mean(modulation.astype(np.float64) ** 2, axis=(0, 2)))
    np.testing.assert_allclose(found, gains * (WIDTH**-0.5 if shared else std), rtol=0.15 if shared else 0.03)
    out = std / math.sqrt(2 * LAYERS)
    rules = {
        "kernel": std,
        "table": std,
        "first": std,
        "mixer/out/kernel": out,
        "feed_forward/down/kernel": out,
        "log_scale": constant(math.log(4)),
        "blocks_norm/modulation/kernel": 0.5 * std,
        "modulation/map/kernel": std,
        "head/out/kernel": 0.02 * std,  # of the paper's width, which the config says
    }
    expected = expected_of(params, rules)
    depth = int(size[1:])
    expected["head/out/kernel"] = 0.02 * math.sqrt(1 / (64 * depth) / 3)
    check_deviations(params, expected)
    check_normal(params["condition/classes/table"], std)
    check_normal(params["blocks/feed_forward/up/kernel"], std)
    check_normal(params["head/out/kernel"], expected["head/out/kernel"])


@pytest.mark.parametrize("size", ["b", "text256"])
def test_llamagen(size):
    """_init_weights of gpt.py: normal of 0.02, the output 0, the row for no caption normal of 1 / sqrt(E)."""
    c, params = initial("llamagen", size, mlp_width=512)
    rules = {"kernel": 0.02, "table": 0.02, "head/out/kernel": constant(0.0)}
    if size == "text256":
        rules["condition/null"] = c.conditioning.channels**-0.5
    check_deviations(params, expected_of(params, rules))
    check_normal(params["feed/content/codes/table"], 0.02)


@pytest.mark.slow
def test_mar():
    """initialize_weights of mar.py and diffloss.py: Xavier's uniform, query, key and value as one matrix."""
    _, params = initial("mar", "b")
    xavier = {}
    for name, values in params.items():
        if name.endswith("kernel") and "/time_" not in name:
            rows, columns = values.shape[-2:]
            if name.split("/")[-2] in ("query", "key", "value"):
                columns *= 3
            bound = math.sqrt(6 / (rows + columns))
            xavier[name] = bound / math.sqrt(3)
            assert np.abs(values).max() <= bound * 1.0001, name
    zero = dict.fromkeys(
        (n for n in params if "head/denoiser/modulation" in n or "denoiser/out/" in n), constant(0.0)
    )
    times = {f"head/denoiser/time_{i}/kernel": 0.02 for i in (1, 2)}
    rules = {"table": 0.02, "feed/mask": 0.02}
    expected = {**expected_of(params, rules), **xavier, **zero, **times}
    check_deviations(params, expected)
    check_normal(params["feed/positions/table"], 0.02)


def test_rar():
    """init_weights of rar.py: 0.02 everywhere, the modulations and the first row 0."""
    _, params = initial("rar", "b", mlp_width=512)
    rules = {
        "kernel": 0.02,
        "table": 0.02,
        "modulation/kernel": constant(0.0),
        "condition/lead": constant(0.0),
    }
    check_deviations(params, expected_of(params, rules))
    check_normal(params["feed/targets/table"], 0.02)


@pytest.mark.parametrize("name", some_slow(["var", "llamagen", "rar"], ["var", "rar"]))
def test_small_sizes_start_truncated(name):
    """As before: cut at two deviations, of which 0.88 are left."""
    c = SYSTEMS[name]()
    c.model.width = WIDTH
    generator = models.build_generator(c, models.build_tokenizer(c))
    table = np.asarray(jax.jit(generator.init)(jax.random.key(0))["condition"]["classes"]["table"])
    std = math.sqrt(1 / WIDTH / 3) if c.model.get("init_std", 0.02) < 0 else 0.02
    assert np.abs(table).max() <= 2 * std and np.std(table) == pytest.approx(0.8796 * std, rel=0.05)
