"""One generator, tokenizers of registers: LlamaGen's over one-dimensional tokens of the digits, 16x16. Default: TiTok.

    vargen quickstart --config registers:flextok --workdir runs/flextok
    vargen quickstart --config registers:titok-pictures32 --workdir runs/mine --config.data.path=~/pictures
    vargen sample --workdir runs/flextok --classes 3,5,8 --tokens 4

The rows of `TOKENIZERS` are what can follow the colon: TiTok (arXiv 2406.07550), all of whose registers are read in one
pass; FlexTok (2502.13967), FSQ of nested registers under a flow decoder; Semanticist (2503.08685), the same of
continuous latents; ResTok (2601.03955), levels of registers that begin as what the levels before leave of the patches,
while these are merged, drawn a level a step (without its teacher); D-AR (2505.23660) and Selftok (2505.07538), whose
decoder sees more of the registers the less noise there is; LARP (2410.21264), TiTok's with a prior that is trained
beside it. `flextok_latents` is FlexTok over a VAE's latents, as its authors have it, and needs the file of that, say of

    vargen train --config mar:digits --stage tokenizer --config.tokenizer.encoder.patch=2 --workdir runs/vae

by `--config.tokenizer.weights=runs/vae/tokenizer/params.safetensors`.
"""

from vargen import config as base
from vargen.config import part

DIRECT = part("direct")
drawn = dict(predicts="image", time="row")
FLOW = part("flow", **drawn)
levels = dict(sees="levels", nested="levels", nested_rate=0.2, begins="residuals", stages=2)
levels |= dict(apart=True, places="rotary", dropped="latent")


def registers(decoder, tokens=16, **options):
    """Of blocks of 96 channels over patches of 4x4 pixels."""
    own = dict(patch=4, width=96, layers=2, heads=3, norm_in=True) | options
    return part("registers", tokens=tokens, decoder=decoder, **own)


def vq(encoder, vocab=256):
    return part(
        "vq", encoder=encoder, vocab=vocab, channels=8, codebook_weight=0.1, beta=0.02, revive_every=25
    )


TOKENIZERS = dict(
    titok=vq(registers(DIRECT)),
    flextok=part("fsq", encoder=registers(FLOW, sees="causal", nested="powers"), levels=(8, 6, 5)),
    semanticist=part(
        "kl",
        encoder=registers(FLOW, sees="causal", nested="uniform"),
        channels=4,
        kl_weight=1e-3,
        measure=True,
    ),
    restok=vq(registers(DIRECT, tokens=(1, 1, 2, 4, 8), **levels)),
    dar=vq(registers(part("flow", groups=4, **drawn), sees="causal")),
    selftok=vq(registers(part("flow", groups=16, **drawn), sees="causal")),
    larp=vq(registers(DIRECT)),
    flextok_latents=part(
        "within",
        outer=part("kl", encoder=part("patch", patch=2), channels=8),
        inner=part("fsq", encoder=registers(FLOW, sees="causal", nested="powers", patch=2), levels=(8, 6, 5)),
    ),
)
DATA = ("pictures32",)  # beside the digits
LOSSES = dict(larp=dict(prior=0.06, prior_width=64, prior_layers=2, prior_heads=2))


def get_config(row="titok"):
    tokenizer, _, size = row.partition("-")
    c = base.config()
    c.name = f"LlamaGen over {tokenizer}"
    c.data, c.tokenizer = base.small_data(size or "digits"), TOKENIZERS[tokenizer]
    c.order = part("levels" if tokenizer == "restok" else "raster")
    c.feed = part("shift", dropout=0.1, target_positions=True)
    c.mixer = part("attention", heads=4, dropout=0.1)
    c.head = part("categorical", bias=False)
    if tokenizer == "semanticist":
        c.head = part("diffusion", depth=3, width=128, sample_steps=50, repeat=4, clip=3.0)
    c.model = dict(
        layers=4, width=128, mlp="swiglu", mlp_width=384, norm="rms", eps=1e-5, bias=False, dropout=0.1
    )
    c.sampling.update(dict(guidance=1.5))
    steps = (4000, 8000) if size else (800, 1200)
    first = dict(steps=steps[0], learning_rate=3e-3)
    base.small(c, tokenizer=first, generator=dict(steps=steps[1], batch_size=32))
    c.tokenizer_training.losses.update(LOSSES.get(tokenizer, {}))
    return c
