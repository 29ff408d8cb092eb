"""RQ-VAE against its authors' outputs."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vargen import tokenizers
from vargen.draws import Recorded
from vargen.interop import rqvae, systems
from vargen.interop.parity.golden import REPRODUCED, Golden, Result, close, exact, gradient_norms
from vargen.tokenizers.autoencoder import flat
from vargen.tokenizers.distances import distances
from vargen.tokenizers.residual import Book, Quantised, followed, gathered, quantise, spread
from vargen.tokenizers.rq import RQ

PREFIX = "rqvae."


def matches(golden: Golden) -> bool:
    """Whether it is a golden of RQ-VAE."""
    return f"{PREFIX}quantizer.codebooks.0.weight" in golden.weights


@dataclasses.dataclass(frozen=True, eq=False)
class Fresh(RQ):
    """Whose fresh vectors are those that were recorded: a permutation for each depth."""

    orders: Any = None

    def fresh(self, depth, vectors, key):
        """As `RQ.fresh`."""
        return _fresh(vectors, self.orders[depth], None, self.vocab)


def results(golden: Golden) -> Iterator[Result]:
    """All comparisons that the golden's arrays allow."""
    weights = {n.removeprefix(PREFIX): w for n, w in golden.weights.items() if n.startswith(PREFIX)}
    config = golden.meta["config"]
    images = golden["in/x"].transpose(0, 2, 3, 1)
    hparams = config["hparams"]
    options = dict(
        beta=hparams["latent_loss_weight"], decay=hparams["decay"], temperature=config["soft_temp"]
    )
    part = rqvae.part(weights).to_dict() | options
    tokenizer = tokenizers.build(part, images.shape[1:3], images.shape[3])
    params = jax.tree.map(jnp.asarray, systems.read(rqvae, tokenizer, weights))
    found = jax.jit(lambda p, x, u: _evaluation(tokenizer, p, x, u))(params, images, golden["in/u_soft"])
    yield from _all(golden, found)
    yield from _training(golden, tokenizer, params, images)
    if "in/z2" in golden:
        yield from _second(golden, config["rq2"])


def _all(golden: Golden, found: dict[str, Any]) -> Iterator[Result]:
    """Those of the outputs that the golden holds, codes exactly."""
    for name, value in found.items():
        output = f"out/{name}"
        if name == "margin" and output in golden:
            yield Result(output, float(np.abs(value - golden[output]).max()), 1e-5)
        elif output in golden:
            whole = golden[output].dtype.kind in "iu"
            yield (
                exact(output, value, golden[output])
                if whole
                else close(output, value, golden[output], REPRODUCED)
            )


def _losses(prefix: str, images, decoded, commitment, beta: float, counts=(1, 1)) -> dict[str, Any]:
    """The mean losses, or times counts the sums that are divided later."""
    fit, latent = jnp.mean(jnp.square(decoded - images)) * counts[0], commitment * counts[1]
    return {
        f"{prefix}/loss_recon": fit,
        f"{prefix}/loss_latent": latent,
        f"{prefix}/loss_total": fit + beta * latent,
    }


