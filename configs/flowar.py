"""FlowAR: next-scale prediction of latents, a scale drawn at once by flow matching. arXiv 2412.15205.

    vargen quickstart --config configs/flowar.py:digits --workdir runs/flowar
    vargen quickstart --config configs/flowar.py:pictures32 --workdir runs/mine --config.data.path=~/pictures
    vargen train --config configs/flowar.py:s --workdir runs/flowar_s --config.data.path=/data/tfds
    vargen import flowar --generator FlowAR-S.pth --tokenizer kl16.ckpt --out models/flowar_s

Checked: flow network by a float64 formula. Published, on ImageNet 256x256: FID 3.61 (S), 1.90 (L), 1.65 (H) with the
settings of the preset `paper`. Not trained by us. Parameters of the generator with its head, as the sizes of the
authors' files say: S 171.7 M, L 586.9 M, H 1913 M.

The generator's recipe is the authors' (OliverRensu/FlowAR), with the encoder in the loop, but for these: the loss is
the mean over all slots, theirs 341/256 of that; they compute in float32, here it is bfloat16 on accelerators; scales
and shifts of the blocks start at half of Xavier's. The tokenizer is MAR's, see configs/mar.py.
"""

from types import SimpleNamespace as Size

from vargen import config as base
from vargen.config import part

# `layers` of both stacks together; `depth` and `flow`: layers and width of the head's network.
SIZES = dict(
    digits=Size(
        layers=4, width=128, heads=4, batch=64, steps=(1200, 1200), patch=4, channels=8, levels=(1, 2, 4)
    ),
    pictures32=Size(
        layers=4, width=192, heads=6, batch=32, steps=(4000, 3000), patch=4, channels=8, levels=(1, 2, 4, 8)
    ),
    pictures64=Size(
        layers=4, width=192, heads=6, batch=32, steps=(4000, 3000), patch=8, channels=16, levels=(1, 2, 4, 8)
    ),
    # The paper's. `until`: guidance acts at times up to this.
    s=Size(layers=12, width=768, heads=12, depth=2, flow=1024, passes=25, guidance=4.3, until=0.9),
    l=Size(layers=16, width=1024, heads=16, depth=12, flow=1024, passes=25, guidance=2.4, until=0.9),
    h=Size(layers=30, width=1536, heads=16, depth=12, flow=1536, passes=50, guidance=2.4, until=0.7),
)
IMAGES = 1_281_167


def get_config(size="digits"):
    s = SIZES[size]
    c = base.config()
    c.order = part("levels")
    c.feed = part("refine", places="slots_alone", coords="picture", encoder_decoder=True)
    c.mixer = part("attention", heads=s.heads, bias="qkv", rope="places", dropout=0.1)
    c.model = dict(
        layers=s.layers,
        width=s.width,
        mlp="geglu",
        mlp_width=8 * s.width // 3,
        norm="rms",
        affine=False,
        adaptive="adaln",
        final_norm="learned",
        gate_gain=1.0,
        init_std=0.0,
        dropout=0.1,
    )
    # Guidance w at the last scale is 1 + its own t.
    c.sampling.guidance_schedule = "ramp"
    return paper(c, size, s) if hasattr(s, "flow") else small(c, size, s)


def small(c, size, s):
    c.name = "FlowAR"
    c.data = base.small_data(size)
    encoder, loss = part("patch", patch=s.patch, blocks=1), dict(kl_weight=5e-3, measure=True)
    c.tokenizer = part("pyramid_kl", encoder=encoder, levels=s.levels, channels=s.channels, **loss)
    c.model.mlp_width = 3 * s.width
    c.head = part("flow", depth=2, width=s.width, heads=s.heads, sample_steps=25)
    c.sampling.update(guidance=0.5, temperature=0.8)
    tokenizer = dict(steps=s.steps[0], learning_rate=4e-3)
    base.small(c, tokenizer=tokenizer, generator=dict(steps=s.steps[1], batch_size=s.batch))
    return c


def paper(c, size, s):
    epoch = IMAGES // 2048
    c.name = f"FlowAR-{size.upper()}"
    c.data = base.imagenet(256, crop="random", crop_range=(1.125,))
    encoder = part("conv", decoder_attention=False)
    c.tokenizer = part("pyramid_kl", encoder=encoder, levels=(1, 2, 4, 8, 16), channels=16, scale=0.2325)
    c.mixer.weight_dropout = 0.1
    times = "even" if s.passes == 50 else "late"
    c.head = part(
        "flow",
        depth=s.depth,
        width=s.flow,
        cross=s.depth > 2,
        sample_steps=s.passes,
        times=times,
        guidance_until=s.until,
    )
    best = dict(guidance=s.guidance - 1, guidance_schedule="ramp")
    c.sampling.update(best)
    c.presets.paper = base.preset(count=50, **best)
    c.training.update(
        steps=400 * epoch,
        batch_size=2048,
        learning_rate=4e-4,
        min_learning_rate=1e-5,
        warmup_steps=100 * epoch,
        warmup_start=0.0,
        b2=0.95,
        weight_decay=0.02,
        decay=("*kernel", "*table"),
        clip_norm=3.0,
        ema_decay=0.9999,
        ema_warmup=False,
        remat="blocks",
        codes=False,
    )
    return c
