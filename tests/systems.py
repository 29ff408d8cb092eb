"""The systems of the README at tiny sizes: tests take them from here, so that a new one inherits them all."""

from __future__ import annotations

import jax
import pytest
from parameters import noisy

from vargen import models
from vargen.config import config, part


def var():
    c = _base("var")
    c.tokenizer = part("multiscale_vq", encoder=_encoder(), levels=(1, 2, 4), vocab=16, channels=4)
    c.order, c.feed = part("levels"), part("refine")
    c.mixer = part("attention", heads=2, qk_norm="l2", bias="qv")
    c.head = part("categorical")
    c.model = dict(layers=2, width=16, adaptive="adaln", affine=False, drop_path=0.1)
    return c


def var_shared():
    c = var()
    c.mixer = part("attention", heads=2, scale=0.25, bias="qv")
    c.model.adaptive = "shared"
    return c


def hmar():
    c = var()
    c.name, c.feed = "hmar", part("branched", level_weights="lognorm")
    return c


def hmar_masked():
    c = hmar()
    c.name, c.feed = "hmar_masked", part("branched", masked=True)
    c.order, c.sampling.schedule = part("masked_levels"), ((1,), (1, 3), (5, 4, 7))
    c.model = c.model.to_dict() | dict(layers=(1, 1, 1))
    return c


def flexvar():
    c = var()
    c.name = "flexvar"
    encoder = part("conv", width=4, multipliers=(1, 1, 1), blocks=1)
    c.tokenizer = part("pyramid_vq", encoder=encoder, levels=(1, 2, 3, 4), vocab=16, channels=4)
    c.order = part("some_levels", groups=((1, 1, 1), (1, 2, 3), (1, 4, 4)))
    c.feed = part("refine", places="table", side=5)
    return c


def flowar():
    c = _base("flowar")
    c.tokenizer = part("pyramid_kl", encoder=_encoder(), levels=(1, 2, 4), channels=4)
    c.order = part("levels")
    c.feed = part("refine", places="slots_alone", coords="picture", encoder_decoder=True)
    c.mixer = part("attention", heads=2, bias="qkv", rope="places")
    c.head = part("flow", depth=1, width=8, heads=2, sample_steps=3)
    c.model = dict(
        layers=2,
        width=16,
        mlp="geglu",
        norm="rms",
        affine=False,
        adaptive="adaln",
        final_norm="learned",
        dropout=0.1,
    )
    return c


def hart():
    c = var()
    c.name = "hart"
    c.tokenizer = part(
        "hybrid_multiscale", encoder=_encoder(), levels=(1, 2, 4), vocab=16, channels=4, beside=True
    )
    c.order, c.feed = part("thinned_levels"), part("refine", places="levels", coords="picture")
    c.mixer = part("attention", heads=2, bias="qv", rope="places")
    denoiser = part("diffusion", depth=1, width=8, sample_steps=3, train_steps=10, repeat=2)
    c.head = part("hybrid", heads=dict(codes=part("categorical"), numbers=denoiser), scale=0.5, top_p=0.9)
    c.model = dict(
        layers=2,
        width=16,
        mlp="swiglu",
        norm="rms",
        affine=False,
        bias=False,
        adaptive="adaln",
        drop_path=0.1,
    )
    return c


def llamagen():
    c = _base("llamagen")
    c.tokenizer = part("vq", encoder=_encoder(), vocab=16, channels=4)
    c.order, c.feed = part("raster"), part("shift", dropout=0.1)
    c.mixer = part("attention", heads=4, kv_heads=2, rope="places", out_bias=False)
    c.head = part("categorical", bias=False)
    c.model = dict(layers=2, width=16, mlp="swiglu", norm="rms", eps=1e-5, bias=False, dropout=0.1)
    return c


def llamagen_text():
    c = llamagen()
    c.name, c.conditioning = "llamagen_text", part("caption", tokens=3, channels=8)
    return c


def llamagen_words():
    c = llamagen()
    c.name, c.conditioning = "llamagen_words", part("words", vocabulary=("a", "b", "c"), tokens=4)
    return c


def llamagen_memory():
    c = llamagen_words()
    c.name, c.conditioning.name = "llamagen_memory", "word_memory"
    return c


def rar():
    c = _base("rar")
    c.tokenizer = llamagen().tokenizer
    c.conditioning = part("label", lead=1)
    c.order = part("random_to_raster", start=0.5, end=0.75)
    c.feed = part("shift", positions=True, target_positions=True, step_condition=True)
    c.mixer = part("attention", heads=2, qk_norm="layer", bias="qkv", weight_dropout=0.1)
    c.head = part("categorical")
    c.model = dict(layers=2, width=16, mlp="gelu", adaptive="adaln", adaln_zero=True)
    return c


