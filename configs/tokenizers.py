"""One generator, any tokenizer of a grid of codes: LlamaGen's on the digits, 16x16. Default: FSQ, arXiv 2309.15505.

    vargen quickstart --config tokenizers:bsq --workdir runs/bsq
    vargen quickstart --config tokenizers:bsq-pictures32 --workdir runs/mine --config.data.path=~/pictures

The rows of `TOKENIZERS` are what can follow the colon: VQ by gradients and by moving averages (arXiv 1711.00937), by
optimal transport (VQ-WAE, 2302.05917), with gradients to all codes (IBQ, 2412.02692); LFQ (2310.05737), BSQ
(2406.07548), products of tables (ImageFolder's, 2410.01756, and QLAE's, 2305.18378) and of bins (TokenBridge,
2503.16430), numbers rounded between wavelets (`walloc`, 2412.09405); `vit` has transformers at both ends (BSQ-ViT's),
`vitok` them around continuous latents (ViTok's, 2501.09755), drawn by diffusion, `local_vit` with attention in windows
(Efficient-VQGAN, 2310.05400); `hart` has levels (2410.10812; its codes alone are drawn, configs/hart.py draws the
rest); `dynamic` writes places and codes by turns (DQ-VAE, 2305.11718), `dq` a place and its code a slot, which its
generator draws in two stacks of blocks; `vlae` decodes pixel after pixel (1611.02731). Several codes of a slot are
drawn one after another by RQ-Transformer's head; bits (Binary Latent Diffusion, 2304.04820) all together.

Others have a teacher, a frozen network whose file vargen/tokenizers/teachers/efficientnet.py says how to make:

    vargen quickstart --config tokenizers:teacher_kmeans --workdir runs/teacher_kmeans \
        --config.tokenizer.teacher.weights=efficientnet_lite0.safetensors --config.tokenizer_training.steps=300

DiGIT's k-means of its features (2410.12490), and LOSSES by which features are drawn towards it, of `semantic` those of
a block of the decoder (GigaTok, 2504.08736), of `dual` the first of two codes (DualToken, 2503.14324); their field is
`tokenizer_training.losses.teacher.weights`. A teacher looks at every picture of every update: some 16 a second on a
core.
"""

from vargen import config as base
from vargen.config import part

