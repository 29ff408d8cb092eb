"""HMAR: next-scale prediction by the image so far alone, and masked prediction inside a scale. arXiv 2506.04421.

    vargen quickstart --config configs/hmar.py:digits --workdir runs/hmar
    vargen train --from runs/hmar --config configs/hmar.py:digits_masked --workdir runs/hmar_masked
    vargen train --config configs/hmar.py:d16 --workdir runs/hmar_d16 --config.data.path=/data/tfds
    vargen train --from runs/hmar_d16 --config configs/hmar.py:d16_masked --workdir runs/hmar_d16_masked \\
        --config.data.path=/data/tfds
    vargen import hmar --generator hmar-d16.pth --tokenizer vae_ch160v4096z32.pth --out models/hmar_d16
    vargen sample --workdir models/hmar_d16 --classes 207 \\
        --config.sampling.schedule="((1,),(4,),(9,),(16,),(25,),(36,),(64,),(100,),(169,),(64,192))"

Checked: no licence for a golden: by its formulas, logits 1e-4. Two stages. The first is VAR whose rows see their own
scale alone, with losses weighted by scale; the second begins with it, freezes all, and trains a copy of its last eight
blocks and of its head (and a mask) to predict masked slots. The schedule says how many slots of a scale each pass
keeps; any will do, without training. Published, on ImageNet 256x256 in 14 passes: FID 3.01 (d16), 2.50 (d20), 2.10
(d24), 1.95 (d30); 512x512: 2.99 (d24_512). Not trained by us. Parameters after the second stage: d16_masked 467.7 M,
d20_masked 845.5 M, d24_masked 1384.3 M, d30_masked 2556.3 M (the paper's numbers are 465 M, 840 M, 1.3 B and 2.4 B).

The recipe is the authors' (NVlabs/HMAR), but for these: theirs masks the same places in all pictures of a device, here
each picture has its own, which has the same law; they compute in float16 with a scaled loss, here it is bfloat16. The
tokenizer is VAR's, whose training is that of configs/var.py. The digits' two stages are ours.
"""

from types import SimpleNamespace as Size

from vargen import config as base
from vargen.config import part

SIZES = dict(
    digits=Size(
        layers=2, end=2, width=128, heads=4, batch=64, steps=(2400, 1000, 500), patch=4, vocab=128, levels=(1, 2, 3, 4),
    ),
    pictures32=Size(
        layers=2, end=2, width=192, heads=6, batch=32, steps=(3000, 3000, 1500), patch=4, vocab=512,
        levels=(1, 2, 3, 4, 6, 8),
    ),
    pictures64=Size(
        layers=2, end=2, width=192, heads=6, batch=32, steps=(3000, 3000, 1500), patch=8, vocab=1024,
        levels=(1, 2, 3, 4, 6, 8),
    ),
    # The paper's. Learning rates are per 256 images, `last` their last share; `decay` is what weight decay ends at.
    d16=Size(depth=16, batch=768, epochs=200, rate=1e-4, last=0.1, decay=0.05, gate=1e-3, guidance=1.7, top_k=1000),
    d20=Size(depth=20, batch=768, epochs=250, rate=1e-4, last=0.1, decay=0.05, gate=1e-3, guidance=1.9, top_k=950),
    d24=Size(depth=24, batch=768, epochs=350, rate=8e-5, last=0.01, decay=0.05, gate=1e-4, guidance=2.1, top_k=900),
    d30=Size(depth=30, batch=1024, epochs=350, rate=8e-5, last=0.01, decay=0.08, gate=1e-5, guidance=1.6, top_k=650),
)  # fmt: skip
SIZES["d24_512"] = Size(**vars(SIZES["d24"]), image=512, levels=(1, 2, 3, 4, 6, 9, 13, 18, 24, 32))
SIZES |= {f"{name}_masked": Size(**vars(s), masked=True) for name, s in SIZES.items()}
PAPER = dict(image=256, levels=(1, 2, 3, 4, 5, 6, 8, 10, 13, 16), end=8)
# Slots that each pass keeps, by the side of the scale; scales that aren't here take one pass.
PASSES = {2: (1, 3), 3: (1, 1, 2, 5)}
IMAGES = 1_281_167