def _evaluation(tokenizer: RQ, params, images, uniforms) -> dict[str, Any]:
    """What the model computes of images without training."""
    quantizer, batch = params["quantizer"], len(images)
    grid = tokenizer.grid.levels[0]
    latents = tokenizer.codec.encode(params, images)
    vectors = flat(latents)
    parts = quantise(vectors.reshape(-1, tokenizer.channels), tokenizer.tables(quantizer))
    sums = parts.sums.reshape(-1, *latents.shape)
    commitment = jnp.mean(jnp.square(latents - sums))
    codes = tokenizer.encode(params, images)
    each = tokenizer.vectors(quantizer, codes).reshape(batch, *grid, tokenizer.depth, -1)
    decoded = tokenizer.decode(params, codes)

    def pictures(latents):
        """Of {name: latents}, by one run of the decoder."""
        found = tokenizer.decode_latents(params, jnp.concatenate(list(latents.values())))
        return dict(zip(latents, jnp.split(found.transpose(0, 3, 1, 2), len(latents)), strict=True))

    def drawn(depth, log_p):
        logits, draws = log_p[None], Recorded(uniforms=uniforms[depth][None])
        return draws.choose(logits)[0]

    def shaped(x):
        return x.reshape(batch, *grid, *x.shape[2:])

    soft = tokenizer.soft(quantizer, vectors, lambda d, log_p: jnp.argmax(log_p, axis=-1))
    stochastic = tokenizer.soft(quantizer, vectors, drawn)
    sizes = (batch * images.shape[-1], batch)
    depths = range(tokenizer.depth)
    found = pictures(
        {f"decode_add{d}": jnp.sum(each[..., : d + 1, :], axis=-2) for d in depths}
        | {f"decode_select{d}": each[..., d, :] for d in depths}
        | {"decode_code": tokenizer.latents(quantizer, codes)}
    )
    found |= _losses("eval", images, decoded, commitment, tokenizer.beta)
    found |= _losses("eval_valid", images, decoded, commitment, tokenizer.beta, sizes)
    return found | {
        "z_e": latents,
        "codes": shaped(codes),
        "partial_sums": sums,
        "rec": decoded.transpose(0, 3, 1, 2),
        "commitment": commitment,
        "margin": _margin(parts, vectors.reshape(-1, tokenizer.channels), tokenizer.tables(quantizer)),
        "emb_with_depth": each,
        "soft_codes": shaped(soft[1]),
        "stochastic/codes": shaped(stochastic[0]),
        "stochastic/soft_codes": shaped(stochastic[1]),
    }


def _margin(parts: Quantised, vectors, tables):
    """The smallest gap between the best and the second distance, by depth."""
    gaps, before = [], jnp.concatenate([jnp.zeros_like(parts.sums[:1]), parts.sums[:-1]])
    for total, table in zip(before, tables, strict=True):
        best = -jax.lax.top_k(-distances(vectors - total, table), 2)[0]
        gaps.append(jnp.min(best[:, 1] - best[:, 0]))
    return jnp.stack(gaps)


def _training(golden: Golden, tokenizer: RQ, params, images) -> Iterator[Result]:
    """One step of training: codes and tables with restarts and without, the whole model's losses and gradients."""
    orders = [golden[f"in/ema1/perm{d}"] for d in range(tokenizer.depth)]
    fields = {f.name: getattr(tokenizer, f.name) for f in dataclasses.fields(RQ)}
    key = jax.random.key(0)
    for restart in (True, False):
        model = Fresh(**fields | dict(restart=restart), orders=orders)

        @jax.jit
        def step(params, model=model):
            latents, _, stats, metrics = model.bottleneck(params, model.init_stats(), images, key)
            moved = model.revive(params, stats, images, key, 1, 1)[0]["quantizer"]
            # The sums are those of the step, in which later depths search other tables than in an encoding.
            vectors = flat(model.codec.encode(params, images)).reshape(-1, model.channels)
            fresh = lambda d, x: model.fresh(d, x, None) if model.restart else None  # noqa: E731
            books = model.books(params["quantizer"])
            parts, _ = followed(vectors, books, [model.decay] * model.depth, fresh, model.shared)
            return parts.codes, latents, metrics["commitment"], moved

        codes, latents, commitment, moved = step(params)
        codes = np.reshape(codes, (*latents.shape[:3], -1))
        found = {"codes": codes, "quant": latents, "commitment": commitment}
        found |= _tables([Book(*(moved[name][0] for name in Book._fields))])
        prefix = f"ema1/{'restart' if restart else 'norestart'}/"
        yield from _all(golden, {prefix + name: value for name, value in found.items()})
        if restart:
            yield from _losses_and_gradients(golden, model, params, images, codes)


