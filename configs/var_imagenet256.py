"""VAR: next-scale prediction over a multi-scale residual VQ, ImageNet 256x256. arXiv 2404.02905.

    vargen train --config configs/var_imagenet256.py:d16 --workdir runs/var_d16 --config.data.path /data/tfds

Published: FID 3.55 (d16), 2.95 (d20), 2.33 (d24), 1.97 (d30) with guidance 1.5, top-k 900, top-p 0.96; d16 took
2.5 days on 16 A100 (the authors' tracker, issue 26). Not trained by us. Parameters of the generator with its
head: d16 310.3 M, as the authors' module counts. The tokenizer's training recipe was never published: losses and
revival of dead codes here are ours.
"""

from vargen import config as base
from vargen.config import part

# depth (which sets width and heads), batch size, epochs, learning rate per 256 images, its last share, weight decay
SIZES = dict(
    d16=(16, 768, 200, 1e-4, 0.1, 0.05),
    d20=(20, 768, 250, 1e-4, 0.1, 0.05),
    d24=(24, 768, 350, 8e-5, 0.01, 0.05),
    d30=(30, 1024, 350, 8e-5, 0.01, 0.08),
)
IMAGES = 1_281_167


def get_config(size="d16"):
    depth, batch, epochs, rate, last, decay = SIZES[size]
    epoch = IMAGES // batch
    c = base.config()
    c.name = f"VAR-{size}"
    c.data = base.imagenet(256)
    c.tokenizer = part(
        "multiscale_vq",
        encoder=part("conv", width=160, projection=3),
        levels=(1, 2, 3, 4, 5, 6, 8, 10, 13, 16),
        vocab=4096,
        channels=32,
    )
    c.order = part("levels")
    c.feed = part("refine")
    c.mixer = part("attention", heads=depth, qk_norm="l2", bias="qv")
    c.head = part("categorical", init_std=0.02 * (1 / (3 * 64 * depth)) ** 0.5)
    c.model = dict(
        layers=depth,
        width=64 * depth,
        adaptive="adaln",
        affine=False,
        init_std=-1.0,
        depth_scaled_init=True,
        drop_path=0.1 * depth / 24,
    )
    paper = dict(guidance=1.5, guidance_schedule="ramp", top_k=900, top_p=0.96)
    c.sampling.update(paper)
    c.presets.paper = base.preset(count=50, **paper)
    c.presets.demo = base.preset(guidance=4.0, guidance_schedule="ramp", top_k=900, top_p=0.95)
    c.tokenizer_training.update(
        dict(steps=400_000, batch_size=768, learning_rate=1e-4, warmup_steps=5_000, weight_decay=0.05)
    )
    c.tokenizer_training.losses.update(
        dict(l2=1.0, perceptual=1.0, adversarial=0.5, adversarial_start=20_000)
    )
    c.training.update(
        dict(
            steps=epochs * epoch,
            batch_size=batch,
            learning_rate=rate * batch / 256,
            min_learning_rate=last * rate * batch / 256,
            warmup_steps=epochs * epoch // 50,
            schedule="linear",
            b2=0.95,
            weight_decay=decay,
            clip_norm=2.0,
            ema_decay=0.9999,
            remat=True,
        )
    )
    return c
