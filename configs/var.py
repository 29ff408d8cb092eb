"""VAR: next-scale prediction over a multi-scale residual VQ. arXiv 2404.02905.

    vargen quickstart --config configs/var.py:digits --workdir runs/quickstart
    vargen quickstart --config configs/var.py:pictures32 --workdir runs/mine --config.data.path=~/pictures
    vargen train --config configs/var.py:d16 --workdir runs/var_d16 --config.data.path=/data/tfds

Checked: logits 2e-5, greedy tokens exact, tokenizer's codes exact (goldens var_tokenizer, var_transformer_l2norm,
var_transformer_sharedaln). What the digits and `pictures32` took, and what came of them:
benchmarks/results/quickstart.json and pictures.json. Published, on ImageNet 256x256: FID 3.55 (d16), 2.95 (d20), 2.33
(d24), 1.97 (d30) with guidance 1.5, top-k 900, top-p 0.96; on 512x512: 2.63 (d36). d16 took 2.5 days on 16 A100 (the
authors' tracker, issue 26). Not trained by us. Parameters of the generator with its head: d16 310.3 M, d20 600.9 M, d24
1033.4 M, d30 2010.0 M, as the authors' module counts.

The generator's recipe is the authors' (FoundationVision/VAR, README and utils/), with the encoder in the loop, but
for three things: they compute in float16 with a scaled loss, here it is bfloat16; their last batch of an epoch is
filled up with pictures of that epoch, here with those of the next; they validate on the middle of pictures scaled to
1.125 of the size, here it is the largest square. The tokenizer's recipe was never published (it was trained on
OpenImages): `tokenizer_training` and the revival of dead codes are ours.
"""

from types import SimpleNamespace as Size

from vargen import config as base
from vargen.config import part

# What both sizes for pictures share; the first table in capitals is that of the sizes.
pictures = dict(layers=4, width=192, heads=6, batch=32, steps=(3000, 3000), levels=(1, 2, 3, 4, 6, 8))
SIZES = dict(
    digits=Size(layers=4, width=128, heads=4, batch=64, steps=(2400, 1000), patch=4, vocab=128, levels=(1, 2, 3, 4)),
    pictures32=Size(**pictures, patch=4, vocab=512),
    pictures64=Size(**pictures, patch=8, vocab=1024),
    # The paper's. Learning rates are per 256 images, `last` their last share; `decay` is what weight decay ends at.
    d16=Size(depth=16, batch=768, epochs=200, rate=1e-4, last=0.1, decay=0.05, gate=1e-3),
    d20=Size(depth=20, batch=768, epochs=250, rate=1e-4, last=0.1, decay=0.05, gate=1e-3),
    d24=Size(depth=24, batch=768, epochs=350, rate=8e-5, last=0.01, decay=0.05, gate=1e-4),
    d30=Size(depth=30, batch=1024, epochs=350, rate=8e-5, last=0.01, decay=0.08, gate=1e-5),
    d36=Size(
        depth=36, batch=768, epochs=350, rate=8e-5, last=0.01, decay=0.08, gate=5e-6, adaptive="shared",
        image=512, levels=(1, 2, 3, 4, 6, 9, 13, 18, 24, 32),
    ),
)  # fmt: skip
PAPER = dict(adaptive="adaln", image=256, levels=(1, 2, 3, 4, 5, 6, 8, 10, 13, 16))
IMAGES = 1_281_167


def get_config(size="digits"):
    s = SIZES[size]
    c = base.config()
    c.order = part("levels")
    c.feed = part("refine")
    c.mixer = part("attention", qk_norm="l2", bias="qv")
    c.model = dict(adaptive="adaln", affine=False, init_std=-1.0, depth_scaled_init=True)
    return paper(c, size, Size(**PAPER | vars(s))) if hasattr(s, "depth") else small(c, size, s)


def small(c, size, s):
    c.name = "VAR"
    c.data = base.small_data(size)
    encoder = part("patch", patch=s.patch, blocks=1)
    losses = dict(codebook_weight=0.1, beta=0.02, entropy_weight=0.02, revive_every=25)
    c.tokenizer = part(
        "multiscale_vq", encoder=encoder, levels=s.levels, vocab=s.vocab, channels=16, **losses
    )
    c.mixer.heads = s.heads
    c.head = part("categorical", init_std=0.001)
    c.model.update(layers=s.layers, width=s.width, dropout=0.1)
    c.sampling.update(guidance=1.5, guidance_schedule="ramp")
    tokenizer = dict(steps=s.steps[0], learning_rate=4e-3)
    base.small(c, tokenizer=tokenizer, generator=dict(steps=s.steps[1], batch_size=s.batch))
    return c


def paper(c, size, s):
    steps = s.epochs * -(-IMAGES // s.batch)
    c.name = f"VAR-{size}"
    # Squares of a picture scaled to 1.125 of the size, never mirrored.
    c.data = base.imagenet(s.image, flip=False, crop="random", crop_range=(1.125,), filter="lanczos")
    encoder = part("conv", width=160, projection=3)
    c.tokenizer = part("multiscale_vq", encoder=encoder, levels=s.levels, vocab=4096, channels=32)
    c.mixer.heads = s.depth
    c.head = part("categorical", init_std=0.02 * (1 / (3 * 64 * s.depth)) ** 0.5)
    c.model.update(layers=s.depth, width=64 * s.depth, adaptive=s.adaptive, gate_gain=s.gate)
    c.model.update(init="normal", drop_path=0.1 * s.depth / 24)
    best = dict(guidance=1.5, guidance_schedule="ramp", top_k=900, top_p=0.96)
    c.sampling.update(best)
    c.presets.paper = base.preset(count=50, **best)
    c.presets.demo = base.preset(guidance=4.0, guidance_schedule="ramp", top_k=900, top_p=0.95)
    c.tokenizer_training.update(
        steps=400_000, batch_size=768, learning_rate=1e-4, warmup_steps=5_000, weight_decay=0.05
    )
    c.tokenizer_training.losses.update(l2=1.0, perceptual=1.0, adversarial=0.5, adversarial_start=20_000)
    c.training.update(
        steps=steps,
        batch_size=s.batch,
        learning_rate=s.rate * s.batch / 256,
        min_learning_rate=s.last * s.rate * s.batch / 256,
        warmup_steps=steps // 50,
        warmup_start=0.005,
        schedule="linear",
        hold=0.05,
        b2=0.95,
        weight_decay=0.05,
        final_weight_decay=s.decay,
        decay=("*kernel", "condition/classes/table"),
        clip_norm=2.0,
        ema_decay=0.0,
        remat="products" if s.depth < 30 else "blocks",
        codes=False,
    )
    return c
