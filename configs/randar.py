"""RandAR: codes in random orders, each asked for by its place. arXiv 2412.01827.

    vargen quickstart --config configs/randar.py:digits --workdir runs/randar
    vargen quickstart --config configs/randar.py:pictures32 --workdir runs/mine --config.data.path=~/pictures
    vargen train --config configs/randar.py:l --workdir runs/randar_l --config.data.path=/data/tfds
    vargen import randar --generator randar_0.3b_llamagen_360k_bs_1024_lr_0.0004.safetensors \\
        --tokenizer vq_ds16_c2i.pt --out models/randar_l
    vargen sample --workdir models/randar_l --levels 16,32 --steps 256 --classes 207 \\
        --config.sampling.spatial_guidance=2.5 --config.sampling.guidance_schedule=constant

Checked: logits 2e-5, gradient norms 1e-4; sampling one by one and in parallel: tokens exact, logits 2e-5 (golden
randar). The last draws 512 pixels around the codes of 256, without training on such (the authors': guidance 3, spatial
2.5, one by one, XL; not measured by us).

Published, on ImageNet 256x256 in 88 steps: FID 2.55 (L), 2.25 (XL), 2.15 (XXL) in the paper, 2.65 (L) and 2.27 (XL) for
the files, with the guidance of the preset `paper`, over LlamaGen's VQ-16. Not trained by us. Parameters of the
generator: L 342.9 M, XL 774.7 M, XXL 1411 M.

The generator's recipe is the authors' (ziqipang/RandAR, configs/) over the codes of a picture's middle and its mirror
image (2.6 GB), but for this: they skip an update where the sum of the norms of all gradients reaches 10. XXL has no
config of theirs: its sizes are LlamaGen's. The tokenizer is LlamaGen's, see configs/llamagen.py.
"""

from types import SimpleNamespace as Size

from vargen import config as base
from vargen.config import part

SIZES = dict(
    digits=Size(layers=4, width=128, heads=4, batch=64, steps=(2400, 2500), patch=4, vocab=256),
    pictures32=Size(layers=4, width=192, heads=6, batch=32, steps=(4000, 4000), patch=4, vocab=512),
    pictures64=Size(layers=4, width=192, heads=6, batch=32, steps=(4000, 4000), patch=8, vocab=1024),
    # The paper's.
    l=Size(layers=24, width=1024, heads=16, guidance=3.4),
    xl=Size(layers=36, width=1280, heads=20, guidance=4.0),
    xxl=Size(layers=48, width=1536, heads=24, guidance=4.0),
)


def get_config(size="digits"):
    s = SIZES[size]
    c = base.config()
    c.order = part("random", schedule="cosine_ahead")
    c.feed = part("instruct", dropout=0.1)
    c.mixer = part("attention", heads=s.heads, rope="places", out_bias=False, dropout=0.1)
    c.head = part("categorical", bias=False)
    c.model = dict(
        layers=s.layers, width=s.width, mlp="swiglu", norm="rms", eps=1e-5, bias=False, dropout=0.1
    )
    return paper(c, size, s) if hasattr(s, "guidance") else small(c, size, s)


def small(c, size, s):
    c.name = "RandAR"
    c.data = base.small_data(size)
    c.tokenizer = base.small_vq(s.patch, s.vocab)
    c.model.mlp_width = 3 * s.width
    c.sampling.update(dict(guidance=2.0, guidance_schedule="linear_before"))
    base.small(
        c,
        tokenizer=dict(steps=s.steps[0], learning_rate=6e-3),
        generator=dict(steps=s.steps[1], batch_size=s.batch),
    )
    return c


def paper(c, size, s):
    c.name = f"RandAR-{size.upper()}"
    c.data = base.imagenet(256)
    c.tokenizer = part("vq", encoder=part("conv", hidden=256), vocab=16384, channels=8, revive_every=0)
    # 8/3 of the width, up to the next multiple of 256
    c.model.update(dict(mlp_width=-(-8 * s.width // 3 // 256) * 256, init_std=0.02, init="normal"))
    best = dict(guidance=s.guidance, guidance_schedule="linear_before", steps=88)
    c.sampling.update(best)
    c.presets.paper = base.preset(count=50, **best)
    c.presets.demo = base.preset(guidance=4.0, guidance_schedule="linear_before", steps=88)
    c.training.update(
        dict(
            steps=360_000,
            batch_size=1024,
            learning_rate=4e-4,
            min_learning_rate=2e-5,
            warmup_steps=50_000,
            warmup_start=0.0,
            b2=0.95,
            weight_decay=0.05,
            decay=("*kernel", "*table", "feed/instruction"),
            clip_norm=1.0,
            ema_decay=0.0,
            augmented_copies=2,
            remat="blocks",
        )
    )
    return c