def get_config(size="digits"):
    s = SIZES[size]
    masked, s = hasattr(s, "masked"), Size(**PAPER | vars(s)) if hasattr(s, "depth") else s
    c = base.config()
    c.order = part("levels")
    c.feed = part("branched", level_weights="lognorm")
    c.mixer = part("attention", qk_norm="l2", bias="qv")
    layers = (s.depth - s.end if hasattr(s, "depth") else s.layers, s.end)
    if masked:
        passes = PASSES | ({4: (5, 11)} if s.levels[-1] == 32 else {})
        c.sampling.schedule = tuple(passes.get(n, (n * n,)) for n in s.levels)
        c.order = part("masked_levels")
        c.feed = part("branched", masked=True)
        layers += (s.end,)
    c.model = dict(layers=layers, adaptive="adaln", affine=False, init_std=-1.0, depth_scaled_init=True)
    c.tokenizer = part("multiscale_vq", levels=s.levels)
    c = paper(c, size, s, masked) if hasattr(s, "depth") else small(c, size, s, masked)
    if masked:
        c.training.trained = ("masked*", "feed/mask")
    return c


def small(c, size, s, masked):
    c.name = "HMAR"
    c.data = base.small_data(size.removesuffix("_masked"))
    encoder = part("patch", patch=s.patch, blocks=1)
    options = dict(codebook_weight=0.1, beta=0.02, entropy_weight=0.02, revive_every=25)
    c.tokenizer.update(dict(encoder=encoder, vocab=s.vocab, channels=16, **options))
    c.mixer.heads = s.heads
    c.head = part("categorical", init_std=0.001)
    c.model.update(dict(width=s.width, dropout=0.1))
    c.sampling.update(dict(guidance=1.5, guidance_schedule="ramp"))
    base.small(
        c,
        tokenizer=dict(steps=s.steps[0], learning_rate=4e-3),
        generator=dict(steps=s.steps[1 + masked], batch_size=s.batch),
    )
    return c


def paper(c, size, s, masked):
    steps = (100 if masked else s.epochs) * -(-IMAGES // s.batch)
    c.name = f"HMAR-{size.removesuffix('_masked')}"
    # Squares of a picture scaled to 1.125 of the size, never mirrored.
    c.data = base.imagenet(s.image, flip=False, crop="random", crop_range=(1.125,), filter="lanczos")
    c.tokenizer.update(dict(encoder=part("conv", width=160, projection=3), vocab=4096, channels=32))
    c.mixer.heads = s.depth
    c.head = part("categorical", init_std=0.02 * (1 / (3 * 64 * s.depth)) ** 0.5)
    c.model.update(dict(width=64 * s.depth, gate_gain=s.gate, init="normal", drop_path=0.1 * s.depth / 24))
    best = dict(guidance=s.guidance, guidance_schedule="ramp", top_k=s.top_k, top_p=0.99)
    c.sampling.update(best)
    c.presets.paper = base.preset(count=50, **best, schedule=c.sampling.schedule)
    t, losses = c.tokenizer_training, dict(l2=1.0, perceptual=1.0, adversarial=0.5, adversarial_start=20_000)
    t.update(dict(steps=400_000, batch_size=768, learning_rate=1e-4, warmup_steps=5_000, weight_decay=0.05))
    t.losses.update(losses)
    c.training.update(
        dict(
            steps=steps, batch_size=s.batch, learning_rate=s.rate * s.batch / 256,
            min_learning_rate=s.last * s.rate * s.batch / 256, warmup_steps=steps // 50, warmup_start=0.005,
            schedule="linear", hold=0.05, b2=0.95, weight_decay=0.05, final_weight_decay=s.decay,
            decay=("*kernel", "condition/classes/table", *(("feed/mask",) if masked else ())),
            clip_norm=2.0, ema_decay=0.0, remat="blocks", codes=False,
        )
    )  # fmt: skip
    return c
