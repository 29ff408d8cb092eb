"""Hi-MAR's names and shapes both ways, and a dense float64 route from these arrays to hidden vectors and samples."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vargen import config
from vargen.config import part
from vargen.draws import Recorded
from vargen.interop import himar, mapping, systems
from vargen.orders import Order
from vargen.samplers import Sampling, decode

D, HEADS, BUFFER, P, N, C, CLASSES, LAYERS = 32, 2, 3, 4, 20, 4, 5, 2
W, DEPTH, V, BLOCKS = 16, 2, 24, 2  # of both heads
TRAIN, STEPS = 20, 4  # of both processes
ROUND = 2  # steps of either level
R = BUFFER + N


def tiny():
    c = config.load("himar:b")
    c.compute_dtype = "float32"
    c.data.image_size, c.data.num_classes = 8, CLASSES
    c.tokenizer.update(dict(levels=(2, 4), channels=C))
    c.tokenizer.encoder = part("conv", width=32, multipliers=(1, 1), decoder_attention=False)
    c.order.steps, c.feed.buffer = (ROUND, ROUND), BUFFER
    c.model.update(dict(layers=2 * LAYERS, width=D))
    c.mixer.heads = HEADS
    process = dict(train_steps=TRAIN, sample_steps=STEPS)
    c.head.heads.pivots.update(dict(depth=DEPTH, width=W, **process))
    c.head.heads.picture.update(dict(depth=BLOCKS, width=V, heads=HEADS, **process))
    return c


def shapes():
    """By the published files' names."""
    found = {"class_emb.weight": (CLASSES, D), "fake_latent": (1, D), "cond_tokens": (1, P, C)}
    found |= {"mask_token": (1, 2 * N, D), "diffusion_pos_embed_learned": (1, N, D)}
    found |= {f"{name}_pos_embed_learned": (1, 2 * R, D) for name in ("encoder", "decoder")}

    def linear(name, o, i, conv=False):
        found[f"{name}.weight"], found[f"{name}.bias"] = (o, i, 1, 1) if conv else (o, i), (o,)

    def norm(*names, width=D):
        found.update({f"{name}.{x}": (width,) for name in names for x in ("weight", "bias")})

    linear("z_proj", D, C)
    linear("cond_proj", D, C)
    linear("cond_z_proj", D, D)
    linear("decoder_embed", D, D)
    norm("z_proj_ln", "encoder_norm", "decoder_norm")
    for stage in ("encoder", "decoder"):
        found[f"{stage}_task_emb.weight"] = (2, D)
        linear(f"{stage}_blocks_ada.1", 4 * D, D)
        for i in range(LAYERS):
            b = f"{stage}_blocks.{i}"
            norm(f"{b}.norm1", f"{b}.norm2")
            linear(f"{b}.attn.qkv", 3 * D, D)
            linear(f"{b}.attn.proj", D, D)
            linear(f"{b}.mlp.fc1", 4 * D, D)
            linear(f"{b}.mlp.fc2", D, 4 * D)
            found |= {f"{b}.adaLN_{x}": (2, 1, 1, 4 * D) for x in ("scale", "shift")}
    net = "diffloss.net"
    linear(f"{net}.time_embed.mlp.0", W, 256)
    linear(f"{net}.time_embed.mlp.2", W, W)
    linear(f"{net}.cond_embed", W, D)
    linear(f"{net}.input_proj", W, C)
    for i in range(DEPTH):
        norm(f"{net}.res_blocks.{i}.in_ln", width=W)
        linear(f"{net}.res_blocks.{i}.mlp.0", W, W)
        linear(f"{net}.res_blocks.{i}.mlp.2", W, W)
        linear(f"{net}.res_blocks.{i}.adaLN_modulation.1", 3 * W, W)
    linear(f"{net}.final_layer.linear", 2 * C, W)
    linear(f"{net}.final_layer.adaLN_modulation.1", 2 * W, W)
    net = "cond_diffloss.net"
    linear(f"{net}.x_embedder.proj", V, C, conv=True)
    linear(f"{net}.c_embedder.proj", V, D, conv=True)
    linear(f"{net}.t_embedder.mlp.0", V, 256)
    linear(f"{net}.t_embedder.mlp.2", V, V)
    found |= {f"{net}.pos_embed": (1, N - P, V), f"{net}.c_pos_embed": (1, N - P, V)}
    for i in range(BLOCKS):
        b = f"{net}.blocks.{i}"
        linear(f"{b}.attn.qkv", 3 * V, V)
        linear(f"{b}.attn.proj", V, V)
        linear(f"{b}.mlp.fc1", 4 * V, V)
        linear(f"{b}.mlp.fc2", V, 4 * V)
        linear(f"{b}.adaLN_modulation.1", 6 * V, V)
    linear(f"{net}.final_layer.linear", C, V)
    linear(f"{net}.final_layer.adaLN_modulation.1", 2 * V, V)
    return found


