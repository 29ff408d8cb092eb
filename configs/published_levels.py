"""The authors' tokenizers of levels of registers on ImageNet, 256x256, and a generator that draws a level a step.

    vargen train --stage tokenizer --config configs/published_levels.py:restok --workdir runs/restok \
        --config.data.path=/data/tfds --config.tokenizer_training.losses.perceptual_weights=vgg.safetensors \
        --config.tokenizer_training.losses.teacher.weights=dinov2_large.safetensors

The others of one dimension are in configs/published_registers.py. None was trained by us.

`restok`: ResTok of 662 M (arXiv 2601.03955; Kwai-Kolors/ResTok, configs/training/ResTok/restok_l_128.yaml), LlamaGen-L
over it. Its teacher is DINOv3-L, which is no part here and whose weights can't be had without signing its licence: in
its place stands DINOv2-L. Losses of codes count every level alike, theirs every code, and they augment what the
discriminator sees half of the time alone. Their generator draws the first four registers one by one (9 steps), of which
two are one level here (8), and half of a level's inputs there are learned rows, here all are contents drawn before.
"""

from vargen import config as base
from vargen.config import part


def restok():
    sizes = dict(width=1024, layers=24, heads=16)
    blocks = dict(norm_in=True, places="rotary", qk_norm="layer", key_bias=False, eps=1e-5, **sizes)
    levels = dict(tokens=(1, 1, 2, 4, 8, 16, 32, 64), sees="levels", nested="levels")
    levels |= dict(nested_least=4, nested_rate=0.2, dropped="latent", begins="residuals", stages=4)
    levels |= dict(finer="residuals", apart=True, scrambled=True)
    ends = dict(patch=16, stem=part("pooled", standard=True), decoder=part("direct", taught=True))
    tokenizer = part("vq", encoder=part("registers", **ends, **levels, **blocks), vocab=8192, channels=8)
    tokenizer.revive_every = 0
    rate = dict(learning_rate=1e-4, min_learning_rate=1e-5, warmup_steps=5_000, weight_decay=1e-4)
    rate |= dict(clip_norm=10.0, ema_decay=0.9999, steps=1_000_000, batch_size=256, crop_range=(1.0, 1.25))
    teacher = part("dinov2", width=1024, layers=24, heads=16, side=224, weights="")
    # Its pixels lie from 0 to 1: their squared errors are a quarter of ours.
    losses = dict(l2=0.25, perceptual=1.0, adversarial=0.5, adversarial_start=20_000, lecam=0.001)
    losses |= dict(discriminator=part("dino"), augment=("color", "translation", "cutout"), augment_hole=0.2)
    losses |= dict(semantic=1.0, semantic_at="taught", semantic_whole_at="encoder/merged")
    losses |= dict(semantic_margin=0.25, semantic_hidden=0, teacher=teacher)
    return dict(tokenizer=tokenizer, training=rate, losses=losses)


TOKENIZERS = dict(restok=restok())


def get_config(tokenizer="restok"):
    s = TOKENIZERS[tokenizer]
    c = base.config()
    c.name = f"LlamaGen-L over {tokenizer}"
    c.data, c.tokenizer = base.imagenet(256), s["tokenizer"]
    c.tokenizer_training.update(dict(crop="random") | s["training"])
    c.tokenizer_training.losses.update(s["losses"])
    c.order, c.feed = part("levels"), part("shift", dropout=0.1, target_positions=True)
    c.head = part("categorical", bias=False)
    c.mixer = part("attention", heads=16, rope="sequence", out_bias=False, dropout=0.1)
    c.model = dict(layers=24, width=1024, mlp="swiglu", mlp_width=2816, norm="rms", eps=1e-5)
    c.model.update(bias=False, dropout=0.1)
    c.sampling.update(guidance=3.75, top_p=0.95)
    rate = dict(learning_rate=1e-4, min_learning_rate=1e-5, warmup_steps=5_000, weight_decay=0.05)
    c.training.update(rate, steps=1_500_000, batch_size=256, decay=("*kernel", "*table"), ema_decay=0.9999)
    return c
