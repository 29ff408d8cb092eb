"""RQ-Transformer: a slot holds several codes, each of what the ones before it left. arXiv 2203.01941.

    vargen quickstart --config configs/rqtransformer.py:digits --workdir runs/rqtransformer
    vargen quickstart --config configs/rqtransformer.py:pictures32 --workdir runs/mine --config.data.path=~/pictures
    vargen train --config configs/rqtransformer.py:480m --workdir runs/rq_480m --config.data.path=/data/tfds
    vargen import rqtransformer --generator stage2/model.pt --tokenizer stage1/model.pt --out models/rq_480m

Checked: logits 2e-5, codes and runs exact (goldens rqtransformer, rqvae). Published, on ImageNet 256x256, in the
authors' README: FID 15.72 (480m), 13.11 (821m), 11.56 (1.4b), and over an RQ-VAE of 50 epochs 8.71 (1.4b) and 7.55
(3.8b); against the training set, top-p 0.92, no guidance. `ffhq` (10.38), `church` (7.45), `cat` (8.64) and `bedroom`
(3.04) have no classes: --config.data.path names a folder of pictures. Not trained by us. Parameters of the generator:
480m 480.9 M, 821m 820.9 M, 1.4b 1387.5 M, 3.8b 3822.5 M; of the RQ-VAE 104.4 M, and a size and a sum for each code.

The RQ-VAE's recipe is the authors' (kakaobrain/rq-vae-transformer, main_stage1), but that the discriminator normalises
by eight pictures, that its loss has no weight of its own, and that FFHQ's pictures aren't cut at random. The
generator's is that of their configs; its training code isn't published. Theirs drops nothing inside the MLP.
"""

from types import SimpleNamespace as Size

from vargen import config as base
from vargen.config import part

SIZES = dict(
    digits=Size(
        layers=3, head=1, width=96, heads=4, batch=64, steps=(1200, 1600), patch=4, vocab=128, depth=2
    ),
    pictures32=Size(
        layers=4, head=2, width=192, heads=6, batch=32, steps=(3000, 2000), patch=4, vocab=512, depth=3
    ),
    pictures64=Size(
        layers=4, head=2, width=192, heads=6, batch=32, steps=(3000, 2000), patch=8, vocab=1024, depth=4
    ),
    # The paper's; the last of `epochs` are the generator's, over as many `images`.
    **{
        "480m": Size(layers=12, head=4, width=1536, heads=24, classes=1000, epochs=(10, 100)),
        "821m": Size(layers=24, head=4, width=1536, heads=24, classes=1000, epochs=(10, 100)),
        "1.4b": Size(layers=42, head=6, width=1536, heads=24, classes=1000, epochs=(10, 100)),
        "3.8b": Size(layers=42, head=6, width=2560, heads=40, classes=1000, epochs=(50, 100)),
    },
    ffhq=Size(
        layers=24, head=4, width=1024, heads=16, batch=128, images=70_000, epochs=(150, 200), vocab=2048
    ),
    church=Size(layers=24, head=4, width=1024, heads=16, batch=256, images=126_227, epochs=(1, 300)),
    cat=Size(layers=26, head=4, width=1280, heads=20, images=1_657_266, epochs=(1, 100)),
    bedroom=Size(layers=26, head=4, width=1280, heads=20, images=3_033_042, epochs=(1, 100)),
)


def get_config(size="digits"):
    s = SIZES[size]
    c = base.config()
    c.order = part("raster")
    c.feed = part("shift", positions=True, vectors=True)
    c.mixer = part("attention", heads=s.heads, bias="qkv", dropout=0.1)
    c.head = part("depth", layers=s.head)
    c.model = dict(layers=s.layers, width=s.width, mlp="gelu", eps=1e-5, final_norm="none", dropout=0.1)
    return small(c, size, s) if hasattr(s, "patch") else paper(c, size, s)


def small(c, size, s):
    c.name = "RQ-Transformer"
    c.data = base.small_data(size)
    encoder = part("patch", patch=s.patch, blocks=1)
    c.tokenizer = part("rq", encoder=encoder, vocab=s.vocab, channels=8, depth=s.depth)
    c.sampling.update(dict(guidance=1.5))
    base.small(
        c,
        tokenizer=dict(steps=s.steps[0], learning_rate=6e-3, ema_decay=0.0),
        generator=dict(steps=s.steps[1], batch_size=s.batch),
    )
    return c


def paper(c, size, s):
    usual = dict(classes=0, batch=2048, images=1_281_167, vocab=16384)
    classes, batch, images, vocab = (getattr(s, name, value) for name, value in usual.items())
    c.name = f"RQ-Transformer-{size.upper() if classes or size == 'ffhq' else 'LSUN'}"
    c.data = base.images("folder", 256, 3, 1, flip=True, crop="center")
    if classes:
        c.data = base.imagenet(256, crop="random", crop_range=(1.0, 1.0))
    attention = dict(encoder_attention=(4,), decoder_attention=(4,)) if size == "ffhq" else {}
    encoder = part("conv", multipliers=(1, 1, 2, 2, 4, 4), **attention)
    c.tokenizer = part("rq", encoder=encoder, vocab=vocab, channels=256, temperature=0.5)
    c.conditioning = part("label", dropout=None)
    c.model.update(dict(init_std=0.02, init="normal"))
    best = dict(top_p=0.92) if classes else dict(top_k=250)
    c.sampling.update(best)
    c.presets.paper = base.preset(count=50, **best)
    c.tokenizer_training.update(
        dict(
            steps=s.epochs[0] * images // 128,
            batch_size=128,
            learning_rate=4e-5,
            warmup_steps=5 * images // 128 if size == "ffhq" else images // 256 if classes else 0,
            schedule="constant",
            b1=0.5,
            b2=0.9,
            clip_norm=0.0,
            ema_decay=0.0,
        )
    )
    c.tokenizer_training.losses.update(
        dict(l2=1.0, perceptual=1.0, adversarial=0.75, adaptive=True, discriminator=part("patch", layers=2))
    )
    c.training.update(
        dict(
            steps=s.epochs[1] * (images // batch),
            batch_size=batch,
            learning_rate=5e-4,
            warmup_steps=0,
            b2=0.95,
            weight_decay=1e-4,
            clip_norm=1.0,
            ema_decay=0.0,
            codes=False,
            remat="blocks",
        )
    )
    return c
