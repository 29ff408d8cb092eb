"""LARP's tokenizer of clips against its authors' outputs, with the losses of its prior and what was drawn recorded."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from vargen import tokenizers
from vargen.interop import larp, systems
from vargen.interop import mapping as m
from vargen.interop.parity.golden import SINGLE, Golden, Result, close, exact, norms
from vargen.tokenizers.autoencoder import flat
from vargen.tokenizers.distances import distances
from vargen.tokenizers.prior import Prior
from vargen.tokenizers.transformer import Sizes
from vargen.tokenizers.vq import VQ

PRIOR = "prior_model."
PRIOR_WEIGHT = 0.06
EPS = 1e-6  # of the norms in timm's blocks when the golden was made; when the published file was, 1e-5
# The golden's prior has weights eight times as large as usual, and its gradients reach the encoder: four times the
# authors' own distance from float64 there, 1.4e-4 of a norm and 4e-5 of the logits.
SHAKEN = 5e-4


@dataclasses.dataclass(frozen=True)
class Recorded(VQ):
    """Draws the codes that were recorded.

    Attributes:
      recorded: of all latents, one after another.
    """

    recorded: tuple[int, ...]

    def chosen(self, vectors: jax.Array, codes: jax.Array, key: jax.Array) -> jax.Array:
        """See `VQ.chosen`."""
        return jnp.asarray(self.recorded, jnp.int32)


def matches(golden: Golden) -> bool:
    """Whether it is a golden of LARP's tokenizer."""
    return {"encoder_latent_query_embed", "x_embedder.proj.weight"} <= golden.weights.keys()


def built(golden: Golden) -> tuple[VQ, dict]:
    """The tokenizer and its parameters."""
    args, part = golden.meta["args"], larp.part(golden.weights)
    part.encoder.update(heads=args["encoder_num_heads"], eps=EPS)
    if "heads" in part.encoder.decoder:
        part.encoder.decoder.heads = args["decoder_num_heads"]
    drawn = args["bottleneck"]["args"]["regularizer"]["args"]
    part.update(
        temperature=drawn["stochastic_temperature"],
        beta=drawn["commitment_loss_weight"],
        codebook_weight=drawn["codebook_loss_weight"],
        normalise=drawn["l2_normalized"],
    )
    _, colours, *size = golden["in/video"].shape
    tokenizer = tokenizers.build(part, tuple(size), colours)
    return tokenizer, jax.tree.map(jnp.asarray, systems.read(larp, tokenizer, golden.weights))


