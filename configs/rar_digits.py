"""RAR on the digits that ship with vargen, 16x16. arXiv 2411.00776.

    vargen quickstart --config configs/rar_digits.py --workdir runs/rar_digits

A grid of 4x4 codes; every image is learnt in a random order, which anneals to the raster one between a half and
three quarters of the training; the README has the time and the numbers measured.
"""

from vargen import config as base
from vargen.config import part


def get_config():
    c = base.config()
    c.name = "RAR-digits"
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
    c.conditioning = part("label", dropout=0.1, lead=1)
    c.order = part("random_to_raster", start=750, end=1125)
    c.feed = part("shift", positions=True, target_positions=True, step_condition=True)
    c.mixer = part("attention", heads=4, qk_norm="layer", bias="qkv", dropout=0.1)
    c.head = part("categorical", init_std=0.02)
    c.model = dict(layers=4, width=128, mlp="gelu", adaptive="adaln", adaln_zero=True, dropout=0.1)
    c.sampling.update(dict(guidance=1.5))
    c.tokenizer_training.update(dict(steps=2400, batch_size=64, learning_rate=6e-3, warmup_steps=50))
    c.training.update(dict(steps=1500, batch_size=64, learning_rate=2e-3, augmented_copies=8))
    return c
