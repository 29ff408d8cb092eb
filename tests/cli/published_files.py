"""Tiny files as the authors would publish them, of random parameters."""

import functools

import numpy as np
from commands import ROOT
from parameters import plain

from vargen import config
from vargen.cli import main
from vargen.config import part
from vargen.interop import files, mapping, systems

IMAGE = 8  # two levels: a grid of 4x4


def run(*arguments):
    assert main.main([str(a) for a in arguments]) == 0


def conv(**options):
    return part("conv", width=32, multipliers=(1, 1), **options)


def tiny(system):
    """The published config at a tiny size."""
    size = dict(var="d16", hmar="d16_masked", rqtransformer="480m", dnd="xxl").get(system, "b")
    c = config.load(f"{ROOT / 'configs' / system}.py:{size}")
    c.compute_dtype = "float32"
    c.data.image_size, c.data.num_classes = IMAGE, 5
    layers = dict(mar=4, xar=4, dnd=(1, 1), hmar=(1, 1, 1)).get(system, 2)
    c.model = c.model.to_dict() | dict(layers=layers, width=128)
    c.mixer.heads = 2
    c.model.mlp_width = 64 if "mlp_width" in c.model else 512
    if system in ("var", "hmar"):
        c.head.init_std = 0.02 * (1 / (3 * 128)) ** 0.5
        c.tokenizer = part(
            "multiscale_vq", encoder=conv(projection=3), levels=(1, 2, 4), vocab=16, channels=4
        )
    elif system in ("acdit", "xar"):
        encoder = conv(decoder_attention=False, encoder_attention=system == "xar")
        c.tokenizer.update(dict(encoder=encoder, channels=4))
        c.head.sample_steps = 50 if system == "xar" else 25  # of widths that the authors don't have
    elif system == "mar":
        encoder = conv(decoder_attention=False)
        c.tokenizer = part("kl", encoder=encoder, channels=4, scale=0.2325)
        c.feed.buffer, c.order.steps = 3, 16
        c.head.update(dict(depth=2, width=16))
    elif system == "llamagen":
        c.tokenizer = part("vq", encoder=conv(hidden=8), vocab=16, channels=4)
    elif system in ("rqtransformer", "dnd"):
        c.tokenizer.encoder.update(conv())
        c.tokenizer.update(dict(vocab=16, channels=4))
    else:
        encoder = part("pooled", width=32, multipliers=(1, 1))
        c.tokenizer.encoder, c.tokenizer.vocab, c.tokenizer.channels = encoder, 16, 4
    return c


def published(system, c):
    """Random parameters of a config's tokenizer and generator, and the arrays that the authors would publish."""
    found = {}
    for name, built in zip(("tokenizer", "generator"), systems.build(c), strict=True):
        params = plain(built.init)
        if name == "tokenizer" and "scale" in c.tokenizer:  # in the authors' code, not in their files
            params["quantizer"]["scale"] = np.full_like(params["quantizer"]["scale"], c.tokenizer.scale)
        arrays = mapping.write(getattr(systems.system(system), name).table(built), params)
        found[name] = params, {k: v for k, v in arrays.items() if "ema_vocab" not in k}
    return found


@functools.cache
def published_tiny(system):
    return published(system, tiny(system))


def publish(system, folder, c=None):
    """Files as the authors would publish them, of random parameters; returns those parameters."""
    folder.mkdir(exist_ok=True)
    found = published_tiny(system) if c is None else published(system, c)
    for name, (_, arrays) in found.items():
        files.write(folder / f"{name}.npz", arrays)
    return {name: params for name, (params, _) in found.items()}


def imported(system, folder, *options):
    both = ("--generator", folder / "generator.npz", "--tokenizer", folder / "tokenizer.npz")
    run("import", system, *both, "--image-size", IMAGE, "--out", folder / "model", *options)
    return folder / "model"
