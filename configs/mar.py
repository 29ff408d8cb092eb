"""MAR: masked autoregression over continuous latents with a diffusion head. arXiv 2406.11838.

    vargen quickstart --config configs/mar.py:digits --workdir runs/mar
    vargen quickstart --config configs/mar.py:pictures32 --workdir runs/mine --config.data.path=~/pictures
    vargen train --config configs/mar.py:b --workdir runs/mar_b --config.data.path=/data/tfds

Checked: hidden vectors 2e-5, whole sampler with their noise 1e-4 (goldens mar, mar_kl). Published, on ImageNet 256x256:
FID 2.31 (B), 1.78 (L), 1.55 (H) in 256 steps with linear guidance 2.9, 3.0, 3.2 and temperature 1, after 800 epochs;
400 of L with a smaller denoiser took 1 d 7 h on 32 H100. Not trained by us. Parameters of the generator: B 207.9 M, L
478.3 M, H 942.4 M, as the authors' module counts.

The generator's recipe is the authors' (LTH14/mar, main_mar.py) over stored latents (84 GB), but for three things: the
masked ratio is drawn for each image, theirs for the images of a device together; a picture and its mirror image are
seen equally often, theirs drawn anew at each visit; they compute in float16 with a scaled loss, here it is bfloat16.

The tokenizer's recipe is that of latent diffusion's KL-f16 with batches of 256 and a learning rate of 1e-4 (the
authors' tracker, issue 3). Not known are its number of updates and how pictures were cut: those are ours, as are the
initial weights of convolutions, and the discriminator's norms, of eight pictures and not a device's.
"""

from types import SimpleNamespace as Size

from vargen import config as base
from vargen.config import part

# `layers` of both stacks together; `depth` and `denoiser`: layers and width of the head's network.
SIZES = dict(
    digits=Size(layers=4, width=128, heads=4, batch=64, steps=(1200, 1200), patch=4, channels=8),
    pictures32=Size(layers=4, width=192, heads=6, batch=32, steps=(4000, 4000), patch=4, channels=8),
    pictures64=Size(layers=4, width=192, heads=6, batch=32, steps=(4000, 4000), patch=8, channels=16),
    # The paper's.
    b=Size(layers=24, width=768, heads=12, depth=6, denoiser=1024, guidance=2.9),
    l=Size(layers=32, width=1024, heads=16, depth=8, denoiser=1280, guidance=3.0),
    h=Size(layers=40, width=1280, heads=16, depth=12, denoiser=1536, guidance=3.2),
)


def get_config(size="digits"):
    s = SIZES[size]
    c = base.config()
    c.mixer = part("attention", heads=s.heads, bias="qkv", dropout=0.1)
    c.model = dict(layers=s.layers, width=s.width, mlp="gelu", init_std=0.0, dropout=0.1)
    c.sampling.guidance_schedule = "linear"
    return paper(c, size, s) if hasattr(s, "guidance") else small(c, size, s)


def small(c, size, s):
    c.name = "MAR"
    c.data = base.small_data(size)
    c.tokenizer = part(
        "kl",
        encoder=part("patch", patch=s.patch, blocks=1),
        channels=s.channels,
        kl_weight=5e-3,
        measure=True,
    )
    c.order = part("random_sets", steps=8, mask_ratio_min=0.5)
    c.feed = part("mask", buffer=4)
    c.head = part("diffusion", depth=3, width=s.width, sample_steps=50, repeat=4, clip=3.0)
    c.sampling.update(dict(guidance=1.5, temperature=0.6))
    base.small(
        c,
        tokenizer=dict(steps=s.steps[0], learning_rate=4e-3),
        generator=dict(steps=s.steps[1], batch_size=s.batch),
    )
    return c


def paper(c, size, s):
    c.name = f"MAR-{size.upper()}"
    c.data = base.imagenet(256)
    # As Xavier's rule makes query, key and value of one matrix.
    c.mixer.update(dict(in_gain=0.5**0.5, weight_dropout=0.1))
    c.model.init = "normal"
    c.tokenizer = part("kl", encoder=part("conv", decoder_attention=False), channels=16, scale=0.2325)
    c.order = part("random_sets", steps=256)
    c.feed = part("mask", buffer=64)
    c.head = part("diffusion", depth=s.depth, width=s.denoiser, sample_steps=100, repeat=4)
    c.sampling.guidance = s.guidance
    c.presets.paper = base.preset(count=50, steps=256, guidance=s.guidance, guidance_schedule="linear")
    c.tokenizer_training.update(
        dict(
            steps=400_000,
            batch_size=256,
            learning_rate=1e-4,
            warmup_steps=0,
            schedule="constant",
            b1=0.5,
            b2=0.9,
            clip_norm=0.0,
            ema_decay=0.0,
        )
    )
    c.tokenizer_training.losses.update(
        dict(l1=1.0, l2=0.0, perceptual=1.0, adversarial=0.5, adversarial_start=50_001, adaptive=True)
    )
    c.training.update(
        dict(
            steps=500_000,  # 800 epochs of 625
            batch_size=2048,
            learning_rate=8e-4,  # 1e-4 per 256 images
            warmup_steps=62_500,  # 100 epochs
            warmup_start=0.0,
            schedule="constant",
            b2=0.95,
            weight_decay=0.02,
            decay=("*kernel", "*table", "feed/mask", "!head/*"),
            clip_norm=3.0,
            ema_decay=0.9999,
            ema_warmup=False,
            augmented_copies=2,  # the largest square and its mirror image
        )
    )
    return c
