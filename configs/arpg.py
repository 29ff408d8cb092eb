"""ARPG: places ask, known contents answer, in random orders. arXiv 2503.10568.

    vargen quickstart --config configs/arpg.py:digits --workdir runs/arpg
    vargen quickstart --config configs/arpg.py:pictures32 --workdir runs/mine --config.data.path=~/pictures
    vargen train --config configs/arpg.py:l --workdir runs/arpg_l --config.data.path=/data/tfds
    vargen import arpg --generator arpg_300m.pt --tokenizer vq_ds16_c2i.pt --out models/arpg_l

Checked: logits 2e-5, gradient norms 1e-4; sampling in groups: tokens exact, logits 2e-5 (golden arpg). Published, on
ImageNet 256x256 in 64 steps, with the guidance of the preset `paper`: FID 2.38 (L), 2.02 (XL), 1.91 (XXL) in the
authors' README, over LlamaGen's VQ-16. Not trained by us. Parameters of the generator: L 319.8 M, XL 719.0 M, XXL
1302.4 M, of which the authors' table has a row to spare.

The small sizes add an embedding of the slot. Rotary places are relative and the condition has none, so that a question
doesn't know where it asks: of 16 slots that costs 0.4 nats a code (held out, the digits), and a third of the labels.

The generator's recipe is the authors' (hp-l33/ARPG, README) over the codes of a picture's middle and its mirror image
(2.6 GB), but that their rate rises and falls within an epoch too. The tokenizer is LlamaGen's, see configs/llamagen.py.
"""

from types import SimpleNamespace as Size

from vargen import config as base
from vargen.config import part

SIZES = dict(
    digits=Size(layers=(2, 2), width=128, heads=4, batch=64, steps=(2400, 2500), patch=4, vocab=256),
    pictures32=Size(layers=(2, 2), width=192, heads=6, batch=32, steps=(4000, 4000), patch=4, vocab=512),
    pictures64=Size(layers=(2, 2), width=192, heads=6, batch=32, steps=(4000, 4000), patch=8, vocab=1024),
    # The paper's.
    l=Size(layers=(12, 12), width=1024, heads=16, guidance=5.0),
    xl=Size(layers=(18, 18), width=1280, heads=20, guidance=6.0),
    xxl=Size(layers=(24, 24), width=1536, heads=24, guidance=7.5),
)
IMAGES = 1_281_167


def get_config(size="digits"):
    s = SIZES[size]
    c = base.config()
    c.order = part("random", schedule="arccos_left")
    c.feed = part("query", dropout=0.1)
    c.mixer = part("attention", heads=s.heads, rope="places", out_bias=False, dropout=0.1)
    c.head = part("categorical", bias=False)
    c.model = dict(
        layers=s.layers, width=s.width, mlp="swiglu", norm="rms", eps=1e-5, bias=False, dropout=0.1
    )
    return paper(c, size, s) if hasattr(s, "guidance") else small(c, size, s)


def small(c, size, s):
    c.name = "ARPG"
    c.data = base.small_data(size)
    c.tokenizer = base.small_vq(s.patch, s.vocab)
    c.model.mlp_width = 3 * s.width
    c.feed.positions = True
    c.sampling.update(dict(guidance=2.0, guidance_schedule="linear_after"))
    base.small(
        c,
        tokenizer=dict(steps=s.steps[0], learning_rate=6e-3),
        generator=dict(steps=s.steps[1], batch_size=s.batch),
    )
    return c


def paper(c, size, s):
    epoch = IMAGES // 1024
    c.name = f"ARPG-{size.upper()}"
    c.data = base.imagenet(256)
    c.tokenizer = part("vq", encoder=part("conv", hidden=256), vocab=16384, channels=8, revive_every=0)
    # 8/3 of the width, up to the next multiple of 256
    c.model.update(dict(mlp_width=-(-8 * s.width // 3 // 256) * 256, init_std=0.02, init="normal"))
    best = dict(guidance=s.guidance, guidance_schedule="linear_after", steps=64)
    c.sampling.update(best)
    c.presets.paper = base.preset(count=50, **best)
    c.presets.demo = base.preset(guidance=4.0, guidance_schedule="linear_after", steps=64)
    c.training.update(
        dict(
            steps=400 * epoch,
            batch_size=1024,
            learning_rate=4e-4,
            min_learning_rate=1e-5,
            warmup_steps=100 * epoch,
            warmup_start=0.0,
            b2=0.95,
            weight_decay=0.05,
            decay=("*kernel", "*table", "feed/question"),
            clip_norm=1.0,
            ema_decay=0.0,
            augmented_copies=2,
            remat="blocks",
        )
    )
    return c