def mar():
    c = _base("mar")
    c.tokenizer = part("kl", encoder=_encoder(), channels=4)
    c.order, c.feed = part("random_sets", steps=5), part("mask", buffer=2)
    c.mixer = part("attention", heads=2, bias="qkv", weight_dropout=0.1)
    c.head = part("diffusion", depth=1, width=8, sample_steps=3, train_steps=10, repeat=2)
    c.model = dict(layers=2, width=16, mlp="gelu", init_std=0.0)
    return c


def himar():
    c = mar()
    c.name = "himar"
    c.tokenizer = part("pyramid_kl", encoder=_encoder(), levels=(2, 4), channels=4)
    c.order, c.feed = part("level_sets", steps=(3, 2)), part("pivots", buffer=2, hidden_share=0.5)
    dit = part("dit", depth=1, width=8, heads=2, sample_steps=3, train_steps=10)
    c.head = part("rounds", heads=dict(pivots=c.head, picture=dit), weights=(0.4, 0.6))
    c.model.adaptive = "rounds"
    return c


def mar_dit():
    c = mar()
    c.name, c.head = "mar_dit", part("dit", depth=1, width=8, heads=2, sample_steps=3, train_steps=10)
    return c


def maskgit():
    c = _base("maskgit")
    c.tokenizer = llamagen().tokenizer
    c.order = part("confidence", steps=5, noise=2.0, skipped=1)
    c.feed = part("mask", buffer=1, encoder_decoder=False, target_positions=False, counts="pictures")
    c.mixer = part("attention", heads=2, bias="qkv", dropout=0.1)
    c.head = part("masked_lm", label_smoothing=0.1)
    c.model = dict(layers=2, width=16, norm_position="post")
    return c


def maskgil():
    c = maskgit()
    c.name = "maskgil"
    c.order = part(
        "confidence", steps=4, curve="arccos", counts="shares", anneal="before", masks="independent"
    )
    c.feed.update(dict(positions=False, norm=False, counts="all"))
    c.mixer = part("attention", heads=2, qk_norm="layer", rope="places", dropout=0.1)
    c.head = part("categorical")
    c.model = dict(layers=2, width=16, norm="rms", norm_position="res_post")
    return c


def randar():
    c = llamagen()
    c.name, c.order, c.feed = "randar", part("random", schedule="cosine_ahead"), part("instruct")
    return c


def arpg():
    c = llamagen()
    c.name, c.order = "arpg", part("random", steps=6, schedule="arccos_left")
    c.feed = part("query", positions=True)
    return c


def acdit():
    c = _base("acdit")
    c.tokenizer = part("kl", encoder=_encoder(), channels=4)
    c.order, c.feed = part("cells", count=(2, 2)), part("noisy", bias=False)
    c.mixer = part("attention", heads=2, qk_norm="rms", bias="qkv", rope="halves")
    c.head = part("epsilon", sample_steps=4, clip=3.0)
    c.model = dict(layers=2, width=16, norm="rms", adaptive="adaln", final_norm="both", init_std=0.0)
    return c


def bits():
    c = acdit()
    c.name, c.tokenizer = "bits", part("binary", encoder=_encoder(), channels=4)
    c.head = part("bernoulli_diffusion", sample_steps=4, train_steps=10)
    return c


def xar():
    c = acdit()
    c.name, c.feed = "xar", part("noisy", clean=False, encoder_decoder=True, positions=True, norm="rms")
    c.mixer = part("attention", heads=2, bias="qkv", rope="places", weight_dropout=0.1)
    c.head = part("velocity", sample_steps=3, zero=False)
    c.model = dict(layers=2, width=16, mlp="geglu", norm="rms", affine=False, adaptive="adaln", init_std=0.0)
    c.model.update(dict(final_norm="learned", dropout=0.1))
    return c


def rqtransformer():
    c = _base("rqtransformer")
    c.tokenizer = part("rq", encoder=_encoder(), vocab=16, channels=4, depth=2, temperature=0.5)
    c.order, c.feed = part("raster"), part("shift", positions=True, vectors=True)
    c.mixer = part("attention", heads=2, bias="qkv", dropout=0.1)
    c.head = part("depth", layers=1, mixer=part("attention", heads=4, bias="qkv"))
    c.model = dict(layers=2, width=16, mlp="gelu", eps=1e-5, final_norm="none", dropout=0.1)
    return c


def dnd():
    c = llamagen()
    c.name, c.tokenizer = "dnd", rqtransformer().tokenizer
    c.feed, c.head = part("staged", dropout=0.1), part("staged")
    c.model = c.model.to_dict() | dict(layers=(2, 1), final_norm="none")
    return c


def dq():
    c = dnd()
    c.name = "dq"
    c.tokenizer = part("dynamic_vq", encoder=_encoder(), codes=16, channels=4, pairs=True)
    c.feed = part("staged", positions=True)
    return c