@pytest.fixture(scope="module")
def made():
    """The generator, its parameters as read, and the arrays in float64."""
    _, generator = systems.build(tiny())
    rng = np.random.default_rng(0)
    arrays = {k: rng.normal(size=s, scale=0.25).astype(np.float32) for k, s in shapes().items()}
    arrays["cond_diffloss.net.pos_embed"] = waves()[None].astype(np.float32)
    arrays["cond_diffloss.net.c_pos_embed"] *= 0
    params = systems.read(himar, generator, arrays)
    return generator, params, arrays, {k: x.astype(np.float64) for k, x in arrays.items()}


def waves():
    """float64 [N - P, V]: of the 4x4 level, by columns and then by rows, sines and then cosines."""
    found = []
    for row in range(4):
        for column in range(4):
            angles = [x / 10000 ** (k / (V // 4)) for x in (column, row) for k in range(V // 4)]
            column_part, row_part = np.split(np.array(angles), 2)
            found.append(np.concatenate([f(x) for x in (column_part, row_part) for f in (np.sin, np.cos)]))
    return np.array(found)


def test_names_both_ways(made):
    generator, params, arrays, _ = made
    again = mapping.write(himar.table(generator), params)
    assert {k: x.shape for k, x in again.items()} == shapes()
    for name, x in arrays.items():
        np.testing.assert_allclose(again[name], x, atol=1e-7, err_msg=name)
    assert himar.levels(arrays) == (2, 4)


def silu(x):
    return x / (1 + np.exp(-x))


def erf(x):
    return np.vectorize(math.erf)(x)


def norm(x, weight=1.0, bias=0.0):
    x = x - x.mean(-1, keepdims=True)
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + 1e-6) * weight + bias


class Dense:
    """The transformer and both heads for one example, by the published names."""

    def __init__(self, arrays):
        self.w = arrays

    def linear(self, x, name):
        weight = self.w[f"{name}.weight"]
        return x @ weight.reshape(weight.shape[:2]).T + self.w[f"{name}.bias"]

    def norm(self, x, name):
        return norm(x, self.w[f"{name}.weight"], self.w[f"{name}.bias"])

    def attention(self, x, name):
        q, k, v = (y.reshape(len(x), HEADS, -1) for y in np.split(self.linear(x, f"{name}.qkv"), 3, axis=-1))
        scores = np.einsum("nhd,mhd->hnm", q, k) / math.sqrt(q.shape[-1])
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        y = np.einsum("hnm,mhd->nhd", weights / weights.sum(-1, keepdims=True), v)
        return self.linear(y.reshape(len(x), -1), f"{name}.proj")

    def stack(self, x, stage, task):
        u = self.linear(silu(self.w[f"{stage}_task_emb.weight"][task]), f"{stage}_blocks_ada.1")
        for i in range(LAYERS):
            b = f"{stage}_blocks.{i}"
            m = u * self.w[f"{b}.adaLN_scale"][task, 0, 0] + self.w[f"{b}.adaLN_shift"][task, 0, 0]
            scale_1, gate_1, scale_2, gate_2 = np.split(m, 4)
            x = x + gate_1 * self.attention(self.norm(x, f"{b}.norm1") * (1 + scale_1), f"{b}.attn")
            y = self.linear(self.norm(x, f"{b}.norm2") * (1 + scale_2), f"{b}.mlp.fc1")
            y = y * 0.5 * (1 + erf(y / math.sqrt(2)))
            x = x + gate_2 * self.linear(y, f"{b}.mlp.fc2")
        return self.norm(x, f"{stage}_norm")

    def rows(self, task, label, seen):
        """[N, D] from what is seen, {slot: row}; the label's number, None for no label."""
        slots, w = sorted(seen), self.w
        label = w["fake_latent"][0] if label is None else w["class_emb.weight"][label]
        x = np.stack([label] * BUFFER + [seen[s] for s in slots])
        at = task * R + np.array([*range(BUFFER), *(BUFFER + s for s in slots)])
        x = self.norm(x + w["encoder_pos_embed_learned"][0, at], "z_proj_ln")
        x = self.linear(self.stack(x, "encoder", task), "decoder_embed")
        canvas = w["mask_token"][0, task * N : (task + 1) * N].copy()
        canvas[slots] = x[BUFFER:]
        x = (
            np.concatenate([x[:BUFFER], canvas])
            + w["decoder_pos_embed_learned"][0, task * R : (task + 1) * R]
        )
        return self.stack(x, "decoder", task)[BUFFER:] + w["diffusion_pos_embed_learned"][0]

    def pivots(self, label, content, known):
        return self.rows(0, label, {s: self.linear(content[s], "cond_proj") for s in known})[:P]

    def picture(self, label, content, known, vectors):
        """`vectors`: of the pivots, {slot: [D]}; a learned content for those that have none."""
        seen = {s: self.linear(self.w["cond_tokens"][0, s], "cond_proj") for s in range(P)}
        seen |= {s: self.linear(v, "cond_z_proj") for s, v in vectors.items()}
        return self.rows(1, label, seen | {s: self.linear(content[s], "z_proj") for s in known})[P:]

    def time(self, t, first, second):
        angles = t * np.exp(-math.log(10000) * np.arange(128) / 128)
        both = np.concatenate([np.cos(angles), np.sin(angles)])
        return self.linear(silu(self.linear(both, first)), second)

    def slot_noise(self, x, t, z):
        """Of x [n, C]: the noise and the variance's interpolation."""
        net = "diffloss.net"
        y = silu(
            self.time(t, f"{net}.time_embed.mlp.0", f"{net}.time_embed.mlp.2")
            + self.linear(z, f"{net}.cond_embed")
        )
        x = self.linear(x, f"{net}.input_proj")
        for i in range(DEPTH):
            b = f"{net}.res_blocks.{i}"
            shift, scale, gate = np.split(self.linear(y, f"{b}.adaLN_modulation.1"), 3, axis=-1)
            h = self.norm(x, f"{b}.in_ln") * (1 + scale) + shift
            x = x + gate * self.linear(silu(self.linear(h, f"{b}.mlp.0")), f"{b}.mlp.2")
        shift, scale = np.split(self.linear(y, f"{net}.final_layer.adaLN_modulation.1"), 2, axis=-1)
        return np.split(self.linear(norm(x) * (1 + scale) + shift, f"{net}.final_layer.linear"), 2, axis=-1)

    def level_noise(self, x, t, z):
        """Of x [N - P, C]."""
        net = "cond_diffloss.net"
        time = self.time(t, f"{net}.t_embedder.mlp.0", f"{net}.t_embedder.mlp.2")
        y = silu(time + self.linear(z, f"{net}.c_embedder.proj"))
        x = self.linear(x, f"{net}.x_embedder.proj") + waves()
        for i in range(BLOCKS):
            b = f"{net}.blocks.{i}"
            parts = np.split(self.linear(y, f"{b}.adaLN_modulation.1"), 6, axis=-1)
            x = x + parts[2] * self.attention(norm(x) * (1 + parts[1]) + parts[0], f"{b}.attn")
            h = self.linear(norm(x) * (1 + parts[4]) + parts[3], f"{b}.mlp.fc1")
            h = 0.5 * h * (1 + np.tanh(math.sqrt(2 / math.pi) * (h + 0.044715 * h**3)))
            x = x + parts[5] * self.linear(h, f"{b}.mlp.fc2")
        shift, scale = np.split(self.linear(y, f"{net}.final_layer.adaLN_modulation.1"), 2, axis=-1)
        return self.linear(norm(x) * (1 + scale) + shift, f"{net}.final_layer.linear")


def test_hidden_vectors_of_both_rounds(made):
    """Of a training pass: hidden vectors of pivots that were masked guide the second round, others don't."""
    generator, params, _, arrays = made
    rng = np.random.default_rng(1)
    content = rng.normal(size=(2, N, C)).astype(np.float32)
    slots = np.stack([np.r_[rng.permutation(P), P + rng.permutation(N - P)] for _ in range(2)])
    known = (1, 5), (0, 9)
    steps = np.stack([np.r_[np.arange(P) >= a, 2 + (np.arange(N - P) >= b)] for a, b in known])
    generator = dataclasses.replace(generator, feed=generator.feed.clone(most_known=12))
    order = Order(jnp.asarray(slots), jnp.asarray(steps))
    labels = generator.condition.without(jnp.array([3, 3])).at[0].set(3)

    @jax.jit
    def run(params):
        found, rows = generator.hidden(params, None, jnp.asarray(content), labels, order)
        return found, rows.weight

    found, weight = run(params)
    for i, label in enumerate((3, None)):
        dense, x = Dense(arrays), content[i].astype(np.float64)
        first = slots[i, : known[i][0]]
        pivots = dense.pivots(label, x, first)
        vectors = {s: pivots[s] for s in set(range(P)) - set(first)}
        picture = dense.picture(label, x, slots[i, P : P + known[i][1]], vectors)
        expected = np.concatenate([pivots, picture])
        np.testing.assert_allclose(found[i], expected, atol=2e-5 * np.abs(expected).max())
        masked = np.ones(N)
        masked[[*first, *slots[i, P : P + known[i][1]]]] = 0
        np.testing.assert_array_equal(weight[i], masked)


def process():
    """Tables of the short process: betas, cumulated alphas, and the times that its steps stand for."""
    f = [math.cos((i / TRAIN + 0.008) / 1.008 * math.pi / 2) ** 2 for i in range(TRAIN + 1)]
    bar = np.cumprod([1 - min(1 - f[i + 1] / f[i], 0.999) for i in range(TRAIN)])
    times = [round(i * (TRAIN - 1) / (STEPS - 1)) for i in range(STEPS)]
    bar = bar[times]
    before = np.r_[1.0, bar[:-1]]
    return 1 - bar / before, bar, before, times


def back(x, s, eps, log_variance, noise):
    """One step of the reverse process."""
    betas, bar, before, _ = process()
    content = x / np.sqrt(bar[s]) - np.sqrt(1 / bar[s] - 1) * eps
    mean = betas[s] * np.sqrt(before[s]) / (1 - bar[s]) * content
    mean = mean + (1 - before[s]) * np.sqrt(1 - betas[s]) / (1 - bar[s]) * x
    return mean + (s > 0) * np.exp(0.5 * log_variance) * noise


def remaining(n, steps):
    """After each iteration; the published rule."""
    left = [n]
    for i in range(steps):
        m = max(1, min(left[-1] - 1, math.floor(n * math.cos(math.pi * (i + 1) / (2 * steps)))))
        left.append(m)
    return left


@pytest.mark.slow
@pytest.mark.parametrize(
    "given", [pytest.param((), marks=pytest.mark.slow), (1, 7, 12)], ids=["nothing", "a_pivot_and_two"]
)
def test_the_whole_sampler(made, given):
    """By whole passes in float64: what a pivot's pass made of it when it was drawn is what the second round is told.

    Pivots that are given have not been predicted: the second round is told nothing of them.
    """
    generator, params, _, arrays = made
    dense, label, guidance, before = Dense(arrays), 2, 2.0, 1.5
    rng = np.random.default_rng(2)
    noise, x = rng.normal(size=(N, STEPS + 1, C)), rng.normal(size=(N, C))
    sampling = Sampling.make(guidance=guidance, guidance_before=(before,), guidance_schedule="linear")
    start = (jnp.asarray(x, jnp.float32)[None], np.isin(np.arange(N), given))
    draws = Recorded(normals=jnp.asarray(noise, jnp.float32)[None])

    @jax.jit
    def run(params, draws):
        labels, key = jnp.array([label]), jax.random.key(3)
        return decode(generator, params, None, labels, key, sampling, start, draws=draws)

    found = run(params, draws)
    sequence = np.asarray(found.order.slots)[0].tolist()
    assert sorted(sequence[: len(given)]) == sorted(given)
    betas, bar, before_bar, times = process()
    variance = betas * (1 - before_bar) / (1 - bar)
    most, least = np.log(betas), np.log(np.r_[variance[1], variance[1:]])
    known, vectors, sizes = list(given), {}, [1, 2] if given else []
    for level, scale in ((0, before), (1, guidance)):
        n, own = (P, N - P)[level], [s for s in known if (s >= P) == level]
        left = remaining(n - len(own), ROUND)
        for i, m in enumerate(left[1:]):
            new = sequence[len(known) :][: left[i] - (i < ROUND - 1) * m]
            w = 1 + (scale - 1) * (n - m) / n
            seen = [s for s in known if (s >= P) == level]
            if level == 0:
                with_label, without = (dense.pivots(y, x, seen)[new] for y in (label, None))
                y = noise[new, 0]
                for s in reversed(range(STEPS)):
                    (a, spread), (b, _) = (dense.slot_noise(y, times[s], z) for z in (with_label, without))
                    log = (spread + 1) / 2 * most[s] + (1 - spread) / 2 * least[s]
                    y = back(y, s, b + w * (a - b), log, noise[new, STEPS - s])
                vectors |= dict(zip(new, with_label, strict=True))
                x[new] = y
            else:
                with_label, without = (dense.picture(y, x, seen, vectors) for y in (label, None))
                at, first = np.array(seen, int) - P, noise[P:, 0]
                y = first.copy()
                for s in reversed(range(STEPS)):
                    y[at] = np.sqrt(bar[s]) * x[seen] + np.sqrt(1 - bar[s]) * first[at]
                    a, b = (dense.level_noise(y, times[s], z) for z in (with_label, without))
                    y = back(y, s, b + w * (a - b), most[s], noise[P:, STEPS - s])
                x[new] = y[np.array(new) - P]
            known += new
            sizes.append(len(new))
    assert sorted(known) == list(range(N))
    np.testing.assert_array_equal(found.order.sizes, sizes)
    np.testing.assert_allclose(found.content[0], x, atol=2e-4 * np.abs(x).max())
