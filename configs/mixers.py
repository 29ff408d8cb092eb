"""One model, any mixer: LlamaGen's grid of codes in raster order on the digits, 16x16. Default: GLA, arXiv 2312.06635.

    vargen quickstart --config configs/mixers.py:mamba --workdir runs/mamba

The rows of `MIXERS` are what can follow the colon; docs/mixers.md has what was measured of two. Manhattan attention,
whose slots all see each other, has MAR's random sets in the raster's place. ConvS5 has no row: it is recurrent over
frames, and a picture is one.
"""

from vargen import config as base
from vargen.config import part

MIXERS = dict(
    attention=part("attention", heads=4, dropout=0.1),
    axial=part("axial", heads=4),
    # Before a block's attention, as its authors have it.
    chain=part("chain", mixers=(part("ssm_2d"), part("attention", heads=4, dropout=0.1))),
    linear=part("linear", heads=4),
    gla=part("gla", heads=4),
    retention=part("retention", heads=4),
    manhattan=part("manhattan", heads=4),
    lightnet=part("lightnet", heads=4),
    ssd=part("ssd", heads=4, state_size=32),
    vssd=part("vssd", heads=4, state_size=32),
    mamba=part("mamba"),
    mamba_2d=part("mamba_2d"),
    s5=part("s5", state=64),
    ssm_2d=part("ssm_2d"),
)
RASTER = part("raster"), part("shift", dropout=0.1, target_positions=True)
OTHERS = dict(
    manhattan=(part("random_sets", steps=8), part("mask", encoder_decoder=False, buffer=1, dropout=0.1))
)


def get_config(mixer="gla"):
    c = base.config()
    c.name = f"LlamaGen with {mixer}"
    c.tokenizer = base.small_vq(4, 256)
    c.order, c.feed = OTHERS.get(mixer, RASTER)
    c.mixer = MIXERS[mixer]
    c.head = part("categorical", bias=False)
    c.model = dict(
        layers=4, width=128, mlp="swiglu", mlp_width=384, norm="rms", eps=1e-5, bias=False, dropout=0.1
    )
    c.sampling.update(dict(guidance=1.5))
    c.tokenizer_training.update(dict(steps=2400, batch_size=64, learning_rate=6e-3, warmup_steps=50))
    c.training.update(dict(steps=2000, batch_size=64, learning_rate=2e-3, augmented_copies=8))
    return c
