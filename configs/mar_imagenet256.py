"""MAR: masked autoregression over continuous latents with a diffusion head, ImageNet 256x256. arXiv 2406.11838.

    vargen train --config configs/mar_imagenet256.py:b --workdir runs/mar_b --config.data.path /data/tfds

Published: FID 2.31 (B), 1.78 (L), 1.55 (H) in 256 steps with linear guidance 2.9, 3.0, 3.2 and temperature 1; L
took 1 d 7 h on 32 H100. Not trained by us. Two differences from the authors' training: the masked ratio is drawn
per image, not per batch, and attention weights have no dropout. Parameters of the generator: B 207.9 M, L 478.3 M,
H 942.4 M, as the authors' module counts.
"""

from vargen import config as base
from vargen.config import part

# layers of each stack, width, heads; the denoiser's depth and width; guidance
SIZES = dict(
    b=(12, 768, 12, 6, 1024, 2.9),
    l=(16, 1024, 16, 8, 1280, 3.0),
    h=(20, 1280, 16, 12, 1536, 3.2),
)


def get_config(size="b"):
    layers, width, heads, depth, denoiser, guidance = SIZES[size]
    c = base.config()
    c.name = f"MAR-{size.upper()}"
    c.data = base.imagenet(256)
    c.tokenizer = part("kl", encoder=part("conv", decoder_attention=False), channels=16, scale=0.2325)
    c.order = part("random_sets", steps=256)
    c.feed = part("mask", buffer=64)
    c.mixer = part("attention", heads=heads, bias="qkv", dropout=0.1)
    c.head = part("diffusion", depth=depth, width=denoiser, sample_steps=100, repeat=4)
    c.model = dict(layers=2 * layers, width=width, mlp="gelu", init_std=0.0, dropout=0.1)
    paper = dict(guidance=guidance, guidance_schedule="linear")
    c.sampling.update(paper)
    c.presets.paper = base.preset(count=50, steps=256, **paper)
    c.tokenizer_training.update(dict(steps=400_000, batch_size=128, learning_rate=1e-4, schedule="constant"))
    c.tokenizer_training.losses.update(
        dict(l1=1.0, l2=0.0, perceptual=1.0, adversarial=0.5, adversarial_start=50_000, adaptive=True)
    )
    c.training.update(
        dict(
            steps=250_000,  # 400 epochs
            batch_size=2048,
            learning_rate=8e-4,  # 1e-4 per 256 images
            warmup_steps=62_500,  # 100 epochs
            schedule="constant",
            b2=0.95,
            weight_decay=0.02,
            clip_norm=3.0,
            ema_decay=0.9999,
        )
    )
    return c
