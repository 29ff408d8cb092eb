"""ImageFolder's tokenizers against their authors' outputs: codes, losses with the teacher's among them, gradients."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vargen import tokenizers
from vargen.interop import imagefolder, mapping, systems
from vargen.interop.parity.golden import REPRODUCED, SINGLE, Golden, Result, close, exact, norms, unscaled
from vargen.tokenizers import semantic, teachers
from vargen.tokenizers.autoencoder import Autoencoder
from vargen.tokenizers.distances import normalised
from vargen.tokenizers.product_levels import ProductMultiScaleVQ, dependency
from vargen.tokenizers.teachers.teacher import Arrays, Teacher

TEACHER = "semantic_model."


def matches(golden: Golden) -> bool:
    """Whether it is a golden of a tokenizer of ImageFolder's."""
    return {"encoder.latent_tokens", "encoder.lvl_embed.weight"} <= golden.weights.keys()


def built(golden: Golden) -> tuple[Autoencoder, dict]:
    """The tokenizer and its parameters; what arrays don't tell is as `meta` says."""
    images = golden["in/img"]
    part = imagefolder.part(golden.weights, tuple(golden.meta["args"]["v_patch_nums"]))
    part.encoder.heads = golden.meta["vit"]["num_heads"]
    tokenizer = tokenizers.build(part, images.shape[2:], images.shape[1])
    params = systems.read(imagefolder, tokenizer, golden.weights)
    return tokenizer, jax.tree.map(jnp.asarray, params)


def results(golden: Golden) -> Iterator[Result]:
    """All comparisons that the golden's arrays allow."""
    tokenizer, params = built(golden)
    images = jnp.asarray(golden["in/img"].transpose(0, 2, 3, 1))
    teacher, frozen = _teacher(golden)
    weights = golden.meta["args"]
    several = len(tokenizer.grid.levels)

    def loss(params: dict) -> tuple[jax.Array, dict]:
        through, _, _, metrics = tokenizer.bottleneck(
            params, tokenizer.init_stats(), images, jax.random.key(0)
        )
        parts = _parted(tokenizer, through)
        image = tokenizer.decode_latents(params, through)
        found = dict(
            vq_loss=metrics["codebook"],
            # A sum over levels, where the other is an average.
            commit_loss=weights["commit_loss_beta"] * several * metrics["commitment"],
            dependency_loss=weights["dependency_loss_weight"] * dependency(parts),
        )
        if teacher:
            layer, pooled = params["encoder"]["latents_out"], teacher(frozen, images).pooled
            own, said = jnp.mean(parts[-1], axis=(1, 2)), pooled @ layer["kernel"] + layer["bias"]
            if weights["clip_norm"]:
                own, said = normalised(own), normalised(said)
            told = semantic.contrastive(own, said, 1 / weights["sem_loss_scale"])
            found |= dict(sem_loss=weights["sem_loss_weight"] * told)
        total = jnp.mean(jnp.abs(image - images)) + sum(found.values())
        found |= dict(total=total, fw_dec=image.transpose(0, 3, 1, 2))
        return total, found | (dict(sem_class=pooled) if teacher else {})

    (_, found), gradients = jax.jit(jax.value_and_grad(loss, has_aux=True))(params)
    found |= jax.jit(lambda params: _outputs(tokenizer, params, images))(params)
    for name, value in found.items():
        output = f"out/{name}"
        if output in golden:
            yield (
                exact(output, value, golden[output])
                if name.startswith("idx")
                else close(output, value, golden[output], SINGLE)
            )
    if "out/drop/fhat" in golden and isinstance(tokenizer, ProductMultiScaleVQ):
        yield from _dropped(golden, tokenizer, params)
    theirs = mapping.write(imagefolder.table(tokenizer), jax.tree.map(np.asarray, gradients))
    yield from norms(golden, _chained(theirs, golden.weights), SINGLE, "grad_norm/")


def _teacher(golden: Golden) -> tuple[Teacher | None, Any]:
    """The network of the semantic loss and its parameters; None of a golden without it."""
    arrays = mapping.Inside(TEACHER, golden.weights)
    if not arrays:
        return None, None
    width = golden.meta["vit"]["embed_dim"]
    options = dict(
        side=golden.meta["image_size"],
        patch=golden.meta["patch"],
        width=width,
        layers=golden.meta["vit"]["depth"],
        heads=golden.meta["vit"]["num_heads"],
        places=golden.meta["image_size"] // golden.meta["patch"],
    )
    teacher = teachers.build(dict(name="dinov2", **options), "teacher")
    return teacher, jax.tree.map(jnp.asarray, teacher.read(Arrays(dict(arrays), str(golden.path))))


