"""MaskGIL: a bidirectional LLaMA over masked codes, in few steps. arXiv 2507.13032.

    vargen quickstart --config configs/maskgil.py:digits --workdir runs/maskgil
    vargen quickstart --config configs/maskgil.py:pictures32 --workdir runs/mine --config.data.path=~/pictures
    vargen train --config configs/maskgil.py:b --workdir runs/maskgil_b --config.data.path=/data/tfds

Checked: no licence, no golden: by its formulas. Published, on ImageNet 256x256: FID 5.64 (B), 4.01 (L), 3.90 (XL), 3.71
(XXL, 8 steps), over LlamaGen's VQ-16. Not trained by us; the authors' weights aren't published. Parameters of the
generator: B 110.9 M, L 342.9 M, XL 774.7 M, XXL 1411.0 M, as many as the authors' code (synbol/MaskGIL) but for a logit
of the mask, which there is drawn from too, and the norms of queries and keys.

The blocks are the paper's: rotary places in two dimensions, queries and keys normalised, norms behind the branches.
(Their published code has places in one dimension, one off, norms before the branches, and the class last.) The details
are ours: the class comes first and has no place, norms of queries and keys are of each head.

Masks, loss, recipe and sampler are those of their code. The preset `paper` has the guidance of their trainer; that of
the paper's FID isn't known, nor how often pictures are seen anew.
"""

from types import SimpleNamespace as Size

from vargen import config as base
from vargen.config import part

SIZES = dict(
    digits=Size(layers=4, width=128, heads=4, batch=64, steps=(2400, 2500), patch=4, vocab=256),
    pictures32=Size(layers=4, width=192, heads=6, batch=32, steps=(4000, 4000), patch=4, vocab=512),
    pictures64=Size(layers=4, width=192, heads=6, batch=32, steps=(4000, 4000), patch=8, vocab=1024),
    # The paper's.
    b=Size(layers=12, width=768, heads=12, mlp=2048),
    l=Size(layers=24, width=1024, heads=16, mlp=2816),
    xl=Size(layers=36, width=1280, heads=20, mlp=3584),
    xxl=Size(layers=48, width=1536, heads=24, mlp=4096),
)


def get_config(size="digits"):
    s = SIZES[size]
    c = base.config()
    c.order = part(
        "confidence", steps=8, curve="arccos", counts="shares", anneal="before", masks="independent"
    )
    c.feed = part(
        "mask",
        encoder_decoder=False,
        buffer=1,
        positions=False,
        norm=False,
        target_positions=False,
        counts="all",
    )
    c.mixer = part(
        "attention", heads=s.heads, qk_norm="layer", rope="places", out_bias=False, eps=1e-5, dropout=0.1
    )
    c.head = part("categorical", bias=False, label_smoothing=0.1)
    c.model = dict(
        layers=s.layers,
        width=s.width,
        mlp="swiglu",
        norm="rms",
        norm_position="res_post",
        eps=1e-5,
        bias=False,
        dropout=0.1,
    )
    return paper(c, size, s) if hasattr(s, "mlp") else small(c, size, s)


def small(c, size, s):
    c.name = "MaskGIL"
    c.data = base.small_data(size)
    c.tokenizer = base.small_vq(s.patch, s.vocab)
    c.model.mlp_width = 3 * s.width
    c.order.noise = 2.0
    c.sampling.update(dict(guidance=1.0, guidance_schedule="ramp"))
    base.small(
        c,
        tokenizer=dict(steps=s.steps[0], learning_rate=6e-3),
        generator=dict(steps=s.steps[1], batch_size=s.batch),
    )
    return c


def paper(c, size, s):
    c.name = f"MaskGIL-{size.upper()}"
    c.data = base.imagenet(256, crop="random", crop_range=(1.0,))
    c.tokenizer = part("vq", encoder=part("conv", hidden=256), vocab=16384, channels=8, revive_every=0)
    c.model.update(dict(mlp_width=s.mlp, init="normal"))
    c.sampling.update(dict(guidance=3.0, guidance_schedule="ramp"))
    c.presets.paper = base.preset(count=50, steps=8, guidance=3.0, guidance_schedule="ramp")
    c.training.update(
        dict(
            steps=1_501_200,  # 300 epochs of 5004
            batch_size=256,
            learning_rate=1e-4,
            warmup_steps=0,
            schedule="constant",
            b2=0.96,
            weight_decay=1e-5,
            decay=("*",),
            clip_norm=1.0,
            ema_decay=0.0,
            codes=False,
        )
    )
    return c
