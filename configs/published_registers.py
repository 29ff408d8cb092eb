"""The authors' tokenizers of one-dimensional tokens on ImageNet, 256x256, and LlamaGen's generator of size B over them.

    vargen train --stage tokenizer --config configs/published_registers.py:gigatok_ss --workdir runs/gigatok \
        --config.data.path=/data/tfds --config.tokenizer_training.losses.perceptual_weights=vgg.safetensors \
        --config.tokenizer_training.losses.teacher.weights=dinov2_base.safetensors
    vargen train --stage tokenizer --config configs/published_registers.py:flextok_d12_d12 --workdir runs/flextok \
        --config.data.path=/data/tfds --config.tokenizer.weights=runs/vae/tokenizer/params.safetensors

TiTok's are in configs/titok.py, those of grids in configs/published_tokenizers.py. None was trained by us.

`gigatok_ss`, `_sb`, `_bl`, `_xlxxl`: GigaTok (arXiv 2504.08736; SilentView/GigaTok, configs/vq) of 136 M, 232 M, 622 M
and 2.9 G by its authors' count, for as long as its files. The codes' gradient is turned; for 15,000 updates pixels are
drawn from the latents too, and those drawn towards the encoder's.

`imagefolder`: ImageFolder (arXiv 2410.01756; lxa9867/ImageFolder, configs/MSVR10P2-4096.yaml). It begins at DINOv2-B's
weights, draws the last code's registers towards DINOv2, here the first's, decays its discriminator and drops paths.

`flextok_d12_d12`, `_d18_d18`, `_d18_d28`: FlexTok (arXiv 2502.13967; apple/ml-flextok) over its `flextok_vae_c16`,
`vargen import flextok` for its files. It draws features towards DINOv2-L's too; how it is trained isn't in its code.

`semanticist_b`, `_l`, `_xl`: Semanticist (arXiv 2503.08685; visual-gen/semanticist, configs/tokenizer_*.yaml, B by its
decoder's name alone) over samples of MAR's KL-16, here means; nested, not left out, after 50 epochs, here both at once.
"""

from vargen import config as base
from vargen.config import part

conv = part("conv", encoder_attention=(), decoder_attention=())
teacher = part("dinov2", width=768, heads=12, weights="")
sizes = dict(s=(512, 6, 8), b=(768, 12, 12), l=(1024, 24, 16), xl=(1280, 36, 20), xxl=(1536, 48, 24))
fitting = dict(l2=1.0, perceptual=1.0, adversarial=0.5, adversarial_start=20_000, teacher=teacher)


def sized(width, layers, heads):
    return dict(width=width, layers=layers, heads=heads)


def gigatok(encoder, decoder, **training):
    width, layers, heads = sizes[decoder]
    ends = dict(decoder_width=width, decoder_layers=layers, decoder_heads=heads, shown_after=3)
    ends |= dict(tokens=256, **sized(*sizes[encoder]))
    entropy = 0.005 if encoder == "xl" else 0.0
    tokenizer = part("vq", encoder=part("across", **ends), revive_every=0, entropy_weight=entropy)
    features = dict(semantic=0.5, semantic_at="shown", semantic_hidden=4 * width)
    rate = dict(learning_rate=1e-4, min_learning_rate=1e-5, warmup_steps=0, weight_decay=1e-4, clip_norm=10.0)
    rate |= dict(ema_decay=0.0, crop_range=(1.0, 1.25)) | training
    return dict(tokenizer=tokenizer, training=rate, losses=fitting | features)


def imagefolder():
    ends = dict(tokens=121, square=True, abreast=2, placed=True, anchor=True, patch=16, **sized(*sizes["b"]))
    tokenizer = part("multiscale_product_vq", encoder=part("registers", **ends), revive_every=0)
    features = dict(semantic=0.1, semantic_kind="contrastive", semantic_channels=32, semantic_hidden=0)
    game = dict(adaptive=True, discriminator=part("dino"), discriminator_learning_rate=8e-4, lecam=0.001)
    rate = dict(learning_rate=2.4e-4, min_learning_rate=5e-5, warmup_steps=1251, ema_decay=0.9999)
    rate |= dict(steps=200 * 1251, batch_size=1024, crop_range=(1.0, 1.25))
    game |= dict(augment=("color", "translation", "cutout"), augment_hole=0.2, adversarial_start=56 * 1251)
    losses = fitting | features | game
    return dict(tokenizer=tokenizer, training=rate, losses=losses)


