"""TiTok: a picture in 32 to 128 one-dimensional tokens, and MaskGIT over them. arXiv 2406.07550.

    vargen quickstart --config configs/titok.py:digits --workdir runs/titok
    vargen quickstart --config configs/titok.py:pictures32 --workdir runs/mine --config.data.path=~/pictures
    vargen train --config configs/titok.py:b64 --workdir runs/titok_b64 --config.data.path=/data/tfds
    vargen import titok --generator generator_titok_l32.bin --tokenizer tokenizer_titok_l32.bin --out models/titok_l32

Checked: latents, logits, pixels 2e-5, gradient norms 1e-4, codes and three runs of each generator exact (goldens
titok_bert, titok_kl, titok_proxies, titok_uvit, titok_vq). Published, on ImageNet 256x256: FID 2.77 (L-32), 2.48
(B-64), 1.97 (S-128); the tokenizers have rFID 2.21, 1.70 and 1.71. Not trained by us. Parameters of the generator: l32
177.2 M, b64 177.2 M, s128 295.0 M, as in the authors' code; the paper says 287 M of S-128's, without the tables at its
ends about what a U-ViT-L has.

L-32's and B-64's is a BERT, that of S-128 a U-ViT, whose later blocks take what the earlier ones gave too. Its authors
count twenty layers without the one in the middle.

The recipes are those of the authors' code (bytedance/1d-tokenizer, configs/training), but for this. They train a
tokenizer in two stages, a million updates to the codes of MaskGIT's VQGAN and then half a million of the decoder alone,
begun from that VQGAN's, to pixels. Here all of it is trained to pixels for as long as both, with the losses of the
second, whose perceptual network is LPIPS's in the place of ConvNeXt's. Their linear guidance, which grows by w / T a
step, is a ramp to its last value here.
"""

from types import SimpleNamespace as Size

from vargen import config as base
from vargen.config import part

SIZES = dict(
    digits=Size(layers=4, width=128, heads=4, batch=64, steps=(1500, 1500), tokens=16, patch=4, vit=(64, 3, 2)),
    pictures32=Size(layers=4, width=192, heads=6, batch=32, steps=(4000, 4000), tokens=32, patch=4, vit=(128, 4, 4)),
    pictures64=Size(layers=4, width=192, heads=6, batch=32, steps=(4000, 4000), tokens=64, patch=8, vit=(128, 4, 4)),
    # The paper's.
    l32=Size(layers=24, width=768, heads=16, tokens=32, vit=(1024, 24, 16), noise=9.5, guidance=4.5 * 7 / 8),
    b64=Size(layers=24, width=768, heads=16, tokens=64, vit=(768, 12, 12), noise=11.0, guidance=3.0 * 7 / 8),
    s128=Size(layers=21, width=1024, heads=16, tokens=128, vit=(512, 8, 8), noise=2.8, guidance=6.9, skips=True),
)  # fmt: skip


def get_config(size="digits"):
    s = SIZES[size]
    c = base.config()
    c.order = part("confidence", steps=8, curve="arccos", noise=2.0, masks="rounded", by="logit")
    c.feed = part("mask", encoder_decoder=False, buffer=1, target_positions=False, known_weight=0.1)
    c.conditioning = part("label", dropout=0.1)
    c.mixer = part("attention", heads=s.heads)
    c.head = part("categorical", label_smoothing=0.1)
    c.model = dict(layers=s.layers, width=s.width, mlp="gelu", mlp_width=4 * s.width)
    if hasattr(s, "skips"):  # a U-ViT
        c.feed.norm = False
        c.model.update(dict(eps=1e-5, skips=True))
    else:  # a BERT
        c.feed.update(dict(eps=1e-12, dropout=0.1))
        c.mixer.update(dict(bias="qkv", dropout=0.1, weight_dropout=0.1))
        c.model.update(dict(norm_position="post", eps=1e-12, dropout=0.1))
    width, layers, heads = s.vit
    encoder = dict(tokens=s.tokens, anchor=True, norm_in=True, width=width, layers=layers, heads=heads)
    return paper(c, size, s, encoder) if hasattr(s, "noise") else small(c, size, s, encoder)


def small(c, size, s, encoder):
    c.name = "TiTok"
    c.data = base.small_data(size)
    encoder = part("registers", patch=s.patch, decoder=part("direct"), **encoder)
    c.tokenizer = base.small_vq(s.patch, 256)
    c.tokenizer.encoder = encoder
    base.small(
        c,
        tokenizer=dict(steps=s.steps[0], learning_rate=1e-3),
        generator=dict(steps=s.steps[1], batch_size=s.batch),
    )
    return c


def paper(c, size, s, encoder):
    c.name = f"TiTok-{size[0].upper()}-{s.tokens}"
    c.data = base.imagenet(256)
    decoder = part("direct", codes=1024, pixels=part("pooled"))
    encoder = part("registers", patch=16, scrambled=True, unit=True, eps=1e-5, decoder=decoder, **encoder)
    c.tokenizer = part("vq", encoder=encoder, vocab=4096, channels=12, normalise=True, revive_every=0)
    c.order.update(dict(noise=s.noise, softness=(1.3, 0.5)))
    rise = dict(guidance_schedule="ramp")
    if hasattr(s, "skips"):
        c.order.steps, rise = 64, dict(guidance_schedule="cosine", guidance_power=3.0)
    c.presets.paper = base.preset(count=50, guidance=s.guidance, **rise)
    both = dict(
        min_learning_rate=1e-5, warmup_steps=10_000, schedule="cosine", clip_norm=1.0, ema_decay=0.999
    )
    c.tokenizer_training.update(both, steps=1_500_000, batch_size=256, learning_rate=1e-4, b2=0.999)
    c.tokenizer_training.update(weight_decay=1e-4, decay=("*kernel", "!*rows_in/kernel"))
    c.tokenizer_training.update(crop="random", crop_range=(1.0,))
    # Theirs are of pixels from 0 to 1, whose squared errors are a fourth.
    losses = dict(l2=0.25, perceptual=0.1, adversarial=0.01, adversarial_start=1_020_000, lecam=1e-3)
    c.tokenizer_training.losses.update(losses)
    c.training.update(both, steps=500_000, batch_size=2048, learning_rate=2e-4, b2=0.96, weight_decay=0.03)
    c.training.augmented_copies = 2  # the middle and its mirror image
    return c
