"""MAR on the digits that ship with vargen, 16x16. arXiv 2406.11838.

    vargen quickstart --config configs/mar_digits.py --workdir runs/mar_digits

A grid of 4x4 continuous latents, in random sets; the README has the time and the numbers measured.
"""

from vargen import config as base
from vargen.config import part


def get_config():
    c = base.config()
    c.name = "MAR-digits"
    c.tokenizer = part(
        "kl", encoder=part("patch", patch=4, blocks=1), channels=8, kl_weight=5e-3, measure=True
    )
    c.order = part("random_sets", steps=8, mask_ratio_min=0.5)
    c.feed = part("mask", buffer=4)
    c.mixer = part("attention", heads=4, bias="qkv", dropout=0.1)
    c.head = part("diffusion", depth=3, width=128, sample_steps=50, repeat=4, clip=3.0)
    c.model = dict(layers=4, width=128, mlp="gelu", init_std=0.0, dropout=0.1)
    c.sampling.update(dict(guidance=1.5, guidance_schedule="linear", temperature=0.6))
    c.tokenizer_training.update(dict(steps=1200, batch_size=64, learning_rate=4e-3, warmup_steps=50))
    c.training.update(dict(steps=1200, batch_size=64, learning_rate=2e-3, augmented_copies=8))
    return c
