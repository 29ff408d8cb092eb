"""Hi-MAR: a few low-resolution latents first, by whose hidden vectors the picture's are drawn. arXiv 2505.20288.

    vargen quickstart --config configs/himar.py:digits --workdir runs/himar
    vargen quickstart --config configs/himar.py:pictures32 --workdir runs/mine --config.data.path=~/pictures
    vargen train --config configs/himar.py:b --workdir runs/himar_b --config.data.path=/data/tfds
    vargen import himar --generator checkpoint-last.pth --tokenizer kl16.ckpt --out models/himar_b

Checked: no licence, no golden: hidden vectors 2e-5, whole sampler 2e-4 by a float64 formula. Published, on ImageNet
256x256: FID 1.93 (B), 1.66 (L), 1.52 (H) with the settings of the preset `paper`, after 800 epochs. Not trained by us.
Parameters of the generator: B 244.5 M, L 529.2 M, H 1090.6 M, as the published files' shapes say. The tokenizer is
MAR's, see configs/mar.py.

The recipe is that of the authors' code (HiDream-ai/himar), whose training pass does not run as it is. Other than there:
the masked share of each level is drawn for each image, theirs for the images of a device together; a label is dropped
for both rounds of an update, theirs for each; the share of images whose second round is told the first's hidden vectors
is 0.25 from the start, theirs grows to that in 100 epochs; mirror images are seen equally often; it is bfloat16, theirs
float16 with a scaled loss. The batch is stated nowhere: 2048, MAR's, with the code's 1e-4 for each 256 images.

In the small sizes pivots are averages of the picture's latents, as their encoder takes pictures of one size.
"""

from types import SimpleNamespace as Size

from vargen import config as base
from vargen.config import part

# `layers` of both stacks; `slot`: layers and width of the first round's network, `dit` of the second's: layers,
# width, heads. `steps` of training, or of the dense level; guidance of the pivots, and of the dense level.
SIZES = dict(
    digits=Size(layers=4, width=128, heads=4, batch=64, steps=1200, patch=4, channels=8, levels=(2, 4)),
    pictures32=Size(layers=4, width=192, heads=6, batch=32, steps=2500, patch=4, channels=8, levels=(4, 8)),
    pictures64=Size(layers=4, width=192, heads=6, batch=32, steps=2500, patch=8, channels=16, levels=(4, 8)),
    # The paper's.
    b=Size(layers=24, width=768, heads=12, slot=(6, 1024), dit=(6, 512, 8), steps=4, guidance=(2.7, 2.5)),
    l=Size(layers=32, width=1024, heads=16, slot=(8, 1280), dit=(8, 512, 8), steps=4, guidance=(3.5, 3.5)),
    h=Size(
        layers=40, width=1280, heads=16, slot=(12, 1536), dit=(12, 768, 12), steps=12, guidance=(5.5, 3.2)
    ),
)


def get_config(size="digits"):
    s = SIZES[size]
    c = base.config()
    c.mixer = part("attention", heads=s.heads, bias="qkv", dropout=0.1)
    c.model = dict(layers=s.layers, width=s.width, mlp="gelu", init_std=0.0, adaptive="rounds", dropout=0.1)
    c.sampling.guidance_schedule = "linear"
    return paper(c, size, s) if hasattr(s, "guidance") else small(c, size, s)


def heads(pivots, picture):
    """Of both rounds. Weights of their losses are by their slots, 64 and 256, times 2 and 0.75."""
    both = dict(pivots=part("diffusion", **pivots), picture=part("dit", **picture))
    return part("rounds", heads=both, weights=(0.4, 0.6))


def small(c, size, s):
    c.name = "Hi-MAR"
    c.data = base.small_data(size)
    encoder = part("patch", patch=s.patch, blocks=1)
    c.tokenizer = part(
        "pyramid_kl", encoder=encoder, levels=s.levels, channels=s.channels, kl_weight=5e-3, measure=True
    )
    c.order = part("level_sets", steps=(4, 4))
    c.feed = part("pivots", buffer=4, hidden_share=0.5)
    # A denoiser of so little training that it is not accurate at the first of its steps.
    c.head = heads(
        dict(depth=3, width=s.width, sample_steps=50, repeat=4, clip=3.0),
        dict(depth=3, width=s.width, heads=s.heads, sample_steps=50, clip=3.0),
    )
    c.sampling.update(dict(guidance=1.5, guidance_before=(1.5,), temperature=0.6))
    base.small(
        c,
        tokenizer=dict(steps=s.steps, learning_rate=4e-3),
        generator=dict(steps=s.steps, batch_size=s.batch),
    )
    return c


def paper(c, size, s):
    depth, width, count = s.dit
    epoch = 625
    c.name = f"Hi-MAR-{size.upper()}"
    c.data = base.imagenet(256)
    # As Xavier's rule makes query, key and value of one matrix.
    c.mixer.update(dict(in_gain=0.5**0.5, weight_dropout=0.1))
    c.model.init = "normal"
    encoder = part("conv", decoder_attention=False)
    c.tokenizer = part(
        "pyramid_kl", encoder=encoder, levels=(8, 16), of="pictures", channels=16, scale=0.2325
    )
    c.order = part("level_sets", steps=(32, s.steps))
    c.feed = part("pivots", buffer=64)
    c.head = heads(
        dict(depth=s.slot[0], width=s.slot[1], sample_steps=100, repeat=1),
        dict(depth=depth, width=width, heads=count, sample_steps=250),
    )
    best = dict(guidance=s.guidance[1], guidance_before=s.guidance[:1], guidance_schedule="linear")
    c.sampling.update(best)
    c.presets.paper = base.preset(count=50, **best)
    c.training.update(
        dict(
            steps=800 * epoch,
            batch_size=2048,
            learning_rate=8e-4,  # 1e-4 per 256 images
            warmup_steps=100 * epoch,
            warmup_start=0.0,
            schedule="constant",
            b2=0.95,
            weight_decay=0.02,
            decay=("*kernel", "*table", "feed/no_pivot", "*/factor", "*/offset", "!head/*"),
            clip_norm=3.0,
            ema_decay=0.9999,
            ema_warmup=False,
            augmented_copies=2,  # the largest square and its mirror image
        )
    )
    return c
