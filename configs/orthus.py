"""Orthus: words and pictures in one sequence, a categorical head for words, diffusion for patches. arXiv 2412.00127.

vargen train --config configs/orthus.py:shapes --workdir runs/orthus
vargen sample --workdir runs/orthus --captions "a red circle at the top left and a small blue cross at the bottom"
"""

from types import SimpleNamespace as Size

from vargen import config as base
from vargen.config import part

# The words of `data.source=shapes`, in alphabetical order, and the longest caption.
WORDS = (
    ", a and at black blue bottom centre circle cross green left purple red right small square the top triangle "
    "yellow"
)
SIZES = dict(
    shapes=Size(layers=4, width=128, heads=4, batch=64, steps=(1200, 2000), codes=64),
)


def get_config(size="shapes"):
    s = SIZES[size]
    c = base.config()
    c.name = "Orthus"
    c.order = part("segments")
    c.feed = part("shift", soft_codes=s.codes)
    c.mixer = part("attention", heads=s.heads, qk_norm="layer", rope="sequence", out_bias=False)
    c.model = dict(layers=s.layers, width=s.width, mlp="swiglu", norm="rms", eps=1e-5, bias=False)
    return small(c, s)


def small(c, s):
    c.data = base.images("shapes", 24, 3, 24)
    c.tokenizer = part(
        "kl", encoder=part("patch", patch=4, blocks=1), channels=8, kl_weight=5e-3, measure=True
    )
    c.conditioning = part("text", vocabulary=WORDS.split(), tokens=27)
    c.model.mlp_width = 3 * s.width
    patches = part("velocity", depth=3, width=s.width, sample_steps=25, repeat=4)
    c.head = part("segments", heads=[part("categorical", bias=False), patches], weights=[1.0, 1.0])
    c.sampling.guidance = 2.0
    base.small(
        c,
        tokenizer=dict(steps=s.steps[0], learning_rate=4e-3),
        generator=dict(steps=s.steps[1], batch_size=s.batch, codes=True),
    )
    return c
