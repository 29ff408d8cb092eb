"""RAR: raster codes learnt in random orders, which anneal to the raster one. arXiv 2411.00776.

    vargen quickstart --config configs/rar.py:digits --workdir runs/rar
    vargen quickstart --config configs/rar.py:pictures32 --workdir runs/mine --config.data.path=~/pictures
    vargen train --config configs/rar.py:b --workdir runs/rar_b --config.data.path=/data/tfds
    vargen import rar --generator rar_b.bin --tokenizer maskgit-vqgan-imagenet-f16-256.bin --out models/rar_b

Checked: logits 2e-5, greedy tokens exact, tokenizer's codes exact (goldens rar, maskgit_vqgan). Published, on ImageNet
256x256: FID 1.95 (B), 1.70 (L), 1.50 (XL), 1.48 (XXL) with the guidance of the preset `paper`, over MaskGIT's VQGAN.
Not trained by us. Parameters of the generator: B 259.3 M, L 459.5 M, XL 952.7 M, XXL 1495.5 M, places in use alone.

The generator's recipe is the authors' (bytedance/1d-tokenizer, configs/training/generator/rar.yaml) over the codes of
ten crops (13 GB); nothing of it is known to differ.

Its tokenizer is taken as MaskGIT's authors trained it. `tokenizer_training` is their recipe (google-research/maskgit,
configs/vqgan_config.py) as far as it goes here: their perceptual loss is on features of a ResNet, here it is LPIPS;
in their discriminator's blocks, StyleGAN's too, the blur halves the picture and is before the skip as well; how they
cut pictures isn't published, and the initial weights of convolutions and codes are ours.
"""

from types import SimpleNamespace as Size

from vargen import config as base
from vargen.config import part

SIZES = dict(
    digits=Size(layers=4, width=128, heads=4, batch=64, steps=(2400, 1500), patch=4, vocab=256),
    pictures32=Size(layers=4, width=192, heads=6, batch=32, steps=(4000, 4000), patch=4, vocab=512),
    pictures64=Size(layers=4, width=192, heads=6, batch=32, steps=(4000, 4000), patch=8, vocab=1024),
    # The paper's; `guidance`, its `power` and `temperature` are those of its FID.
    b=Size(layers=24, width=768, mlp_width=3072, heads=16, temperature=1.0, guidance=16.0, power=2.75),
    l=Size(layers=24, width=1024, mlp_width=4096, heads=16, temperature=1.02, guidance=15.5, power=2.5),
    xl=Size(layers=32, width=1280, mlp_width=5120, heads=16, temperature=1.02, guidance=6.9, power=1.5),
    xxl=Size(layers=40, width=1408, mlp_width=6144, heads=16, temperature=1.02, guidance=8.0, power=1.2),
)


def get_config(size="digits"):
    s = SIZES[size]
    c = base.config()
    c.conditioning = part("label", dropout=0.1, lead=1)
    c.feed = part("shift", positions=True, target_positions=True, step_condition=True)
    c.order = part("random_to_raster", start=0.5, end=0.75)  # epochs 200 and 300 of 400
    c.mixer = part("attention", heads=s.heads, qk_norm="layer", bias="qkv", dropout=0.1)
    c.head = part("categorical", init_std=0.02)
    c.model = dict(layers=s.layers, width=s.width, mlp="gelu", adaptive="adaln", adaln_zero=True, dropout=0.1)
    return paper(c, size, s) if hasattr(s, "guidance") else small(c, size, s)


def small(c, size, s):
    c.name = "RAR"
    c.data = base.small_data(size)
    c.tokenizer = base.small_vq(s.patch, s.vocab)
    c.sampling.update(dict(guidance=1.5))
    base.small(
        c,
        tokenizer=dict(steps=s.steps[0], learning_rate=6e-3),
        generator=dict(steps=s.steps[1], batch_size=s.batch),
    )
    return c


def paper(c, size, s):
    c.name = f"RAR-{size.upper()}"
    c.data = base.imagenet(256, crop="five", crop_range=(1.1,))
    c.conditioning.zero_lead = True
    c.mixer.weight_dropout = 0.1
    c.tokenizer = part(
        "vq",
        encoder=part("pooled"),
        vocab=1024,
        channels=256,
        normalise=False,
        entropy_weight=0.1,
        revive_every=0,
    )
    c.model.update(dict(mlp_width=s.mlp_width, init="normal"))
    c.sampling.update(dict(guidance=4.0))
    c.presets.paper = base.preset(
        count=50,
        rounding="down",
        guidance=s.guidance,
        guidance_schedule="cosine",
        guidance_power=s.power,
        temperature=s.temperature,
    )
    c.presets.demo = base.preset(guidance=4.0)
    c.tokenizer_training.update(
        dict(
            steps=1_000_000,
            batch_size=256,
            learning_rate=1e-4,
            warmup_steps=0,
            schedule="constant",
            b1=0.0,
            b2=0.99,
            clip_norm=0.0,
            ema_decay=0.999,
        )
    )
    losses = dict(l2=1.0, perceptual=0.1, adversarial=0.1, adversarial_kind="non_saturating")
    c.tokenizer_training.losses.update(losses | dict(discriminator=part("stylegan"), r1=10.0))
    c.training.update(
        dict(
            steps=250_000,  # 400 epochs
            batch_size=2048,
            learning_rate=4e-4,
            min_learning_rate=1e-5,
            warmup_steps=62_500,  # 100 epochs
            warmup_start=0.0,
            b2=0.96,
            weight_decay=0.03,
            # In the authors' rule "adaln" holds an "ln", and the first row is no embedding.
            decay=("*kernel", "!blocks_norm/*", "condition/lead"),
            clip_norm=1.0,
            ema_decay=0.0,
            augmented_copies=10,  # five crops and their mirror images
        )
    )
    return c