def _parted(tokenizer: Autoencoder, latents: jax.Array) -> jax.Array:
    """float32 [B, h, w, G c] -> [G, B, h, w, c]."""
    groups = tokenizer.codec.encoder.abreast
    return jnp.moveaxis(latents.reshape(*latents.shape[:-1], groups, -1), 3, 0)


def _outputs(tokenizer: Autoencoder, params: dict, images: jax.Array) -> dict[str, Any]:
    """What the authors' code gives for images [B, H, W, C], by their names."""
    latents, kept = tokenizer.codec.encoder.apply(
        {"params": params["encoder"]},
        images,
        capture_intermediates=lambda module, method: module.name == "norm_out",
        mutable=["intermediates"],
    )
    rows = _parted(tokenizer, latents)
    rows = rows.reshape(*rows.shape[:2], -1, rows.shape[-1]).transpose(1, 3, 0, 2)
    codes = tokenizer.encode(params, images)
    outputs = dict(
        enc=kept["intermediates"]["norm_out"]["__call__"][0],
        h=rows.reshape(*rows.shape[:2], -1, 1),
        rec=jnp.clip(tokenizer.decode(params, codes), -1, 1).transpose(0, 3, 1, 2),
    )
    sums, inputs = [tokenizer.latents(params["quantizer"], codes)], []
    levels = [codes]
    if isinstance(tokenizer, ProductMultiScaleVQ):
        levels, sums, state = tokenizer.split(codes), [], tokenizer.start(len(images))
        for level, found in enumerate(levels):
            state = tokenizer.absorb(params["quantizer"], state, found, level)
            sums.append(state)
            if level < len(levels) - 1:
                inputs.append(tokenizer.resample(state, level + 1))
        outputs["var_input"] = jnp.concatenate(inputs, axis=1)
    for level, (found, state) in enumerate(zip(levels, sums, strict=True)):
        for group, own in enumerate(_parted(tokenizer, state)):
            outputs[f"idx_{group}_{level}"] = found[..., group]
            outputs[f"fhat_{group}_{level}"] = own.transpose(0, 3, 1, 2)
    return outputs


def _dropped(golden: Golden, tokenizer: ProductMultiScaleVQ, params: dict) -> Iterator[Result]:
    """The first quantiser in training, where the first half of a batch has as many levels as were drawn."""
    levels, beta = len(tokenizer.grid.levels), golden.meta["args"]["commit_loss_beta"]
    qparams = jax.tree.map(lambda x: x[0], params["quantizer"])
    latents, turned = (jnp.asarray(golden[f"in/drop_{x}"].transpose(0, 2, 3, 1)) for x in "fg")
    drawn = golden["in/dropout_rand"]
    kept = jnp.asarray(np.where(np.arange(len(drawn)) < len(drawn) // 2, drawn, levels))

    def loss(latents: jax.Array) -> tuple[jax.Array, dict]:
        f_hat, metrics, _ = tokenizer.branch.through(qparams, latents, kept)
        found = dict(vq_loss=metrics["codebook"], commit_loss=beta * levels * metrics["commitment"])
        return sum(found.values()) + jnp.sum(f_hat * turned), found | dict(fhat=f_hat.transpose(0, 3, 1, 2))

    (_, found), gradient = jax.jit(jax.value_and_grad(loss, has_aux=True))(latents)
    for name, value in (found | dict(df=gradient.transpose(0, 3, 1, 2))).items():
        yield close(f"out/drop/{name}", value, golden[f"out/drop/{name}"], REPRODUCED)


def _chained(found: Mapping[str, np.ndarray], weights: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Gradients as the table writes them, with those of what is one array here by the chain rule."""
    theirs = unscaled(found, weights, {"ls1.gamma": "attn.proj", "ls2.gamma": "mlp.fc2"})
    registers = found["encoder.latent_tokens"][0]
    groups = len(found["encoder.lvl_embed.weight"]) - 1
    rows = dict(
        encoder=registers.reshape(groups, -1, registers.shape[1]).sum(1),
        decoder=found["decoder.lvl_embed.weight"][1:],
    )
    for end, levels in rows.items():
        token, places = found[f"{end}.model.cls_token"][0], found[f"{end}.model.pos_embed"][0, 1:]
        first = token + places.sum(0, keepdims=True) - levels.sum(0, keepdims=True)
        theirs[f"{end}.model.pos_embed"] = np.concatenate([token, places])
        theirs[f"{end}.lvl_embed.weight"] = np.concatenate([first, levels])
    return theirs
