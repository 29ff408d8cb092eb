"""LlamaGen on the digits that ship with vargen, 16x16. arXiv 2406.06525.

    vargen quickstart --config configs/llamagen_digits.py --workdir runs/llamagen_digits

A grid of 4x4 codes in raster order; the README has the time and the numbers measured.
"""

from vargen import config as base
from vargen.config import part


def get_config():
    c = base.config()
    c.name = "LlamaGen-digits"
    c.tokenizer = part(
        "vq",
        encoder=part("patch", patch=4, blocks=1),
        vocab=256,
        channels=8,
        codebook_weight=0.1,
        beta=0.02,
        revive_every=25,
        revive_until=1600,
    )
    c.order = part("raster")
    c.feed = part("shift", dropout=0.1)
    c.mixer = part("attention", heads=4, rope="places", out_bias=False, dropout=0.1)
    c.head = part("categorical", bias=False)
    c.model = dict(
        layers=4, width=128, mlp="swiglu", mlp_width=384, norm="rms", eps=1e-5, bias=False, dropout=0.1
    )
    c.sampling.update(dict(guidance=1.5))
    c.tokenizer_training.update(dict(steps=2400, batch_size=64, learning_rate=6e-3, warmup_steps=50))
    c.training.update(dict(steps=2000, batch_size=64, learning_rate=2e-3, augmented_copies=8))
    return c