def results(golden: Golden) -> Iterator[Result]:
    """All comparisons that the golden's arrays allow."""
    tokenizer, params = built(golden)
    clips = jnp.asarray(np.moveaxis(golden["in/video"], 1, -1))

    def video(found: jax.Array) -> jax.Array:
        return jnp.moveaxis(found, -1, 1)

    def nearest(params: dict) -> dict[str, jax.Array]:
        own = dataclasses.replace(tokenizer, temperature=0.0)
        projected = flat(own.codec.encode(params, clips))
        through, loss, _, metrics = own.bottleneck(params, own.init_stats(), clips, jax.random.key(0))
        unit, codes = own.levels(own.codec.encode(params, clips))[0], own.encode(params, clips)
        squared = distances(unit, own.codes(params["quantizer"]))
        layer = params["decoder"]["registers"]["rows_in"]
        return dict(
            projected_z=projected,
            unregularized_z=unit.reshape(projected.shape),
            indices=codes,
            regularized_z=flat(through),
            encoded=flat(through) @ layer["kernel"] + layer["bias"],
            loss_q=loss,
            loss_commit=metrics["commitment"],
            loss_codebook=metrics["codebook"],
            video=video(own.decode_latents(params, through)),
            video_from_ids=video(own.decode(params, codes)),
            probs=jax.nn.softmax(-squared / (2 * tokenizer.temperature), axis=-1),
        )

    for name, value in jax.jit(nearest)(params).items():
        yield from _compared(golden, f"out/det/{name}", value)
    if "in/samp_vq" not in golden:
        return
    drawn = Recorded(**_fields(tokenizer), recorded=tuple(int(x) for x in golden["in/samp_vq"]))
    prior, network, table = _prior(golden, drawn)
    args, shape = golden.meta["args"]["prior_model"], golden["in/ss_u"].shape
    progress = golden.meta["global_step"] / (golden.meta["max_steps"] * args["mix_ss_peak_steps_ratio"])
    own = jnp.asarray(golden["in/ss_u"]) < min(progress, 1) * args["mix_ss_max_ratio"]
    said = golden["in/samp_prior"].reshape(shape[:2])
    codes = jnp.asarray(drawn.recorded).reshape(len(clips), -1)

    def loss(params: dict, network: dict) -> tuple[jax.Array, dict]:
        through, loss_q, _, _ = drawn.bottleneck(params, drawn.init_stats(), clips, jax.random.key(0))
        vectors = jax.lax.stop_gradient(drawn.codes(params["quantizer"]))
        first = flat(through)
        second = jnp.concatenate([first[:, :1], jnp.where(own, vectors[said], first[:, 1:])], axis=1)
        logits = jnp.stack([prior.logits(network, x, vectors) for x in (first, second)])
        chosen = jnp.take_along_axis(jax.nn.log_softmax(logits), codes[None, :, 1:, None], axis=-1)
        found = dict(
            pred_frames=video(drawn.decode_latents(params, through)),
            loss_q=loss_q,
            loss_latent_ce=-jnp.mean(chosen),
            logits_rounds=logits,
            next_ar_input=second,
            indices=codes,
        )
        error = jnp.mean(jnp.abs(found["pred_frames"] - video(clips)))
        return error + loss_q + PRIOR_WEIGHT * found["loss_latent_ce"], found

    run = jax.jit(jax.value_and_grad(loss, (0, 1), has_aux=True))
    (total, found), gradients = run(params, network)
    for name, value in found.items():
        yield from _compared(golden, f"out/st/{name}", value)
    yield from _compared(golden, "out/total", total)
    theirs: dict[str, np.ndarray] = {}
    for entries, own_gradients in zip((larp.table(tokenizer), table), gradients, strict=True):
        theirs |= m.write(entries, jax.tree.map(np.asarray, own_gradients))
    yield from norms(golden, theirs, SHAKEN, "grad_norm/")


def _compared(golden: Golden, output: str, value: jax.Array) -> Iterator[Result]:
    if output in golden:
        same, relative = output.endswith("indices"), SHAKEN if "logits" in output else SINGLE
        yield exact(output, value, golden[output]) if same else close(output, value, golden[output], relative)


def _fields(tokenizer: VQ) -> dict:
    return {f.name: getattr(tokenizer, f.name) for f in dataclasses.fields(VQ)}


def _prior(golden: Golden, tokenizer: VQ) -> tuple[Prior, dict, list[m.Entry]]:
    """The prior, its parameters, and the table of them."""
    sizes, args = golden.meta["prior"], golden.meta["args"]["prior_model"]
    blocks = Sizes(sizes["n_embd"], sizes["n_layer"], sizes["n_head"], eps=1e-5)
    prior = Prior(tokenizer, blocks, args["latent_ce_temperature"], args["mix_ss_max_ratio"], 1.0)
    like = jax.eval_shape(lambda: nn.meta.unbox(prior.init_boxed(jax.random.key(0))))

    def layer(i: int) -> list[m.Entry]:
        ours, theirs = "blocks/layers/block", f"{PRIOR}blocks.{i}"
        found = m.norm(f"{ours}/norm_1", f"{theirs}.ln1") + m.norm(f"{ours}/norm_2", f"{theirs}.ln2")
        for name in ("query", "key", "value"):
            found += m.dense(f"{ours}/mixer/{name}", f"{theirs}.attn.{name}")
        found += m.dense(f"{ours}/mixer/out", f"{theirs}.attn.proj")
        found += m.dense(f"{ours}/feed_forward/up", f"{theirs}.mlp.0")
        return found + m.dense(f"{ours}/feed_forward/down", f"{theirs}.mlp.2")

    length = tokenizer.grid.size
    table = m.dense("vectors/rows_in", f"{PRIOR}input_proj")
    table += m.some_rows("vectors/places", f"{PRIOR}pos_emb", 0, length - 1, sizes["max_seq_len"])
    table += m.stacked(sizes["n_layer"], layer)
    table += m.norm("norm_out", f"{PRIOR}ln_f") + m.dense("out", f"{PRIOR}head")
    arrays = {k: v for k, v in golden.weights.items() if k.startswith(PRIOR)}
    params = m.read(table, arrays, like, what=larp.WHAT)
    return prior, jax.tree.map(jnp.asarray, params), table
