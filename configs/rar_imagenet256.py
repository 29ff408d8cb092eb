"""RAR: raster codes learnt in random orders, which anneal to the raster one, ImageNet 256x256. arXiv 2411.00776.

    vargen train --config configs/rar_imagenet256.py:b --workdir runs/rar_b --config.data.path /data/tfds
    vargen import rar --generator rar_b.bin --tokenizer maskgit-vqgan-imagenet-f16-256.bin --out models/rar_b

Published: FID 1.95 (B), 1.70 (L), 1.50 (XL), 1.48 (XXL) with the guidance of the preset `paper`, over MaskGIT's
VQGAN. Not trained by us; attention weights have no dropout here (the authors': 0.1). Parameters of the generator:
the authors' module counts some more, of places that 256 slots never use (tests/interop/test_sizes.py).
"""

from vargen import config as base
from vargen.config import part

# layers, width, width of the position-wise network; temperature, guidance and its power for the paper's FID
SIZES = dict(
    b=(24, 768, 3072, 1.0, 16.0, 2.75),
    l=(24, 1024, 4096, 1.02, 15.5, 2.5),
    xl=(32, 1280, 5120, 1.02, 6.9, 1.5),
    xxl=(40, 1408, 6144, 1.02, 8.0, 1.2),
)


def get_config(size="b"):
    layers, width, mlp, temperature, guidance, power = SIZES[size]
    c = base.config()
    c.name = f"RAR-{size.upper()}"
    c.data = base.imagenet(256)
    c.tokenizer = part(
        "vq",
        encoder=part("pooled"),
        vocab=1024,
        channels=256,
        normalise=False,
        beta=1.0,
        codebook_weight=0.25,
    )
    c.conditioning = part("label", dropout=0.1, lead=1)
    c.order = part("random_to_raster", start=125_000, end=187_500)  # epochs 200 and 300
    c.feed = part("shift", positions=True, target_positions=True, step_condition=True)
    c.mixer = part("attention", heads=16, qk_norm="layer", bias="qkv", dropout=0.1)
    c.head = part("categorical", init_std=0.02)
    c.model = dict(
        layers=layers, width=width, mlp="gelu", mlp_width=mlp, adaptive="adaln", adaln_zero=True, dropout=0.1
    )
    c.sampling.update(dict(guidance=4.0))
    c.presets.paper = base.preset(
        count=50,
        guidance=guidance,
        guidance_schedule="cosine",
        guidance_power=power,
        temperature=temperature,
    )
    c.presets.demo = base.preset(guidance=4.0)
    c.training.update(
        dict(
            steps=250_000,  # 400 epochs
            batch_size=2048,
            learning_rate=4e-4,
            min_learning_rate=1e-5,
            warmup_steps=62_500,  # 100 epochs
            b2=0.96,
            weight_decay=0.03,
            clip_norm=1.0,
            ema_decay=0.0,
        )
    )
    return c
