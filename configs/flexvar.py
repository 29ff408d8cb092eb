"""FlexVAR: next-scale prediction without residuals, over scales drawn anew each update. arXiv 2502.20313.

    vargen quickstart --config configs/flexvar.py:digits --workdir runs/flexvar
    vargen quickstart --config configs/flexvar.py:pictures32 --workdir runs/mine --config.data.path=~/pictures
    vargen train --config configs/flexvar.py:d16 --workdir runs/flexvar_d16 --config.data.path=/data/tfds
    vargen import flexvar --generator FlexVARd24-epo349.pth --tokenizer FlexVAE.pth --out models/flexvar_d24
    vargen sample --workdir models/flexvar_d24 --preset steps13 --classes 207
    vargen sample --workdir models/flexvar_d24 --levels 1,2,3,4,6x8,9x12,12x16,18x24 --classes 207

Checked: logits 2e-5, codes exact (goldens flexvar, flexvar_tokenizer). Sampling takes any levels (`--levels`,
`sampling.levels`): their number is the number of steps, the last of them the size of the picture. Each update of the
digits has three of their four levels; what was measured, also at levels that no update had, is in
benchmarks/results/digits.json (`flexvar`, `flexvar_levels`).

Published, on ImageNet 256x256: FID 3.05 (d16), 2.41 (d20), 2.21 (d24) in 10 steps, 2.08 (d24) in 13; the guidance of
each isn't told, the presets have the README's. Not trained by us. Parameters of the generator: d16 315.6 M, d20
607.5 M, d24 1041.3 M.

The generator's recipe is the authors' (jiaosiyu1999/FlexVAR, scripts and trainer.py), with the encoder in the loop, but
for these: theirs draws a set of levels for each device, here all devices have the same; a set has 680 rows, filled up
with rows that nobody sees, so that shapes stay; they compute in float16 with a scaled loss, here it is bfloat16. Their
code trains on 512 pixels where no script says otherwise; the paper says 256, which is here. How the tokenizer was
trained isn't published (it has LlamaGen's losses): that of every level is ours, see `PyramidVQ`.
"""

from types import SimpleNamespace as Size

from vargen import config as base
from vargen.config import part

# What both sizes for pictures share; the first table in capitals is that of the sizes.
pictures = dict(
    layers=4, width=192, heads=6, batch=32, steps=(1000, 1500), groups=((2, 1, 2), (3, 3, 7), (1, 8, 8)),
    levels=(1, 2, 3, 4, 6, 8),
)  # fmt: skip
SIZES = dict(
    digits=Size(
        layers=4, width=128, heads=4, batch=64, steps=(700, 1000), vocab=128, encoder=(16, (1, 2, 4)),
        groups=((1, 1, 1), (1, 2, 3), (1, 4, 4)), levels=(1, 2, 3, 4),
    ),
    pictures32=Size(**pictures, vocab=512, encoder=(32, (1, 2, 2))),
    pictures64=Size(**pictures, vocab=1024, encoder=(16, (1, 2, 2, 4))),
    # The paper's. Learning rates are per 256 images, `last` their last share.
    d16=Size(depth=16, epochs=180, rate=1e-4, last=0.1, gate=1e-3),
    d20=Size(depth=20, epochs=250, rate=1e-4, last=0.1, gate=1e-3),
    d24=Size(depth=24, epochs=350, rate=8e-5, last=0.01, gate=1e-4),
)  # fmt: skip
USUAL = (1, 2, 3, 4, 5, 6, 8, 10, 13, 16)
# By the number of steps, as the authors sample; fifteen make 512 pixels.
STEPS = {
    6: (1, 2, 4, 6, 10, 16),
    8: (1, 2, 3, 5, 7, 10, 13, 16),
    9: (1, 2, 3, 4, 5, 7, 10, 13, 16),
    10: USUAL,
    11: (1, 2, 3, 4, 5, 6, 7, 9, 11, 13, 16),
    12: (1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16),
    13: (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 14, 16),
    14: (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 14, 16),
    15: (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 14, 16, 23, 32),
}
IMAGES = 1_281_167


