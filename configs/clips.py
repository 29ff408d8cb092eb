"""One generator, tokenizers of clips: LlamaGen's over digits that move and bounce, 4 frames of 16x16. Default: LARP.

    vargen quickstart --config configs/clips.py:larp --workdir runs/clips
    vargen sample --workdir runs/clips --classes 3,5,8

Samples are animated PNGs; sheets have the frames side by side. The rows of `TOKENIZERS` are what can follow the colon:
ViTok (arXiv 2501.09755), transformers at both ends and a code for each patch of two frames, drawn frame by frame; LARP
(2410.21264), a clip written into registers, with a prior that is trained beside it. `--config.data.frames=8` makes
longer clips. Clips come of the set `moving_digits` alone, no folder of frames or file of video is read. Neither row has
been trained to its end yet.
"""

from vargen import config as base
from vargen.config import part

ends = dict(patch_frames=2, width=72, layers=2, heads=3)
codes = dict(vocab=256, channels=8, codebook_weight=0.1, beta=0.02, revive_every=25)
TOKENIZERS = dict(
    vitok=part("vq", encoder=part("vit", patch=4, **ends), **codes),
    larp=part("vq", encoder=part("registers", tokens=16, patch=8, norm_in=True, **ends), **codes),
)
STEPS = dict(vitok=800, larp=2000)
LOSSES = dict(larp=dict(prior=0.06, prior_width=64, prior_layers=2, prior_heads=2))


def get_config(tokenizer="larp"):
    c = base.config()
    c.name = f"LlamaGen over {tokenizer} of clips"
    c.data = base.images("moving_digits", 16, 1, 10, frames=4)
    c.tokenizer = TOKENIZERS[tokenizer]
    c.order = part("raster")
    c.feed = part("shift", dropout=0.1, target_positions=True)
    c.mixer = part("attention", heads=4, dropout=0.1)
    c.head = part("categorical", bias=False)
    c.model = dict(
        layers=4, width=128, mlp="swiglu", mlp_width=384, norm="rms", eps=1e-5, bias=False, dropout=0.1
    )
    c.sampling.update(dict(guidance=1.5))
    own = dict(steps=STEPS[tokenizer], batch_size=32, learning_rate=3e-3, warmup_steps=50)
    c.tokenizer_training.update(own)
    c.tokenizer_training.losses.update(LOSSES.get(tokenizer, {}))
    c.training.update(dict(steps=800, batch_size=32, learning_rate=2e-3))
    return c
