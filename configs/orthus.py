"""Orthus: words and pictures in one sequence, a categorical head for words, diffusion for patches. arXiv 2412.00127.

    vargen train --config configs/orthus.py:shapes --workdir runs/orthus
    vargen sample --workdir runs/orthus --captions "a red circle at the top left and a small blue cross at the bottom"
    vargen caption --workdir runs/orthus
    vargen evaluate --workdir runs/orthus

Checked: no licence, no golden: by its formulas. Trained both ways at once, on pictures with captions that vargen draws
itself: in half of the examples the words come first, in half the picture. docs/systems.md has the numbers.

`vargen import orthus` reads the published weights for pictures of prompts, by the conditioning `prompt`: there words
stand right before their picture, and come as numbers, since their tokenizer isn't read.

Published, 512x512, after post-training: GenEval 0.58. Not trained by us. Parameters of the generator: 7b 7032.2 M. The
authors' module has 7065.7 M: its map to words has 8192 rows for codes of pictures, which it is never asked for (33.6
M).

The recipe is that of the second stage (lambda 100); the first trains embeddings and the patches' head alone, on
Chameleon's weights. Chameleon's tokenizer is a VQGAN whose latents are taken before they are quantised: here they are
`kl`'s means, a tenth of the encoder's, which are compared with codes after a factor of 10. Unknown: how often captions
are dropped.
"""

from types import SimpleNamespace as Size

from vargen import config as base
from vargen.config import part

# The words of the set "shapes", in alphabetical order; its longest caption has 26.
WORDS = (
    ", a and at black blue bottom centre circle cross green left purple red right small square the top triangle "
    "yellow"
)
SIZES = {
    "shapes": Size(layers=4, width=128, mlp=384, heads=4, batch=64, steps=(800, 1600), codes=64),
    # The paper's; `numbers`: of the vocabulary, without those of pictures.
    "7b": Size(layers=32, width=4096, mlp=11008, heads=32, codes=8192, numbers=65536 - 8192 - 2),
}


def get_config(size="shapes"):
    s = SIZES[size]
    c = base.config()
    c.order = part("segments")
    c.feed = part("shift", soft_codes=s.codes)
    c.mixer = part("attention", heads=s.heads, qk_norm="layer", eps=1e-5, rope="sequence", out_bias=False)
    c.model = dict(
        layers=s.layers, width=s.width, mlp_width=s.mlp, mlp="swiglu", norm="rms", eps=1e-5, bias=False
    )
    return paper(c, s) if hasattr(s, "numbers") else small(c, s)


def heads(patches, weight):
    words = part("categorical", bias=False, init_std=0.02)
    return part("segments", heads=dict(text=words, picture=patches), weights=(1.0, weight))


def small(c, s):
    c.name = "Orthus"
    c.data = base.images("shapes", 24, 3, 24)
    c.tokenizer = part(
        "kl", encoder=part("patch", patch=8, blocks=1), channels=16, kl_weight=5e-3, measure=True
    )
    c.conditioning = part("text", vocabulary=WORDS.split(), tokens=27)
    c.head = heads(part("v_diffusion", depth=3, width=s.width, sample_steps=25, repeat=4), 1.0)
    c.sampling.guidance = 2.0
    base.small(
        c,
        tokenizer=dict(steps=s.steps[0], learning_rate=4e-3),
        generator=dict(steps=s.steps[1], batch_size=s.batch, codes=True),
    )
    return c


def paper(c, s):
    c.name = "Orthus-7B"
    c.data = base.images("folder", 512, 3, 0)
    c.tokenizer = part(
        "kl",
        encoder=part("conv", encoder_attention=False, decoder_attention=False, hidden=256),
        channels=256,
        scale=0.1,
    )
    c.conditioning = part("text", numbers=s.numbers, tokens=1024)
    c.mixer.norm_each = True
    c.feed.soft_scale = 10.0
    c.head = heads(part("v_diffusion", depth=3, width=1536, sample_steps=100, repeat=8), 100.0)
    c.sampling.guidance = 5.0
    c.training.update(dict(steps=35_000, batch_size=16, learning_rate=1e-5, remat="blocks"))
    return c
