"""LlamaGen: a Llama over VQ codes in raster order. arXiv 2406.06525.

    vargen quickstart --config configs/llamagen.py:digits --workdir runs/llamagen
    vargen quickstart --config configs/llamagen.py:pictures32 --workdir runs/mine --config.data.path=~/pictures
    vargen train --config configs/llamagen.py:b --workdir runs/llamagen_b --config.data.path=/data/tfds

Checked: logits 2e-5 (of captions 1e-4), greedy tokens exact, tokenizer's codes exact (goldens llamagen_gpt_c2i,
llamagen_gpt_gqa, llamagen_gpt_t2i, llamagen_vq). Published, on ImageNet, trained at 256x256: FID 5.46 (B) and 3.80 (L)
with guidance 2.0; at 384x384 (`--config.data.image_size=384`), where the larger ones were published: 2.62 (XL) and 2.34
(XXL) with 1.75, 2.18 (3B) with 1.65. VQ-16 has rFID 2.19 at 256x256. Not trained by us. Parameters of the generator: B
110.9 M, L 343 M, XL 775 M, XXL 1.4 G, 3B 3.1 G.

The generator's recipe is the authors' (FoundationVision/LlamaGen, train_c2i.py; batches and rates from their tracker,
issues 8 and 14) over the codes of twenty views (26 GB), ten crops of 1.05 and ten of 1.1 times the size, but for this:
all views of a picture are seen equally often, theirs drawn anew at each visit. The tokenizer's is theirs
(vq_train.py), but that the discriminator normalises by eight pictures and that its loss isn't halved; the
initial weights of convolutions and codes are ours.

`text256` and `text512` are the two stages of the model of captions, XL over 50 M pictures of LAION-COCO and then 10 M
of the authors' own, with the settings of their scripts. Captions have no loader yet, so that `vargen train` refuses
them; the published weights can be imported. How many epochs a stage took isn't published: here it is one.
"""

from types import SimpleNamespace as Size

from vargen import config as base
from vargen.config import part

SIZES = dict(
    digits=Size(layers=4, width=128, heads=4, batch=64, steps=(2400, 2000), patch=4, vocab=256),
    pictures32=Size(layers=4, width=192, heads=6, batch=32, steps=(3000, 8000), patch=4, vocab=512),
    pictures64=Size(layers=4, width=192, heads=6, batch=32, steps=(4000, 4000), patch=8, vocab=1024),
    # The paper's.
    b=Size(layers=12, width=768, heads=12, guidance=2.0, batch=256, rate=1e-4),
    l=Size(layers=24, width=1024, heads=16, guidance=2.0, batch=256, rate=1e-4),
    xl=Size(layers=36, width=1280, heads=20, guidance=1.75, batch=256, rate=2e-4),
    xxl=Size(layers=48, width=1536, heads=24, guidance=1.75, batch=512, rate=2e-4),
    **{"3b": Size(layers=24, width=3200, heads=32, guidance=1.65, batch=512, rate=2e-4)},
    text256=Size(layers=36, width=1280, heads=20, batch=256, rate=1e-4, image=256, pictures=50_000_000),
    text512=Size(layers=36, width=1280, heads=20, batch=256, rate=1e-4, image=512, pictures=10_000_000),
)
IMAGES = 1_281_167


def get_config(size="digits"):
    s = SIZES[size]
    c = base.config()
    c.order = part("raster")
    c.feed = part("shift", dropout=0.1)
    c.mixer = part("attention", heads=s.heads, rope="places", out_bias=False, dropout=0.1)
    c.head = part("categorical", bias=False)
    c.model = dict(
        layers=s.layers, width=s.width, mlp="swiglu", norm="rms", eps=1e-5, bias=False, dropout=0.1
    )
    if hasattr(s, "pictures"):
        return of_text(paper(c, s), s)
    return of_classes(paper(c, s), size, s) if hasattr(s, "guidance") else small(c, size, s)


def small(c, size, s):
    c.name = "LlamaGen"
    c.data = base.small_data(size)
    c.tokenizer = base.small_vq(s.patch, s.vocab)
    c.model.mlp_width = 3 * s.width
    c.sampling.guidance = 1.5
    tokenizer = dict(steps=s.steps[0], learning_rate=6e-3)
    base.small(c, tokenizer=tokenizer, generator=dict(steps=s.steps[1], batch_size=s.batch))
    return c


def paper(c, s):
    c.tokenizer = part("vq", encoder=part("conv", hidden=256), vocab=16384, channels=8, revive_every=0)
    # 8/3 of the width, up to the next multiple of 256
    c.model.update(mlp_width=-(-8 * s.width // 3 // 256) * 256, init_std=0.02, init="normal")
    both = dict(warmup_steps=0, schedule="constant", b2=0.95, clip_norm=1.0, ema_decay=0.0)
    c.tokenizer_training.update(both, batch_size=128, learning_rate=1e-4, crop="random")
    c.tokenizer_training.steps = 400_360  # 40 epochs
    c.tokenizer_training.losses.update(l2=1.0, perceptual=1.0, adversarial=0.5, adversarial_start=19_999)
    c.training.update(
        both,
        batch_size=s.batch,
        learning_rate=s.rate,
        remat="blocks" if s.layers > 24 or s.width > 3000 else "none",
    )
    c.training.update(weight_decay=0.05, decay=("*kernel", "*table"))
    return c


def of_classes(c, size, s):
    c.name = f"LlamaGen-{size.upper()}"
    c.data = base.imagenet(256, crop="five", crop_range=(1.05, 1.1))
    c.sampling.guidance = s.guidance
    c.presets.paper = base.preset(count=50, labels="random", guidance=s.guidance)
    c.presets.demo = base.preset(guidance=4.0, top_k=2000)
    c.training.steps = 300 * (IMAGES // s.batch)
    c.training.augmented_copies = 20  # two squares, five crops of each, and their mirror images
    return c


def of_text(c, s):
    c.name = "LlamaGen-XL-text"
    c.data = base.imagenet(s.image, flip=False)
    c.data.num_classes = 1
    c.conditioning = part("caption", tokens=120, channels=2048, dropout=0.1)
    c.sampling.update(guidance=7.5, top_k=1000)
    c.presets.demo = base.preset(guidance=7.5, top_k=1000)
    c.tokenizer_training.losses.adversarial_start = 0  # fine-tuned from that of ImageNet
    c.training.update(steps=s.pictures // s.batch, codes=False)
    return c
