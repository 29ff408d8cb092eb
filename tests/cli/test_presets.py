"""`--preset paper` of every system in the table of docs/evaluation.md: the settings of its published figures.

So that no preset changes unnoticed: rows were typed in beside the configs', which say where their settings are from.
"""

import pathlib
import re

import pytest

from vargen import config, schema
from vargen.samplers import Sampling

USUAL = (1, 2, 3, 4, 5, 6, 8, 10, 13, 16)
VAR = dict(guidance=1.5, guidance_schedule="ramp", top_k=900, top_p=0.96)
HART = VAR | dict(top_k=600)
FLEXVAR = dict(
    guidance=2.5, guidance_schedule="ramp", guidance_rise=9, guidance_side=16, top_k=900, top_p=0.95,
    levels=USUAL, random_sides=USUAL,
)  # fmt: skip


def rar(guidance, power, temperature=1.02):
    cosine = dict(guidance_schedule="cosine", guidance_power=power)
    return dict(guidance=guidance, temperature=temperature, rounding="down", **cosine)


def hmar(guidance, top_k):
    return dict(guidance=guidance, guidance_schedule="ramp", top_k=top_k, top_p=0.99)


def himar(steps, before, guidance):
    """Of the pivots, then of the dense level."""
    linear = dict(guidance_schedule="linear", guidance_before=(before,))
    return dict(guidance=guidance, **linear, order_steps=(32, steps))


def cfg(guidance, schedule, **more):
    return dict(guidance=guidance, guidance_schedule=schedule, **more)


# System -> size -> fields of `sampling` that aren't its defaults; of the preset itself `labels` and `rounding` where
# they aren't "balanced" and "nearest"; `order_steps` and `passes` are those of the order and the head.
PAPERS = {
    "var": dict.fromkeys(("d16", "d20", "d24", "d30"), VAR),
    "llamagen": dict.fromkeys(("b", "l"), dict(guidance=2.0, labels="random"))
    | dict.fromkeys(("xl", "xxl"), dict(guidance=1.75, labels="random"))
    | {"3b": dict(guidance=1.65, labels="random")},
    "rar": dict(b=rar(16.0, 2.75, 1.0), l=rar(15.5, 2.5), xl=rar(6.9, 1.5), xxl=rar(8.0, 1.2)),
    "mar": {
        size: cfg(guidance, "linear", steps=256, passes=100) for size, guidance in dict(b=2.9, l=3.0, h=3.2).items()
    },
    "randar": {
        size: cfg(guidance, "linear_before", steps=88) for size, guidance in dict(l=3.4, xl=4.0, xxl=4.0).items()
    },
    "arpg": {
        size: cfg(guidance, "linear_after", steps=64) for size, guidance in dict(l=5.0, xl=6.0, xxl=7.5).items()
    },
    "flexvar": dict.fromkeys(("d16", "d20", "d24"), FLEXVAR),
    "hmar": dict(d16=hmar(1.7, 1000), d20=hmar(1.9, 950), d24=hmar(2.1, 900), d30=hmar(1.6, 650)),
    "himar": dict(b=himar(4, 2.7, 2.5), l=himar(4, 3.5, 3.5), h=himar(12, 5.5, 3.2)),
    "hart": dict.fromkeys(("d20", "d24", "d30"), HART),
    # Their scale w of the last step is 1 + t with t = w - 1.
    "flowar": dict(s=cfg(3.3, "ramp", passes=25), l=cfg(1.4, "ramp", passes=25), h=cfg(1.4, "ramp", passes=50)),
    "xar": dict(b=cfg(1.7, "ramp", passes=40), l=cfg(1.3, "ramp", passes=50), h=cfg(1.2, "ramp", passes=50)),
    "acdit": dict.fromkeys(("l", "xl", "h"), dict(guidance=1.5, passes=25)),
    "maskgit": dict(imagenet256=dict(steps=8), imagenet512=dict(steps=12)),
    "maskgil": dict.fromkeys(("b", "l", "xl", "xxl"), cfg(3.0, "ramp", steps=8)),
    # Theirs grows by w / T with each of T = 8 steps: w of 4.5 and 3.
    "titok": dict(
        l32=cfg(4.5 * 7 / 8, "ramp", order_steps=8),
        b64=cfg(3.0 * 7 / 8, "ramp", order_steps=8),
        s128=cfg(6.9, "cosine", guidance_power=3.0, order_steps=64),
    ),
    "rqtransformer": dict.fromkeys(("480m", "821m", "1.4b"), dict(top_p=0.92)),
    "dnd": dict(xxl=dict(guidance=2.0), xxxl=dict(guidance=1.7)),
}  # fmt: skip
ROWS = [(system, size) for system, sizes in PAPERS.items() for size in sizes]


def test_every_system_of_the_table_is_here():
    page = (pathlib.Path(__file__).parents[2] / "docs" / "evaluation.md").read_text()
    assert re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE) == [*PAPERS]


@pytest.mark.parametrize("system, size", ROWS)
def test_settings_of_published_figures(system, size):
    c = config.load(f"{system}:{size}")
    found, expected = c.presets.paper.to_dict(), dict(PAPERS[system][size])
    assert found["count"] == 50 and found["resize"] == 0
    assert found["labels"] == expected.pop("labels", "balanced")
    assert found["rounding"] == expected.pop("rounding", "nearest")
    if (steps := expected.pop("order_steps", None)) is not None:
        assert c.order.steps == steps
    if (passes := expected.pop("passes", None)) is not None:
        assert c.head.sample_steps == passes
    defaults, told = schema.defaults(schema.Sampling), found["sampling"]
    changed = {name: value for name, value in told.items() if value != defaults[name]}
    expected = {name: value for name, value in expected.items() if value != defaults[name]}
    assert set(changed) == set(expected)
    for name, value in expected.items():
        assert changed[name] == (pytest.approx(value) if isinstance(value, float) else value), name
    Sampling.make(**{name: value for name, value in told.items() if name not in ("levels", "tokens")})