def _losses_and_gradients(golden: Golden, model: RQ, params, images, codes) -> Iterator[Result]:
    """Those of the whole model in training."""

    @jax.jit
    @functools.partial(jax.value_and_grad, has_aux=True)
    def loss(params):
        return model.loss(params, model.init_stats(), images, jax.random.key(0), jnp.int32(1), dict(l2=1.0))

    (total, (_, metrics, decoded)), gradients = loss(params)
    found = _losses("train", images, decoded, metrics["commitment"], model.beta)
    found |= {"train/loss_total": total, "train/codes": codes, "train/rec": decoded.transpose(0, 3, 1, 2)}
    yield from _all(golden, found)
    yield from gradient_norms(golden, rqvae.table(model), gradients, 1e-4, "train/gradnorm/")


def _second(golden: Golden, config: dict[str, Any]) -> Iterator[Result]:
    """A bottleneck alone, of a table for each depth, of sizes and decays of their own, and a grid of cells."""
    (height, width, _), (rows, columns, depth) = config["latent_shape"], config["code_shape"]
    cell = (height // rows, width // columns)
    names = ("weight", "cluster_size_ema", "embed_ema")
    arrays = [[golden.weights[f"rq2.codebooks.{d}.{name}"] for name in names] for d in range(depth)]
    books = [Book(*map(jnp.asarray, (table[:-1], size, sums))) for table, size, sums in arrays]

    def named(prefix: str, parts: Quantised, cells, vectors) -> dict[str, Any]:
        shape = cells.shape[:3]
        return {
            f"{prefix}codes": parts.codes.reshape(*shape, -1),
            f"{prefix}partial_sums": parts.sums.reshape(-1, *cells.shape),
            f"{prefix}quant": spread(parts.sums[-1].reshape(cells.shape), cell),
            f"{prefix}commitment": jnp.mean(jnp.square(vectors - parts.sums)),
        }

    def fresh(d: int, rest: jax.Array) -> jax.Array:
        noise = golden[f"in/ema2/noise{d}"] if f"in/ema2/noise{d}" in golden else None
        return _fresh(rest, golden[f"in/ema2/perm{d}"], noise, len(books[d].size))

    @jax.jit
    def run(latents, books):
        cells = gathered(latents, cell)
        vectors = cells.reshape(-1, cells.shape[-1])
        parts = quantise(vectors, [book.codebook for book in books])
        found = named("rq2/", parts, cells, vectors) | {"rq2/code_shape_input": cells}
        codes = found["rq2/codes"]
        each = jnp.sum(jnp.stack([book.codebook[codes[..., d]] for d, book in enumerate(books)]), axis=0)
        found["rq2/embed_code"] = spread(each, cell)
        for mode in ("restart", "norestart"):
            make = fresh if mode == "restart" else lambda d, rest: None
            parts, after = followed(vectors, books, config["decay"], make, False)
            prefix = f"ema2/{mode}/"
            found |= named(prefix, parts, cells, vectors)
            found |= {prefix + name: table for name, table in _tables(after).items()}
        return found

    yield from _all(golden, run(golden["in/z2"], books))


def _tables(books: list[Book]) -> dict[str, Any]:
    """Tables by the authors' names, each with its row of zeros at the end."""
    found: dict[str, Any] = {}
    for d, book in enumerate(books):
        found |= {f"weight{d}": jnp.pad(book.codebook, [(0, 1), (0, 0)])}
        found |= {f"cluster_size{d}": book.size, f"embed_ema{d}": book.sums}
    return found


def _fresh(vectors, order, noise, vocab: int):
    """Fresh vectors [K, C] as they were recorded: repeated with noise where they are too few, then permuted."""
    if len(vectors) < vocab:
        vectors = jnp.tile(vectors, (-(-vocab // len(vectors)), 1))
        vectors = vectors + noise * 0.01 / vectors.shape[1] ** 0.5
    return vectors[order][:vocab]
