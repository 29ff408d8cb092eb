"""LlamaGen: a Llama over VQ codes in raster order, ImageNet 256x256. arXiv 2406.06525.

    vargen train --config configs/llamagen_imagenet256.py:b --workdir runs/llamagen_b --config.data.path /data/tfds

Published: FID 5.46 (B) and 3.80 (L) with guidance 2.0, 3.39 (XL) with 1.75, trained at 256x256; 3.09 (XXL) at
384x384. VQ-16 has rFID 2.19 at 256x256. Not trained by us. Parameters of the generator: B 110.9 M, L 343 M,
XL 775 M, XXL 1.4 G.
"""

from vargen import config as base
from vargen.config import part

# layers, width, heads, guidance
SIZES = dict(b=(12, 768, 12, 2.0), l=(24, 1024, 16, 2.0), xl=(36, 1280, 20, 1.75), xxl=(48, 1536, 24, 1.75))


def get_config(size="b"):
    layers, width, heads, guidance = SIZES[size]
    c = base.config()
    c.name = f"LlamaGen-{size.upper()}"
    c.data = base.imagenet(256)
    c.tokenizer = part("vq", encoder=part("conv", hidden=256), vocab=16384, channels=8)
    c.order = part("raster")
    c.feed = part("shift", dropout=0.1)
    c.mixer = part("attention", heads=heads, rope="places", out_bias=False, dropout=0.1)
    c.head = part("categorical", bias=False)
    c.model = dict(
        layers=layers,
        width=width,
        mlp="swiglu",
        mlp_width=-(-8 * width // 3 // 256) * 256,  # 8/3 of the width, up to the next multiple of 256
        norm="rms",
        eps=1e-5,
        bias=False,
        init_std=0.02,
        dropout=0.1,
    )
    c.sampling.update(dict(guidance=guidance))
    c.presets.paper = base.preset(count=50, guidance=guidance)
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
            remat=layers > 24,
            augmented_copies=10,  # the authors store ten crops of every image
        )
    )
    return c
