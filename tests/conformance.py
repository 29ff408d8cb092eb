"""Every registered part as the protocol of its axis: for mypy alone, which `make lint` runs over this file.

A function takes a part of each registered name and gives them all as the protocol: one whose attribute or signature
differs is an error there. What a part lacks altogether mypy can't see, as to it a Linen module has every attribute
(`nn.Module.__getattr__`); `test_protocols.py` sees that, and that no part is missing here.
"""

from vargen import conditioning, feeds, heads, mixers, orders, tokenizers
from vargen.conditioning import Conditioning
from vargen.feeds import Feed
from vargen.heads import Head, JointHead
from vargen.mixers import Mixer
from vargen.orders import Ordering
from vargen.tokenizers.discriminators import Dino, Discriminator, Patch, StyleGAN
from vargen.tokenizers.jpeg import Jpeg
from vargen.tokenizers.tokenizer import Tokenizer


def every_conditioning(
    caption: conditioning.CaptionEmbedding,
    label: conditioning.LabelEmbedding,
    prompt: conditioning.Prompt,
    text: conditioning.Text,
    word_memory: conditioning.WordMemory,
    words: conditioning.WordEmbedding,
) -> list[Conditioning]:
    return [caption, label, prompt, text, word_memory, words]


def every_discriminator(patch: Patch, stylegan: StyleGAN, dino: Dino) -> list[Discriminator]:
    return [patch, stylegan, dino]


def every_feed(
    branched: feeds.Branched,
    instruct: feeds.Instruct,
    mask: feeds.Mask,
    noisy: feeds.Noisy,
    pivots: feeds.Pivots,
    query: feeds.Query,
    refine: feeds.Refine,
    shift: feeds.Shift,
    staged: feeds.Staged,
) -> list[Feed]:
    return [branched, instruct, mask, noisy, pivots, query, refine, shift, staged]


def every_head(
    categorical: heads.Categorical,
    depth: heads.Depth,
    diffusion: heads.Diffusion,
    dit: heads.Dit,
    flow: heads.Flow,
    hybrid: heads.Hybrid,
    masked_lm: heads.MaskedLM,
    rounds: heads.Rounds,
    segments: heads.Segmented,
    staged: heads.Staged,
    v_diffusion: heads.VDiffusion,
) -> list[Head]:
    return [
        categorical,
        depth,
        diffusion,
        dit,
        flow,
        hybrid,
        masked_lm,
        rounds,
        segments,
        staged,
        v_diffusion,
    ]


def every_joint_head(
    bernoulli_diffusion: heads.BernoulliDiffusion,
    epsilon: heads.Epsilon,
    velocity: heads.Velocity,
) -> list[JointHead]:
    return [bernoulli_diffusion, epsilon, velocity]


def every_mixer(
    attention: mixers.Attention,
    axial: mixers.Axial,
    chain: mixers.Chain,
    conv_s5: mixers.ConvS5,
    gla: mixers.GLA,
    lightnet: mixers.LightNet,
    linear: mixers.LinearAttention,
    mamba: mixers.Mamba,
    mamba_2d: mixers.Mamba2D,
    manhattan: mixers.Manhattan,
    retention: mixers.Retention,
    s5: mixers.S5,
    ssd: mixers.SSD,
    ssm_2d: mixers.SSM2D,
    vssd: mixers.VSSD,
) -> list[Mixer]:
    return [
        attention,
        axial,
        chain,
        conv_s5,
        gla,
        lightnet,
        linear,
        mamba,
        mamba_2d,
        manhattan,
        retention,
        s5,
        ssd,
        ssm_2d,
        vssd,
    ]


def every_order(
    cells: orders.Fixed,
    chunks: orders.Fixed,
    confidence: orders.Confidence,
    frames: orders.Fixed,
    level_sets: orders.LevelSets,
    levels: orders.Fixed,
    masked_levels: orders.MaskedLevels,
    random: orders.Random,
    random_sets: orders.RandomSets,
    random_to_raster: orders.RandomToRaster,
    raster: orders.Fixed,
    segments: orders.SegmentOrder,
    some_levels: orders.SomeLevels,
    thinned_levels: orders.ThinnedLevels,
) -> list[Ordering]:
    return [
        cells,
        chunks,
        confidence,
        frames,
        level_sets,
        levels,
        masked_levels,
        random,
        random_sets,
        random_to_raster,
        raster,
        segments,
        some_levels,
        thinned_levels,
    ]


def every_tokenizer(
    binary: tokenizers.binary.Binary,
    binned_kl: tokenizers.binned.BinnedKL,
    bsq: tokenizers.implicit.Signs,
    companded: tokenizers.companded.Companded,
    dynamic_vq: tokenizers.dynamic.DynamicVQ,
    fsq: tokenizers.implicit.FSQ,
    hybrid_multiscale: tokenizers.hybrid.HybridMultiScaleVQ,
    ibq: tokenizers.ibq.IBQ,
    jpeg: Jpeg,
    kl: tokenizers.KL,
    lfq: tokenizers.implicit.Signs,
    multiscale_product_vq: tokenizers.product_levels.ProductMultiScaleVQ,
    multiscale_vq: tokenizers.MultiScaleVQ,
    product_vq: tokenizers.product.ProductVQ,
    pyramid_kl: tokenizers.PyramidKL,
    pyramid_vq: tokenizers.PyramidVQ,
    qlae: tokenizers.product.ProductVQ,
    rq: tokenizers.RQ,
    teacher_kmeans: tokenizers.teacher_kmeans.KMeans,
    vq: tokenizers.VQ,
    vq_ema: tokenizers.FollowedVQ,
    vq_wae: tokenizers.transport.TransportVQ,
    within: tokenizers.within.Within,
) -> list[Tokenizer]:
    return [
        binary,
        binned_kl,
        bsq,
        companded,
        dynamic_vq,
        fsq,
        hybrid_multiscale,
        ibq,
        jpeg,
        kl,
        lfq,
        multiscale_product_vq,
        multiscale_vq,
        product_vq,
        pyramid_kl,
        pyramid_vq,
        qlae,
        rq,
        teacher_kmeans,
        vq,
        vq_ema,
        vq_wae,
        within,
    ]
