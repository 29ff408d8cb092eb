"""HART: next-scale prediction of codes, and what they leave of the latents by a small diffusion. arXiv 2410.10812.

    vargen quickstart --config configs/hart.py:digits --workdir runs/hart
    vargen quickstart --config configs/hart.py:pictures32 --workdir runs/mine --config.data.path=~/pictures
    vargen train --config configs/hart.py:d20 --workdir runs/hart_d20 --config.data.path=/data/tfds

Checked: by its formulas; the tokenizer's golden: codes exact, latents 1e-5 (golden hart_tokenizer). Published, on
ImageNet 256x256: FID 2.39 (d20), 2.00 (d24), 1.77 (d30). Not trained by us. Parameters of the generator with its heads:
d20 649.4 M, as published (649 M); the diffusion's network has 36 M of them. The authors' module (mit-han-lab/hart) has
a scale for the norms of each block and of the head, which its own options call off: 27 k more.

The last level's codes and residuals come of one pass: of a slot's hidden vector the code, then of both the residual, in
eight steps of diffusion. Training's passes have some 18 % of the last level's slots alone (`thinned_levels`), and the
diffusion is told codes drawn of the model, as in sampling. Other than there: the share is drawn for each picture,
theirs for those of a device together; the diffusion's rows are taken behind the last norm, theirs before it.

Training code was never published, nor the class models: their blocks follow from their number of parameters, the
recipe is VAR's, see configs/var.py. The published model draws 1024x1024 pixels of a language model's states, at its
first level as many rows as these are, which the feed has not.
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
    # The paper's; `rate` is per 256 images, `last` its last share, `mlp` what SwiGLU's width comes to.
    d20=Size(depth=20, mlp=3584, epochs=250, batch=768, rate=1e-4, last=0.1, decay=0.05, gate=1e-3),
    d24=Size(depth=24, mlp=4096, epochs=350, batch=768, rate=8e-5, last=0.01, decay=0.05, gate=1e-4),
    d30=Size(depth=30, mlp=5120, epochs=350, batch=1024, rate=8e-5, last=0.01, decay=0.08, gate=1e-5),
)  # fmt: skip
IMAGES = 1_281_167


def get_config(size="digits"):
    s = SIZES[size]
    c = base.config()
    c.feed = part("refine", places="levels", coords="picture")
    c.mixer = part("attention", bias="qv", rope="places")
    c.model = dict(norm="rms", affine=False, bias=False, mlp="swiglu", adaptive="adaln", init_std=-1.0)
    c.model.depth_scaled_init = True
    return paper(c, size, s) if hasattr(s, "depth") else small(c, size, s)


def heads(codes, **diffusion):
    return dict(codes=part("categorical", init_std=codes), numbers=part("diffusion", **diffusion))


def small(c, size, s):
    c.name = "HART"
    c.data = base.small_data(size)
    encoder = part("patch", patch=s.patch, blocks=1)
    losses = dict(codebook_weight=0.1, beta=0.02, entropy_weight=0.02, revive_every=25)
    c.tokenizer = part(
        "hybrid_multiscale",
        encoder=encoder,
        levels=s.levels,
        vocab=s.vocab,
        channels=16,
        beside=True,
        **losses,
    )
    c.order = part("levels")  # so few slots are all learnt
    c.mixer.heads = s.heads
    network = dict(depth=3, width=s.width, sample_steps=25, repeat=2, clip=3.0)
    c.head = part("hybrid", heads=heads(0.001, **network), scale=0.75, top_p=0.96)
    c.model.update(layers=s.layers, width=s.width, mlp_width=3 * s.width, dropout=0.1)
    c.sampling.update(guidance=1.5, guidance_schedule="ramp", temperature=0.6)
    tokenizer = dict(steps=s.steps[0], learning_rate=4e-3)
    base.small(c, tokenizer=tokenizer, generator=dict(steps=s.steps[1], batch_size=s.batch))
    return c


def paper(c, size, s):
    steps = s.epochs * -(-IMAGES // s.batch)
    c.name = f"HART-{size}"
    c.data = base.imagenet(256, flip=False, crop="random", crop_range=(1.125,), filter="lanczos")
    c.tokenizer = part("hybrid_multiscale", encoder=part("conv", width=160, projection=3), beside=True)
    c.order = part("thinned_levels", least=32)
    c.mixer.update(heads=s.depth, scale=0.25)
    network = dict(depth=6, width=1024, sample_steps=8, repeat=4, clip=1.0)
    c.head = part("hybrid", heads=heads(0.02 * (1 / (3 * 64 * s.depth)) ** 0.5, **network), scale=0.6)
    c.head.update(dict(top_k=600, top_p=0.96))
    c.model.update(layers=s.depth, width=64 * s.depth, mlp_width=s.mlp, gate_gain=s.gate)
    c.model.update(init="normal", drop_path=0.1 * s.depth / 24)
    best = dict(guidance=1.5, guidance_schedule="ramp", top_k=600, top_p=0.96)
    c.sampling.update(best)
    c.presets.paper = base.preset(count=50, **best)
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
