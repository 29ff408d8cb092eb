"""The authors' tokenizers of a grid on ImageNet, 256x256, and LlamaGen's generator of size B over them.

    vargen train --stage tokenizer --config configs/published_tokenizers.py:bsq18 --workdir runs/bsq18 \
        --config.data.path=/data/tfds --config.tokenizer_training.losses.perceptual_weights=vgg.safetensors

One-dimensional tokens: configs/published_registers.py. VQ-16, VAR's, MAR's, MaskGIT's, RQ-VAE and TiTok's are in their
systems' configs. None was trained by us; parameters are as many as the authors' (tests/test_published_tokenizers.py).

`llamagen_vq8`: VQ-8 (FoundationVision/LlamaGen, vq_train.py); what differs is as in configs/llamagen.py.

`fsq`: 1000 codes over MaskGIT's VQGAN (arXiv 2309.15505). The paper's code (google-research/fsq) is the quantiser
alone: the recipe is that of MaskGIT's VQGAN, as configs/rar.py has it. The crops are ours.

`bsq18`, `bsq36`: BSQ-ViT (arXiv 2406.07548; zhaoyue-zephyrus/bsq-vit, configs/tokenizer/imagenet_256x256_bsqvit*),
with 32 pictures a device, here of 8: its code doesn't say how many. The entropy's weight is theirs after 2,000
updates, over which it falls from three times as much; their StyleGAN has gains at runtime; what they decode is
clamped. Their bits are one code, here groups of 9. Their configs' commitment weight, 0, does not reach the quantiser,
which takes 0.25 of a sum over channels.

`ibq`, `ibq_262144`: IBQ (arXiv 2412.02692); `open_magvit2`: Open-MAGVIT2 (2409.04410); both TencentARC/SEED-Voken,
configs/*/gpu, on 64 and 32 devices. Their learning rate falls to a tenth, twice, where here it begins to fall in a
line; they fool the discriminator by softplus(-logits), here by the hinge's loss.
Open-MAGVIT2's entropy is of all 2^18 codes, here of two parts of 9 bits.

`hart`: HART's tokenizer (arXiv 2410.10812; mit-han-lab/hart, hart/modules/models/autoencoder). How it was trained, on
OpenImages from VAR's, isn't public: the recipe is that of configs/var.py, and ours.

`vitok_sb`, `vitok_bb`: ViTok S-B/16 and B-B/16 (arXiv 2501.09755), 16 channels. No code is public: the recipe is ours,
and 43 and 86 M parameters an end are the paper's count.
"""

from types import SimpleNamespace as Row

from vargen import config as base
from vargen.config import part

still = dict(warmup_steps=0, schedule="constant", learning_rate=1e-4)
several = part("depth", layers=2)
plain = dict(l2=1.0, perceptual=1.0, adversarial=0.5)
small = dict(perceptual=0.1, adversarial=0.1, adversarial_kind="non_saturating", r1=10.0)


def row(tokenizer, training, losses, head=None, flip=True, crop_range=(1.0,), levels=False):
    return Row(**locals())


def bsq(bits):
    ends = dict(patch=8, width=768, layers=12, heads=12, positions="learned", mlp="gelu", eps=1e-5)
    encoder = part("vit", norm_in=True, out_width=3072, **ends)
    own = dict(channels=bits, groups=bits // 9, beta=0.25 * bits, entropy_weight=0.1, entropy_bits=1)
    rate = dict(learning_rate=1.024e-4, min_learning_rate=0.512e-4, warmup_steps=5000, warmup_start=0.1)
    rate |= dict(steps=1_000_000, batch_size=256, b2=0.99, clip_norm=0.0, ema_decay=0.999)
    rate |= dict(weight_decay=1e-4, decay=("*",))
    losses = small | dict(l1=1.0, l2=0.0, r1_every=16, discriminator_learning_rate=1.024e-4)
    losses |= dict(discriminator=part("stylegan", deviation=4))
    return row(part("bsq", encoder=encoder, **own), rate, losses, several, flip=False)


def seed_voken(tokenizer, epochs, first, head=None):
    rate = still | dict(min_learning_rate=1e-6, schedule="linear", hold=first / epochs)
    rate |= dict(steps=5004 * epochs, batch_size=256, b1=0.5, b2=0.9, clip_norm=0.0, ema_decay=0.999)
    losses = dict(l1=1.0, l2=0.0, perceptual=1.0, adversarial=0.1, lecam=0.05)
    return row(tokenizer, rate, losses, head, flip=False)


def vitok(layers):
    encoder = part("vit", layers=layers, decoder_layers=12)
    losses = plain | dict(adversarial=0.1, adversarial_start=100_000)
    training = dict(steps=200_000, batch_size=1024, learning_rate=1e-4, weight_decay=1e-4, ema_decay=0.9999)
    head = part("diffusion", depth=6, width=1024, sample_steps=100, repeat=4)
    return row(part("kl", encoder=encoder, channels=16, measure=True), training, losses, head)


TOKENIZERS = dict(
    llamagen_vq8=row(
        part("vq", encoder=part("conv", multipliers=(1, 2, 2, 4), hidden=256), revive_every=0),
        still | dict(steps=400_360, batch_size=128, ema_decay=0.0),
        plain | dict(adversarial_start=19_999),
        crop_range=(1.0, 1.25),
    ),
    fsq=row(
        part("fsq", encoder=part("pooled"), levels=(8, 5, 5, 5)),
        still | dict(steps=1_000_000, batch_size=256, b1=0.0, b2=0.99, clip_norm=0.0, ema_decay=0.999),
        small | dict(discriminator=part("stylegan")),
    ),
    bsq18=bsq(18),
    bsq36=bsq(36),
    ibq=seed_voken(part("ibq", encoder=part("conv", blocks=4, hidden=256)), 330, 250),
    ibq_262144=seed_voken(part("ibq", encoder=part("conv", blocks=4, hidden=256), vocab=2**18), 330, 250),
    open_magvit2=seed_voken(part("lfq", encoder=part("adaptive"), groups=2), 270, 200, several),
    hart=row(
        part("hybrid_multiscale", encoder=part("conv", width=160, projection=3)),
        dict(steps=400_000, batch_size=768, learning_rate=1e-4, warmup_steps=5_000, weight_decay=0.05),
        plain | dict(adversarial_start=20_000),
        levels=True,
    ),
    vitok_sb=vitok(6),
    vitok_bb=vitok(12),
)


def get_config(tokenizer="llamagen_vq8"):
    s = TOKENIZERS[tokenizer]
    c = base.config()
    c.name = f"LlamaGen-B over {tokenizer}"
    c.data = base.imagenet(256, flip=s.flip)
    c.tokenizer = s.tokenizer
    c.tokenizer_training.update(s.training, crop="random", crop_range=s.crop_range)
    c.tokenizer_training.losses.update(s.losses)
    c.order, c.feed = part("raster"), part("shift", dropout=0.1)
    if s.levels:
        c.order, c.feed = part("levels"), part("refine")
    c.mixer = part("attention", heads=12, rope="places", out_bias=False, dropout=0.1)
    c.head = s.head or part("categorical", bias=False)
    c.model = dict(layers=12, width=768, mlp="swiglu", mlp_width=2048, norm="rms", eps=1e-5)
    c.model.update(bias=False, dropout=0.1)
    c.sampling.guidance = 2.0
    c.training.update(still, steps=1_501_200, batch_size=256, weight_decay=0.05, ema_decay=0.0)
    c.training.update(decay=("*kernel", "*table"), augmented_copies=2)
    return c
