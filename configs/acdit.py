"""ACDiT: block after block of continuous latents, each by diffusion given the clean ones before. arXiv 2412.07720.

    vargen quickstart --config configs/acdit.py:digits --workdir runs/acdit
    vargen quickstart --config configs/acdit.py:pictures32 --workdir runs/mine --config.data.path=~/pictures
    vargen train --config configs/acdit.py:b --workdir runs/acdit_b --config.data.path=/data/tfds
    vargen import acdit --generator ACDiT-XL-img.pt --tokenizer diffusion_pytorch_model.bin --out models/acdit_xl

Checked: predictions, gradients and whole samplers 2e-5, of images and videos (goldens acdit, acdit_video). Published,
on ImageNet 256x256 with guidance 1.5, four blocks of 16x16 latents and 25 passes a block: FID 2.53 (L), 2.45 (XL), 2.37
(H), after 1.2 million updates of 1024 pictures on 256 H100. Not trained by us. Parameters of the generator: B 130.3 M,
L 457.9 M, XL 674.9 M, H 951.0 M, as the authors' modules count; the paper's table says 2 to 3 M more.

The small sizes add an embedding of the slot. The recipe is the paper's, with betas and clipping from the authors' code
(thunlp/ACDiT); in the last 15 % of the updates the rate falls to a 64th by a half cosine, theirs exponentially, and a
picture and its mirror image are seen equally often. The tokenizer is Stable Diffusion's of stride 8; its recipe here is
latent diffusion's as far as it is known (4 channels, weight 1e-6 of the divergence), the number of updates ours.
The authors' models of videos (UCF-101) are generators over frames, four a step; they get a config with the first source
of clips.
"""

from types import SimpleNamespace as Size

from vargen import config as base
from vargen.config import part

SIZES = dict(
    digits=Size(layers=4, width=128, heads=4, batch=64, steps=(1200, 3000), patch=4, channels=8),
    pictures32=Size(layers=4, width=192, heads=6, batch=32, steps=(4000, 4000), patch=4, channels=8),
    pictures64=Size(layers=4, width=192, heads=6, batch=32, steps=(4000, 4000), patch=8, channels=16),
    # The paper's.
    b=Size(layers=12, width=768, heads=12),
    l=Size(layers=24, width=1024, heads=16),
    xl=Size(layers=28, width=1152, heads=18),
    h=Size(layers=32, width=1280, heads=20),
)


def get_config(size="digits"):
    s = SIZES[size]
    c = base.config()
    c.order, c.feed = part("cells", count=(2, 2)), part("noisy", bias=False)
    c.mixer = part("attention", heads=s.heads, qk_norm="rms", bias="qkv", rope="halves")
    c.model = dict(layers=s.layers, width=s.width, norm="rms", adaptive="adaln", adaln_zero=True)
    c.model.update(dict(final_norm="both", init_std=0.0, init="normal"))
    return small(c, size, s) if hasattr(s, "patch") else paper(c, size, s)


def small(c, size, s):
    c.name = "ACDiT"
    c.data = base.small_data(size)
    encoder = part("patch", patch=s.patch, blocks=1)
    c.tokenizer = part("kl", encoder=encoder, channels=s.channels, kl_weight=5e-3, measure=True)
    c.head = part("epsilon", sample_steps=10, clip=3.0)
    c.feed.positions = True
    c.sampling.update(dict(guidance=1.5))
    base.small(
        c,
        tokenizer=dict(steps=s.steps[0], learning_rate=4e-3),
        generator=dict(steps=s.steps[1], batch_size=s.batch),
    )
    return c


def paper(c, size, s):
    c.name = f"ACDiT-{size.upper()}"
    c.data = base.imagenet(256)
    encoder = part("conv", multipliers=(1, 2, 4, 4), encoder_attention=False, decoder_attention=False)
    c.tokenizer = part("kl", encoder=encoder, channels=4, scale=0.18215)
    c.head = part("epsilon", sample_steps=25)
    c.sampling.update(dict(guidance=1.5))
    c.presets.paper = base.preset(count=50, guidance=1.5)
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
            steps=1_200_000,
            batch_size=1024,
            learning_rate=3e-4,
            min_learning_rate=3e-4 / 64,
            warmup_steps=0,
            hold=0.85,
            b2=0.95,
            weight_decay=0.0,
            clip_norm=1.0,
            ema_decay=0.9999,
            ema_warmup=False,
            augmented_copies=2,  # the largest square and its mirror image
            remat="blocks",
        )
    )
    return c