def get_config(size="digits"):
    s = SIZES[size]
    c = base.config()
    c.feed = part("refine", places="table")
    c.mixer = part("attention", qk_norm="l2", bias="qv")
    c.model = dict(adaptive="adaln", affine=False, init_std=-1.0, depth_scaled_init=True)
    return paper(c, size, s) if hasattr(s, "depth") else small(c, size, s)


def small(c, size, s):
    c.name = "FlexVAR"
    c.data = base.small_data(size)
    width, multipliers = s.encoder
    encoder = part("conv", width=width, multipliers=multipliers, blocks=1, groups=4)
    levels = tuple(range(1, s.groups[-1][2] + 1))
    losses = dict(codebook_weight=0.1, beta=0.02, revive_every=25)
    c.tokenizer = part("pyramid_vq", encoder=encoder, levels=levels, vocab=s.vocab, channels=8, **losses)
    c.order = part("some_levels", groups=s.groups)
    c.mixer.heads = s.heads
    c.head = part("categorical", init_std=0.001)
    c.model.update(layers=s.layers, width=s.width, dropout=0.1)
    c.sampling.update(guidance=1.5, guidance_schedule="ramp", levels=s.levels)
    tokenizer = dict(steps=s.steps[0], learning_rate=3e-3, batch_size=32)
    base.small(c, tokenizer=tokenizer, generator=dict(steps=s.steps[1], batch_size=s.batch))
    return c


def paper(c, size, s):
    steps = s.epochs * -(-IMAGES // 768)
    c.name = f"FlexVAR-{size}"
    c.data = base.imagenet(256, crop="random", crop_range=(1.0, 1 / 0.88))
    encoder, levels = part("conv", hidden=256), tuple(range(1, 17))
    c.tokenizer = part("pyramid_vq", encoder=encoder, levels=levels, vocab=8912, channels=32, revive_every=0)
    groups = ((2, 1, 2), (5, 3, 10), (2, 11, 15), (1, 16, 16))
    usual = dict(usual=USUAL, usual_share=0.05)
    c.order = part("some_levels", groups=groups, **usual, thinning=(0.1, 0.05, 0.02, 0.01), most=680)
    c.mixer.heads = s.depth
    c.head = part("categorical", init_std=0.02 * (1 / (3 * 64 * s.depth)) ** 0.5)
    c.model.update(layers=s.depth, width=64 * s.depth, gate_gain=s.gate)
    c.model.update(init="normal", drop_path=0.1 * s.depth / 24)
    best = dict(guidance=2.5, guidance_schedule="ramp", guidance_rise=9, guidance_side=16)
    best |= dict(top_k=900, top_p=0.95, random_sides=USUAL)
    c.sampling.update(best, levels=USUAL)
    c.presets.paper = base.preset(count=50, **best, levels=USUAL)
    for number, levels in STEPS.items():
        guidance = 2.5 if levels[-1] == 16 else 3.0
        c.presets[f"steps{number}"] = base.preset(**best | dict(guidance=guidance, levels=levels))
    c.tokenizer_training.update(steps=200_000, batch_size=128, learning_rate=1e-4, warmup_steps=5_000)
    c.tokenizer_training.losses.update(l2=1.0, perceptual=1.0, adversarial=0.5, adversarial_start=20_000)
    c.training.update(steps=steps, batch_size=768, remat="blocks", codes=False)
    c.training.update(learning_rate=3 * s.rate, min_learning_rate=3 * s.last * s.rate)
    c.training.update(schedule="linear", warmup_steps=steps // 50, warmup_start=0.005, hold=0.05)
    c.training.update(b2=0.95, weight_decay=0.05, decay=("*kernel", "condition/classes/table"))
    c.training.update(clip_norm=2.0, ema_decay=0.0)
    return c
