"""DnD-Transformer: the codes of a slot come one by one between the stages of one pass. arXiv 2410.01912.

    vargen quickstart --config configs/dnd.py:digits --workdir runs/dnd
    vargen quickstart --config configs/dnd.py:pictures32 --workdir runs/mine --config.data.path=~/pictures
    vargen train --config configs/dnd.py:xxl --workdir runs/dnd_xxl --config.data.path=/data/tfds
    vargen import dnd --generator xxl_model.pt --tokenizer FILE.pt --out models/dnd_xxl

Checked: no licence, no golden: by its formulas. Published, on ImageNet 256x256 with two codes a slot: FID 2.58 (xxl,
guidance 2) and 2.21 (xxxl, guidance 1.7). `text` (one code a slot, pictures of text at 384 pixels) and `arxiv` (eight
codes, 256 pixels) have no classes and are drawn at temperature 0.1: --config.data.path names a folder of pictures. Not
trained by us. Parameters of the generator: xxl 1436 M, xxxl 2569 M, text 1372 M, arxiv 1586 M.

The generator's recipe is that of the authors' script (chenllliang/DnD-Transformer) over the codes of ten crops; batch
and number of epochs aren't told there, those here are LlamaGen's. Theirs draws a crop anew at each visit. The RQ-VAE's
sizes are derived from the size of its file, and its training is that of configs/rqtransformer.py, but for the epochs.
"""

from types import SimpleNamespace as Size

from vargen import config as base
from vargen.config import part

SIZES = dict(
    digits=Size(layers=(3, 1), width=128, heads=4, batch=64, steps=(1200, 1600), patch=4, vocab=128),
    pictures32=Size(layers=(2, 1, 1), width=192, heads=6, batch=32, steps=(3000, 8000), patch=4, vocab=512),
    pictures64=Size(layers=(2, 1, 1), width=192, heads=6, batch=32, steps=(4000, 4000), patch=8, vocab=1024),
    # The paper's.
    xxl=Size(layers=(40, 8), width=1536, heads=24, classes=1000, guidance=2.0),
    xxxl=Size(layers=(40, 8), width=2048, heads=32, classes=1000, guidance=1.7),
    text=Size(layers=(48,), width=1536, heads=24, image=384, codes=4096),
    arxiv=Size(layers=(27, 3, 3, 3, 3, 3, 3, 3), width=1536, heads=24),
)
IMAGES = 1_281_167


def get_config(size="digits"):
    s = SIZES[size]
    c = base.config()
    c.order = part("raster")
    c.feed = part("staged", dropout=0.1)
    c.mixer = part("attention", heads=s.heads, rope="places", out_bias=False, dropout=0.1)
    c.head = part("staged")
    sizes = dict(layers=s.layers, width=s.width, final_norm="none")
    c.model = dict(sizes, mlp="swiglu", norm="rms", eps=1e-5, bias=False, dropout=0.1)
    return small(c, size, s) if hasattr(s, "patch") else paper(c, size, s)


def small(c, size, s):
    c.name = "DnD-Transformer"
    c.data = base.small_data(size)
    encoder = part("patch", patch=s.patch, blocks=1)
    c.tokenizer = part("rq", encoder=encoder, vocab=s.vocab, channels=8, depth=len(s.layers))
    c.model.mlp_width = 3 * s.width
    c.sampling.update(dict(guidance=1.5))
    base.small(
        c,
        tokenizer=dict(steps=s.steps[0], learning_rate=6e-3, ema_decay=0.0),
        generator=dict(steps=s.steps[1], batch_size=s.batch),
    )
    return c


def paper(c, size, s):
    classes, epoch = getattr(s, "classes", 0), IMAGES // 256
    c.name = f"DnD-Transformer-{size.upper() if classes else size}"
    c.data = base.imagenet(256, crop="five", crop_range=(1.1,))
    if not classes:
        c.data = base.images("folder", getattr(s, "image", 256), 3, 1)
        c.conditioning = part("label", dropout=None)
    encoder = part("conv", encoder_attention=False, decoder_attention=False)
    vocab = getattr(s, "codes", 16384)
    c.tokenizer = part("rq", encoder=encoder, vocab=vocab, channels=256, depth=len(s.layers))
    # 8/3 of the width, up to the next multiple of 256
    mlp_width = -(-8 * s.width // 3 // 256) * 256
    c.model.update(dict(mlp_width=mlp_width, init_std=0.02, init="normal"))
    best = dict(guidance=s.guidance) if classes else dict(temperature=0.1)
    c.sampling.update(best)
    c.presets.paper = base.preset(count=50, **best)
    c.tokenizer_training.update(
        dict(
            steps=100 * IMAGES // 128,
            batch_size=128,
            learning_rate=4e-5,
            warmup_steps=0,
            schedule="constant",
            b1=0.5,
            b2=0.9,
            clip_norm=0.0,
            ema_decay=0.0,
            crop="random",
        )
    )
    c.tokenizer_training.losses.update(
        dict(l2=1.0, perceptual=1.0, adversarial=0.75, adaptive=True, discriminator=part("patch", layers=2))
    )
    c.training.update(
        dict(
            steps=300 * epoch,
            batch_size=256,
            learning_rate=2e-4,
            warmup_steps=0,
            schedule="constant",
            b2=0.95,
            weight_decay=0.05,
            decay=("*kernel", "*table"),
            clip_norm=1.0,
            ema_decay=0.9999,
            ema_warmup=False,
            augmented_copies=10 if classes else 1,
            remat="blocks",
        )
    )
    return c
