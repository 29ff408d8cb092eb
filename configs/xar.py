"""xAR: cell after cell of continuous latents by flow matching, each given noisy ones before. arXiv 2502.20388.

    vargen quickstart --config configs/xar.py:digits --workdir runs/xar
    vargen quickstart --config configs/xar.py:pictures32 --workdir runs/mine --config.data.path=~/pictures
    vargen train --config configs/xar.py:b --workdir runs/xar_b --config.data.path=/data/tfds
    vargen import xar --generator xAR-B.pth --tokenizer kl16.ckpt --out models/xar_b

Checked: no licence, no golden: by its formulas. Published, on ImageNet 256x256 in four cells of 8x8 latents, with the
guidance of the preset `paper`: FID 1.72 (B, 40 passes a cell), 1.28 (L, 50), 1.24 (H, 50). Not trained by us.
Parameters of the generator: B 172.64 M, L 608.40 M, H 1186.0 M, of which the paper says 172 M, 608 M and 1.1 B. No
outputs of the authors' program were compared: its repository has no licence.

The recipe is the authors' (OliverRen/xAR), but that modulations start at half of Xavier's rule and the map of the time
as the tables do, theirs by Xavier's rule both; and that a picture and its mirror image are seen equally often, theirs
drawn anew at each visit. The tokenizer is MAR's, see configs/mar.py.
"""

from types import SimpleNamespace as Size

from vargen import config as base
from vargen.config import part

# `layers` of both stacks together; `hidden`: of the MLP, 8/3 of the width.
SIZES = dict(
    digits=Size(layers=4, width=128, heads=4, hidden=341, batch=64, steps=(1200, 1500), patch=4, channels=8),
    pictures32=Size(
        layers=4, width=192, heads=6, hidden=512, batch=32, steps=(4000, 4000), patch=4, channels=8
    ),
    pictures64=Size(
        layers=4, width=192, heads=6, hidden=512, batch=32, steps=(4000, 4000), patch=8, channels=16
    ),
    # The paper's.
    b=Size(layers=16, width=768, heads=12, hidden=2048, passes=40, guidance=2.7),
    l=Size(layers=32, width=1024, heads=16, hidden=2730, passes=50, guidance=2.3),
    h=Size(layers=40, width=1280, heads=16, hidden=3413, passes=50, guidance=2.2),
)


def get_config(size="digits"):
    s = SIZES[size]
    c = base.config()
    c.order = part("cells", count=(2, 2))
    c.feed = part("noisy", clean=False, encoder_decoder=True, positions=True, norm="rms")
    c.mixer = part("attention", heads=s.heads, bias="qkv", rope="places", dropout=0.1)
    c.model = dict(layers=s.layers, width=s.width, mlp="geglu", mlp_width=s.hidden, norm="rms", affine=False)
    c.model.update(dict(adaptive="adaln", final_norm="learned", gate_gain=0.5, init_std=0.0, dropout=0.1))
    c.sampling.guidance_schedule = "ramp"  # the first cell has no guidance, the last all of it
    return paper(c, size, s) if hasattr(s, "guidance") else small(c, size, s)


def small(c, size, s):
    c.name = "xAR"
    c.data = base.small_data(size)
    encoder = part("patch", patch=s.patch, blocks=1)
    c.tokenizer = part("kl", encoder=encoder, channels=s.channels, kl_weight=5e-3, measure=True)
    c.head = part("velocity", sample_steps=10)
    c.sampling.guidance = 1.0
    base.small(
        c,
        tokenizer=dict(steps=s.steps[0], learning_rate=4e-3),
        generator=dict(steps=s.steps[1], batch_size=s.batch),
    )
    return c


def paper(c, size, s):
    c.name = f"xAR-{size.upper()}"
    c.data = base.imagenet(256)
    c.mixer.update(dict(in_gain=0.5**0.5, weight_dropout=0.1))
    c.model.init = "normal"
    c.tokenizer = part("kl", encoder=part("conv", decoder_attention=False), channels=16, scale=0.2325)
    c.head = part("velocity", sample_steps=s.passes, zero=False)
    c.sampling.guidance = s.guidance - 1
    c.presets.paper = base.preset(count=50, guidance=s.guidance - 1, guidance_schedule="ramp")
    c.training.update(
        dict(
            steps=500_000,  # 800 epochs of 625
            batch_size=2048,
            learning_rate=4e-4,
            min_learning_rate=1e-5,
            warmup_steps=62_500,  # 100 epochs
            warmup_start=0.0,
            hold=5 / 7,  # to epoch 600
            b2=0.96,
            weight_decay=0.02,
            decay=("*kernel", "*table"),
            clip_norm=1.0,
            ema_decay=0.9999,
            ema_warmup=False,
            augmented_copies=2,
        )
    )
    return c
