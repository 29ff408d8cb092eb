"""LlamaGen: a Llama over VQ codes in raster order. arXiv 2406.06525.

    vargen quickstart --config configs/llamagen.py:digits --workdir runs/llamagen
    vargen quickstart --config configs/llamagen.py:pictures32 --workdir runs/mine --config.data.path=~/pictures
    vargen train --config configs/llamagen.py:b --workdir runs/llamagen_b --config.data.path=/data/tfds

The README has the time and the numbers of the digits. Published, on ImageNet: FID 5.46 (B) and 3.80 (L) with guidance
2.0, 3.39 (XL) with 1.75, trained at 256x256; 3.09 (XXL) at 384x384. VQ-16 has rFID 2.19 at 256x256. Not trained by
us. Parameters of the generator: B 110.9 M, L 343 M, XL 775 M, XXL 1.4 G.
"""

from types import SimpleNamespace as Size

from vargen import config as base
from vargen.config import part

SIZES = dict(
    digits=Size(layers=4, width=128, heads=4, data=base.digits(), patch=4, vocab=256),
    pictures32=Size(layers=6, width=192, heads=6, data=base.pictures(32), patch=4, vocab=512),
    pictures64=Size(layers=6, width=256, heads=8, data=base.pictures(64), patch=8, vocab=1024),
    # The paper's.
    b=Size(layers=12, width=768, heads=12, guidance=2.0),
    l=Size(layers=24, width=1024, heads=16, guidance=2.0),
    xl=Size(layers=36, width=1280, heads=20, guidance=1.75),
    xxl=Size(layers=48, width=1536, heads=24, guidance=1.75),
)


def get_config(size="digits"):
    s = SIZES[size]
    c = base.config()
    c.order = part("raster")
    c.feed = part("shift", dropout=0.1)
    c.mixer = part("attention", heads=s.heads, rope="places", out_bias=False, dropout=0.1)
    c.head = part("categorical", bias=False)
    c.model = dict(
        layers=s.layers, width=s.width, mlp="swiglu", norm="rms", eps=1e-5, bias=False, dropout=0.1
    )
    return paper(c, size, s) if hasattr(s, "guidance") else small(c, s)


def small(c, s):
    c.name = "LlamaGen"
    c.data = s.data
    c.tokenizer = part(
        "vq",
        encoder=part("patch", patch=s.patch, blocks=1),
        vocab=s.vocab,
        channels=8,
        codebook_weight=0.1,
        beta=0.02,
        revive_every=25,
    )
    c.model.mlp_width = 3 * s.width
    c.sampling.update(dict(guidance=1.5))
    c.tokenizer_training.update(dict(steps=2400, batch_size=64, learning_rate=6e-3, warmup_steps=50))
    c.training.update(dict(steps=2000, batch_size=64, learning_rate=2e-3, augmented_copies=8))
    return c


def paper(c, size, s):
    c.name = f"LlamaGen-{size.upper()}"
    c.data = base.imagenet(256)
    c.tokenizer = part("vq", encoder=part("conv", hidden=256), vocab=16384, channels=8)
    # 8/3 of the width, up to the next multiple of 256
    c.model.update(dict(mlp_width=-(-8 * s.width // 3 // 256) * 256, init_std=0.02))
    c.sampling.update(dict(guidance=s.guidance))
    c.presets.paper = base.preset(count=50, guidance=s.guidance)
    c.presets.demo = base.preset(guidance=4.0, top_k=2000)
    c.tokenizer_training.update(
        dict(
            steps=400_000,
            batch_size=128,
            learning_rate=1e-4,
            warmup_steps=0,
            schedule="constant",
            ema_decay=0.9999,
        )
    )
    c.tokenizer_training.losses.update(
        dict(l2=1.0, perceptual=1.0, adversarial=0.5, adversarial_start=20_000)
    )
    c.training.update(
        dict(
            steps=1_501_200,  # 300 epochs
            batch_size=256,
            learning_rate=1e-4,
            warmup_steps=0,
            schedule="constant",
            b2=0.95,
            weight_decay=0.05,
            clip_norm=1.0,
            ema_decay=0.9999,
            remat=s.layers > 24,
            augmented_copies=10,  # the authors store ten crops of every image
        )
    )
    return c
