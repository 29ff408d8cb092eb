"""D-AR's tokenizer of one-dimensional tokens on ImageNet, 256x256, and the authors' generators over it.

    vargen train --stage tokenizer --config configs/published_drawn.py:dar --workdir runs/dar \
        --config.data.path=/data/tfds --config.tokenizer_training.losses.perceptual_weights=vgg.safetensors \
        --config.tokenizer_training.losses.teacher.weights=dinov2_base.safetensors
    vargen import dar --generator D-AR-L-360K.pt --tokenizer D-AR-tokenizer_v1.pt --out models/dar_l
    vargen sample --workdir models/dar_l --classes 207 --tokens 64

Others are in configs/published_registers.py. None was trained by us; the published files have rFID 1.52, and FID 2.44
(L) and 2.09 (XL).

D-AR (arXiv 2505.23660; showlab/D-AR, configs/tokenizer_v1.yaml): 256 registers in eight groups, each of which decides
one of eight steps from noise to a picture, so that any number of groups is a picture, which the last command shows of
two. `dar` is under LlamaGen's generator of size L, `dar_xl` of XL, with rotary positions along the sequence; guidance
rises from 1.2 at the first token to 8 at the last, as in the authors' script for L.

What differs: their losses of codes count registers up to the group that is drawn, here all; their features are averaged
to the teacher's 16x16 places, here the teacher's are interpolated to 32x32. How long the tokenizer was trained isn't
told. The generator's recipe is the default of their code; the published files are of 360,000 updates.
"""

from vargen import config as base
from vargen.config import part

WIDTH, HEADS = 768, 12  # of the tokenizer
SIZES = dict(
    dar=dict(name="D-AR-L", layers=24, width=1024, heads=16, mlp_width=2816),
    dar_xl=dict(name="D-AR-XL", layers=36, width=1280, heads=20, mlp_width=3584),
)


def tokenizer():
    decoder = part(
        "flow",
        layers=12,
        patch=8,
        steps=8,
        groups=8,
        release="window",
        told_layers=8,
        looks="across",
        shown_after=8,
        solver="adams",
        shift=2.0,
        scale=0.6,
        frequencies=WIDTH,
        counts="up",
    )
    encoder = part(
        "registers",
        tokens=256,
        patch=16,
        sees="causal",
        rank=8,
        norm_patches=True,
        latent_bias=False,
        places="rotary_patches",
        width=WIDTH,
        layers=8,
        heads=HEADS,
        mlp="silu",
        qk_norm="layer",
        outer_affine=False,
        gates=True,
        decoder=decoder,
    )
    return part("vq", encoder=encoder, vocab=16384, channels=8, revive_every=0)


def get_config(size="dar"):
    s = SIZES[size]
    c = base.config()
    c.name = s["name"]
    c.data, c.tokenizer = base.imagenet(256), tokenizer()
    c.order, c.feed = part("raster"), part("shift", dropout=0.1)
    c.mixer = part("attention", heads=s["heads"], rope="sequence", out_bias=False, dropout=0.1)
    c.head = part("categorical", bias=False)
    sizes = {name: s[name] for name in ("layers", "width", "mlp_width")}
    c.model = dict(**sizes, mlp="swiglu", norm="rms", eps=1e-5, bias=False, dropout=0.1)
    # By the share of tokens before each, of which the last is 255 of 256.
    rising = dict(guidance_schedule="linear_before", guidance_start=1.2, guidance=1.2 + 6.8 * 256 / 255)
    c.sampling.update(rising)
    c.presets.paper = base.preset(count=50, labels="random", **rising)
    rate = dict(learning_rate=2e-4, warmup_steps=500, weight_decay=0.0, schedule="constant", b2=0.95)
    c.tokenizer_training.update(rate, steps=400_000, batch_size=512, ema_decay=0.999, ema_warmup=False)
    c.tokenizer_training.update(crop="random", crop_range=(1.0, 1.25))
    teacher = part("dinov2", width=768, heads=12, weights="")
    losses = dict(perceptual=0.5, semantic=0.5, semantic_at="shown", semantic_hidden=2048, teacher=teacher)
    c.tokenizer_training.losses.update(losses)
    rate = dict(learning_rate=1e-4, warmup_steps=0, schedule="constant", weight_decay=0.05, ema_decay=0.0)
    c.training.update(rate, steps=1_501_200, batch_size=256, decay=("*kernel", "*table"), augmented_copies=2)
    return c
