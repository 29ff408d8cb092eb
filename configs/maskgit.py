"""MaskGIT: all that is unknown is drawn at once, and the surest of it kept. arXiv 2202.04200.

    vargen quickstart --config configs/maskgit.py:digits --workdir runs/maskgit
    vargen quickstart --config configs/maskgit.py:pictures32 --workdir runs/mine --config.data.path=~/pictures
    vargen train --config configs/maskgit.py:imagenet256 --workdir runs/maskgit --config.data.path=/data/tfds
    vargen import maskgit --generator maskgit_imagenet256_checkpoint --tokenizer tokenizer_imagenet256_checkpoint \\
        --out models/maskgit

Checked: logits 2e-5; tokens and masks of four runs exact (goldens maskgit, maskgit_vqgan). Published, on ImageNet: FID
6.18 in 8 steps at 256 pixels, 7.32 in 12 at 512, without guidance, which it hasn't learnt. Not trained by us.
Parameters of the generator: imagenet256 172.5 M, imagenet512 173.0 M; the paper's 227 M count the tokenizer's 54.5 M.

What is published of the authors' training (google-research/maskgit) is its config and its loss, which this follows. Not
known are the range of their crops, which parameters decay, and whether gradients are clipped: those are ours. Attention
has 16 heads as in their code, where the paper says 8. They drop nothing between the two layers of a block's MLP, here a
tenth of it.

The tokenizer, and its training, are those of configs/rar.py. Editing a picture begins at the third of 12 steps in
their notebook: --config.order.skipped=2 --config.sampling.steps=12.
"""

from types import SimpleNamespace as Size

from vargen import config as base
from vargen.config import part

SIZES = dict(
    digits=Size(layers=4, width=128, heads=4, batch=64, steps=(2400, 2500), patch=4, vocab=256),
    pictures32=Size(layers=4, width=192, heads=6, batch=32, steps=(4000, 4000), patch=4, vocab=512),
    pictures64=Size(layers=4, width=192, heads=6, batch=32, steps=(4000, 4000), patch=8, vocab=1024),
    # The paper's.
    imagenet256=Size(layers=24, width=768, heads=16, image=256, decoding=8),
    imagenet512=Size(layers=24, width=768, heads=16, image=512, decoding=12),
)


def get_config(size="digits"):
    s = SIZES[size]
    c = base.config()
    c.conditioning = part("label", dropout=None)
    c.feed = part(
        "mask",
        encoder_decoder=False,
        buffer=1,
        eps=1e-12,
        target_positions=False,
        counts="pictures",
        dropout=0.1,
    )
    c.mixer = part("attention", heads=s.heads, bias="qkv", dropout=0.1, weight_dropout=0.1)
    c.head = part("masked_lm", label_smoothing=0.1)
    c.model = dict(
        layers=s.layers,
        width=s.width,
        mlp_width=4 * s.width,
        norm_position="post",
        eps=1e-12,
        dropout=0.1,
    )
    return paper(c, s) if hasattr(s, "image") else small(c, size, s)


def small(c, size, s):
    c.name = "MaskGIT"
    c.data = base.small_data(size)
    c.tokenizer = base.small_vq(s.patch, s.vocab)
    c.order = part("confidence", steps=8, noise=2.0)
    base.small(
        c,
        tokenizer=dict(steps=s.steps[0], learning_rate=6e-3),
        generator=dict(steps=s.steps[1], batch_size=s.batch),
    )
    return c


def paper(c, s):
    c.name = f"MaskGIT-{s.image}"
    c.data = base.imagenet(s.image, crop="random")
    c.tokenizer = part(
        "vq",
        encoder=part("pooled"),
        vocab=1024,
        channels=256,
        normalise=False,
        entropy_weight=0.1,
        revive_every=0,
    )
    c.order = part("confidence", steps=s.decoding)
    c.presets.paper = base.preset(count=50, steps=s.decoding)
    c.training.update(
        dict(
            steps=1_500_000,  # 300 epochs
            batch_size=256,
            learning_rate=1e-4,
            warmup_steps=5000,
            schedule="constant",
            b2=0.96,
            weight_decay=0.045,
            decay=("*kernel", "*table", "feed/mask"),
            clip_norm=0.0,
            ema_decay=0.999,
            codes=False,
        )
    )
    return c