PATCH = part("patch", patch=4, blocks=1)
DEPTHS = part("depths", patch=4, width=96, layers=4, shallow=2, heads=4, decoder_layers=2)
TEACHER = part("efficientnet", side=128, weights="")  # 4x4 places, as the latents
WAVELETS = part("wavelets", levels=2, width=64, blocks=1)
VIT = part("vit", patch=4, width=64, layers=2, heads=4)
LOCAL = part("vit", patch=4, width=64, layers=2, heads=4, window=2, shift=True)
PIXELS = part("pixel_cnn", patch=4, blocks=1)
dynamic = dict(codebook_weight=0.1, beta=0.02, budget_weight=1.0, revive_every=25)
leveled = dict(codebook_weight=0.1, beta=0.02, entropy_weight=0.02, revive_every=25)
TOKENIZERS = dict(
    vq=base.small_vq(4, 256),
    vq_ema=part("vq_ema", encoder=PATCH, vocab=256, channels=8),
    ibq=part("ibq", encoder=PATCH, vocab=256, channels=8),
    vq_wae=part("vq_wae", encoder=PATCH, vocab=128, channels=8, iterations=10),
    fsq=part("fsq", encoder=PATCH, levels=(8, 6, 5)),
    lfq=part("lfq", encoder=PATCH, channels=8, entropy_bits=8),
    bsq=part("bsq", encoder=PATCH, channels=8, entropy_bits=8),
    bsq_groups=part("bsq", encoder=PATCH, channels=16, groups=2, entropy_bits=8),
    product=part("product_vq", encoder=PATCH, vocab=64, channels=8, groups=2, revive_every=25),
    qlae=part("qlae", encoder=PATCH, vocab=12, channels=6, beta=0.1, codebook_weight=0.1),
    binary=part("binary", encoder=PATCH, channels=8),
    hart=part("hybrid_multiscale", encoder=PATCH, levels=(1, 2, 3, 4), vocab=256, channels=16, **leveled),
    vit=part("bsq", encoder=VIT, channels=8, entropy_bits=8),
    vitok=part("kl", encoder=VIT, channels=8, kl_weight=1e-3, measure=True),
    local_vit=part("vq", encoder=LOCAL, vocab=256, channels=8, revive_every=25),
    walloc=part("companded", encoder=WAVELETS, vocab=15, channels=8, spread=7 / 1.85),
    dynamic=part("dynamic_vq", encoder=PATCH, codes=256, channels=8, **dynamic),
    dq=part("dynamic_vq", encoder=PATCH, codes=256, channels=8, pairs=True, **dynamic),
    vlae=part("fsq", encoder=PIXELS, levels=(8, 6, 5)),
    bins=part("binned_kl", encoder=PATCH, vocab=16, channels=8, measure=True, spread=1.0),
    semantic=base.small_vq(4, 256),
    dual=part("product_vq", encoder=DEPTHS, vocab=64, channels=8, groups=2, revive_every=25),
    teacher_kmeans=part("teacher_kmeans", encoder=PATCH, vocab=256, teacher=TEACHER),
)
LOSSES = dict(
    semantic=dict(semantic=0.5, semantic_at="block0", semantic_hidden=256, teacher=TEACHER),
    dual=dict(semantic=0.5, semantic_channels=4, semantic_hidden=256, teacher=TEACHER),
)
SEVERAL = ("bsq_groups", "product", "qlae", "bins", "dual", "walloc")
LEVELS = ("hart",)
RATES = dict(vit=2e-3, vitok=2e-3, local_vit=2e-3, walloc=2e-3, vlae=3e-3)
DATA = ("pictures32",)  # beside the digits
DECAY = dict(qlae=0.1)  # its regularisation
LARGER = dict(hart=dict(levels=(1, 2, 3, 4, 6, 8)), teacher_kmeans=dict(teacher=dict(side=256)))


def get_config(row="fsq"):
    tokenizer, _, size = row.partition("-")
    c = base.config()
    c.data, c.tokenizer = base.small_data(size or "digits"), TOKENIZERS[tokenizer]
    c.sampling.update(dict(guidance=1.5))
    rate = dict(learning_rate=RATES.get(tokenizer, 6e-3), weight_decay=DECAY.get(tokenizer, 0.0))
    base.small(c, tokenizer=dict(steps=1600) | rate, generator=dict(steps=1200, batch_size=32))
    c.tokenizer_training.losses.update(LOSSES.get(tokenizer, {}))
    if size:
        c.tokenizer.update(LARGER.get(tokenizer, {}))
        c.tokenizer_training.steps, c.training.steps = 4000, 8000
    return bits(c) if tokenizer == "binary" else codes(c, tokenizer)


def codes(c, tokenizer):
    c.name = f"LlamaGen over {tokenizer}"
    c.order = part("raster")
    c.feed = part("shift", dropout=0.1, target_positions=True)
    if tokenizer in LEVELS:
        c.order, c.feed = part("levels"), part("refine")
    c.mixer = part("attention", heads=4, dropout=0.1)
    c.head = part("depth", layers=2) if tokenizer in SEVERAL else part("categorical", bias=False)
    c.model = dict(
        layers=4, width=128, mlp="swiglu", mlp_width=384, norm="rms", eps=1e-5, bias=False, dropout=0.1
    )
    if tokenizer == "vitok":
        c.head = part("diffusion", depth=3, width=128, sample_steps=50, repeat=4, clip=3.0)
    if tokenizer == "dq":  # a quarter of the blocks says where, the others what is there
        c.feed, c.head = part("staged", dropout=0.1, positions=True), part("staged")
        c.model = c.model.to_dict() | dict(layers=(1, 3), final_norm="none")
    return c


def bits(c):
    c.name = "Binary latent diffusion"
    c.order, c.feed = part("cells", count=(1, 1)), part("noisy", positions=True)
    c.mixer = part("attention", heads=4)
    c.head = part("bernoulli_diffusion", sample_steps=16)
    c.model = dict(layers=4, width=128, adaptive="adaln")
    c.training.steps = max(3000, c.training.steps)
    return c