def flextok(encoder, decoder):
    blocks = dict(mlp="swiglu", mlp_ratio=8 / 3, bias=False, qk_norm="layer", affine=False, eps=1e-5)
    told = dict(apart=True, period=256.0, forget_rate=0.1, guidance=7.5, projected=True)
    flow = part("flow", **told, **sized(64 * decoder, decoder, decoder))
    ends = dict(tokens=256, patch=2, sees="causal", nested="powers", dropped="alike", places="axes")
    inner = part("registers", decoder=flow, **ends, **blocks, **sized(64 * encoder, encoder, encoder))
    outer = part("kl", encoder=part(**conv, multipliers=(1, 2, 4, 4)), channels=16)
    tokenizer = part("within", outer=outer, inner=part("fsq", encoder=inner, levels=(8, 8, 8, 5, 5, 5)))
    rate = dict(steps=400_000, batch_size=1024, learning_rate=3e-4, warmup_steps=10_000, weight_decay=0.05)
    return dict(tokenizer=tokenizer, training=rate, losses={})


def semanticist(*decoder):
    told = dict(places="waves", absent="latents", shown_after=8, forget_rate=0.1, guidance=3.0)
    drawn = part("diffusion", patch=2, draws=(16, 16, 16), mlp="gelu_tanh", **told, **sized(*decoder))
    ends = dict(tokens=256, patch=16, sees="causal", nested="uniform", standard=True, unit=True, anchor=True)
    encoder = part("registers", decoder=drawn, **ends, **sized(*sizes["b"]))
    inner = part("kl", encoder=encoder, channels=16, scale=1.0, exact=True)
    outer = part("kl", encoder=part("conv", decoder_attention=False), channels=16, scale=0.2325)
    tokenizer = part("within", outer=outer, inner=inner, reads="pixels")
    features = dict(semantic=1.0, semantic_at="shown", semantic_hidden=2048, teacher=teacher)
    rate = dict(learning_rate=2e-4, warmup_steps=62_500, warmup_start=0.0, weight_decay=0.05, clip_norm=3.0)
    rate |= dict(steps=250_000, batch_size=2048, ema_decay=0.999, ema_warmup=False)
    return dict(tokenizer=tokenizer, training=rate, losses=features, head=part("diffusion", depth=6))


TOKENIZERS = dict(
    gigatok_ss=gigatok("s", "s", steps=1_000_000, batch_size=128),
    gigatok_sb=gigatok("s", "b", steps=2_000_000, batch_size=128),
    gigatok_bl=gigatok("b", "l", steps=1_000_000, batch_size=256),
    gigatok_xlxxl=gigatok("xl", "xxl", steps=1_500_000, batch_size=256, warmup_steps=5_000),
    imagefolder=imagefolder(),
    flextok_d12_d12=flextok(12, 12),
    flextok_d18_d18=flextok(18, 18),
    flextok_d18_d28=flextok(18, 28),
    semanticist_b=semanticist(768, 12, 12),
    semanticist_l=semanticist(1024, 24, 16),
    semanticist_xl=semanticist(1152, 28, 16),
)


def get_config(tokenizer="gigatok_ss"):
    s = TOKENIZERS[tokenizer]
    c = base.config()
    c.name = f"LlamaGen-B over {tokenizer}"
    c.data, c.tokenizer = base.imagenet(256), s["tokenizer"]
    c.tokenizer_training.update(dict(crop="random", crop_range=(1.0,)) | s["training"])
    c.tokenizer_training.losses.update(s["losses"])
    c.order, c.feed = part("raster"), part("shift", dropout=0.1)
    c.head = s.get("head", part("categorical", bias=False))
    if tokenizer == "imagefolder":
        c.order, c.feed, c.head = part("levels"), part("refine"), part("depth", layers=2)
    c.mixer = part("attention", heads=12, rope="places", out_bias=False, dropout=0.1)
    c.model = dict(layers=12, width=768, mlp="swiglu", mlp_width=2048, norm="rms", eps=1e-5)
    c.model.update(bias=False, dropout=0.1)
    c.sampling.guidance = 2.0
    rate = dict(learning_rate=1e-4, warmup_steps=0, schedule="constant", weight_decay=0.05, ema_decay=0.0)
    c.training.update(rate, steps=1_501_200, batch_size=256, decay=("*kernel", "*table"), augmented_copies=2)
    return c