def jpeglm():
    c = _base("jpeglm")
    c.tokenizer = part("jpeg", quality=5, length=15, merges=2)
    c.order, c.feed = part("raster"), part("shift")
    c.mixer = part("attention", heads=2, rope="sequence", out_bias=False)
    c.head = part("categorical", bias=False)
    c.model = dict(layers=2, width=16, mlp="swiglu", norm="rms", eps=1e-5, bias=False, dropout=0.1)
    return c


def orthus():
    c = _base("orthus")
    c.tokenizer = part("kl", encoder=_encoder(), channels=4)
    c.conditioning = part("text", vocabulary=("a", "b", "c"), tokens=4)
    c.order, c.feed = part("segments"), part("shift", soft_codes=8, dropout=0.1)
    c.mixer = part("attention", heads=2, qk_norm="layer", rope="sequence", out_bias=False)
    denoiser = part("v_diffusion", depth=1, width=8, sample_steps=3, train_steps=10, repeat=2)
    c.head = part(
        "segments", heads=dict(text=part("categorical", bias=False), picture=denoiser), weights=(1.0, 2.0)
    )
    c.model = dict(layers=2, width=16, mlp="swiglu", norm="rms", eps=1e-5, bias=False)
    return c


def mamba():
    c = llamagen()
    c.name, c.mixer = "mamba", part("mamba", state=4)
    return c


def axial():
    c = llamagen()
    c.name, c.mixer = "axial", part("axial", heads=2)
    return c


def gla_chain():
    c = llamagen()
    c.name = "gla_chain"
    c.mixer = part("chain", mixers=[part("ssm_2d", state=2), part("gla", heads=2)])
    return c


def var_cross_scan():
    c = var()
    c.name = "var_cross_scan"
    paths = ["forward", "reverse", "columns", "columns_reverse"]
    c.mixer = part("mamba", state=2, paths=paths, conv="2d", out_norm=True)
    return c


def mar_zigzag():
    c = mar()
    c.name = "mar_zigzag"
    c.mixer = part("mamba", state=4, paths=["zigzag_0", "zigzag_3"], alternate=True)
    return c


def maskgit_vssd():
    c = maskgit()
    c.name, c.mixer = "maskgit_vssd", part("vssd", heads=2, state_size=4)
    c.order, c.head = part("random_sets", steps=4), part("categorical")
    return c


SYSTEMS = dict(
    var=var,
    var_shared=var_shared,
    hmar=hmar,
    hmar_masked=hmar_masked,
    flexvar=flexvar,
    flowar=flowar,
    hart=hart,
    llamagen=llamagen,
    llamagen_text=llamagen_text,
    llamagen_words=llamagen_words,
    llamagen_memory=llamagen_memory,
    rar=rar,
    mar=mar,
    himar=himar,
    mar_dit=mar_dit,
    maskgit=maskgit,
    maskgil=maskgil,
    randar=randar,
    arpg=arpg,
    acdit=acdit,
    bits=bits,
    xar=xar,
    rqtransformer=rqtransformer,
    dnd=dnd,
    dq=dq,
    jpeglm=jpeglm,
    orthus=orthus,
    mamba=mamba,
    axial=axial,
    gla_chain=gla_chain,
    var_cross_scan=var_cross_scan,
    mar_zigzag=mar_zigzag,
    maskgit_vssd=maskgit_vssd,
)


# Further systems along a path that others take; each of their parts is tested by itself.
SLOW = "var_shared llamagen_text llamagen_words axial gla_chain".split()
SLOW += "dq var_cross_scan mar_dit mar_zigzag maskgil maskgit_vssd".split()


def some_slow(names, slow):
    """Parameters of a test, of which those in `slow` are."""
    return [pytest.param(name, marks=[pytest.mark.slow] * (name in slow)) for name in names]


def make(name: str, seed: int = 0):
    """Config, generator, its parameters and the tokenizer's, none of them near zero."""
    c = SYSTEMS[name]()
    tokenizer = models.build_tokenizer(c)
    generator = models.build_generator(c, tokenizer)
    params, tokenizer_params = noisy(generator.init, seed), noisy(tokenizer.init, seed + 1)
    return c, generator, params, tokenizer_params


def labels_for(generator, batch: int):
    """Some labels: classes 1, 2, ..., or captions of different lengths."""
    if generator.condition.takes == "classes":
        return jax.numpy.arange(1, batch + 1)
    if generator.condition.takes == "texts":
        return jax.numpy.asarray(generator.condition.parse([" ".join("abc"[: i % 4]) for i in range(batch)]))
    shape = (batch, generator.condition.tokens)
    states = jax.random.normal(jax.random.key(7), (*shape, generator.condition.channels))
    mask = jax.numpy.arange(shape[1]) < jax.numpy.arange(1, batch + 1)[:, None] % shape[1] + 1
    return jax.tree.map(jax.numpy.asarray, generator.condition.parse((states, mask)))


def _base(name):
    c = config()
    c.name = name
    c.compute_dtype = "float32"
    return c


def _encoder():
    return part("patch", patch=4, width=8, blocks=1, token_width=8, channel_width=8)
