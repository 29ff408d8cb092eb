"""VAR on the digits that ship with vargen, 16x16: the quickstart. arXiv 2404.02905.

    vargen quickstart --config configs/var_digits.py --workdir runs/quickstart

Levels 1-2-3-4 of codes; the README has the time and the numbers measured.
"""

from vargen import config as base
from vargen.config import part


def get_config():
    c = base.config()
    c.name = "VAR-digits"
    c.tokenizer = part(
        "multiscale_vq",
        encoder=part("patch", patch=4, blocks=1),
        levels=(1, 2, 3, 4),
        vocab=128,
        channels=16,
        codebook_weight=0.1,
        beta=0.02,
        revive_every=25,
        revive_until=1600,
    )
    c.order = part("levels")
    c.feed = part("refine")
    c.mixer = part("attention", heads=4, qk_norm="l2", bias="qv")
    c.head = part("categorical", init_std=0.001)
    c.model = dict(
        layers=4,
        width=128,
        adaptive="adaln",
        affine=False,
        init_std=-1.0,
        depth_scaled_init=True,
        dropout=0.1,
    )
    c.sampling.update(dict(guidance=1.5, guidance_schedule="ramp"))
    c.tokenizer_training.update(dict(steps=2400, batch_size=64, learning_rate=4e-3, warmup_steps=50))
    c.training.update(dict(steps=1000, batch_size=64, learning_rate=2e-3, augmented_copies=8))
    return c
