"""A tiny task with all that a step has to deal with, and settings for it."""

from types import SimpleNamespace

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from vargen.training.work import Work

SIZE, WIDTH, CLASSES = 8, 16, 4


def settings(**changes):
    """Settings of a short run, as a config's `tokenizer_training`."""
    values = dict(
        steps=12,
        batch_size=16,
        learning_rate=1e-2,
        min_learning_rate=1e-3,
        warmup_steps=3,
        warmup_start=None,
        schedule="cosine",
        hold=0.0,
        optimizer="adamw",
        b1=0.9,
        b2=0.95,
        weight_decay=0.1,
        final_weight_decay=None,
        decay=("*kernel",),
        trained=("*",),
        clip_norm=1.0,
        ema_decay=0.9,
        ema_warmup=True,
        accumulate=1,
        log_every=2,
        save_every=4,
        keep=2,
        image_every=0,
        validate_every=0,
        mesh=dict(data=-1, fsdp=1, tensor=1),
        losses=SimpleNamespace(discriminator_learning_rate=1e-3),
    )
    return SimpleNamespace(**(values | changes))


def batch_at(step, size=16, seed=0):
    """Batch number `step`, a pure function of it."""
    rng = np.random.default_rng([seed, step])
    image = rng.normal(size=(size, SIZE)).astype(np.float32)
    return dict(image=image, label=rng.integers(0, CLASSES, size).astype(np.int32))


def batches(start, size=16):
    while True:
        yield batch_at(start, size)
        start += 1


class Net(nn.Module):
    """An MLP with a table, a parameter that divides nothing (odd), and stacked kernels and biases."""

    out: int

    @nn.compact
    def __call__(self, x, label):
        def param(name, init, names, shape):
            return self.param(name, nn.with_logical_partitioning(init, names), shape)

        normal, zeros = nn.initializers.normal(0.3), nn.initializers.zeros
        table = param("table", normal, ("vocab", "embed"), (CLASSES, WIDTH))
        h = x @ param("in_kernel", normal, (None, "embed"), (SIZE, WIDTH)) + table[label]
        kernels = param("kernel", normal, ("layers", "embed", "mlp"), (2, WIDTH, WIDTH))
        biases = param("bias", zeros, ("layers", "mlp"), (2, WIDTH))
        for kernel, bias in zip(kernels, biases):
            h = h + nn.tanh(h @ kernel + bias)
        odd = param("odd_kernel", normal, ("embed", "mlp"), (WIDTH, 3))
        return h @ param("out_kernel", normal, ("embed", None), (WIDTH, self.out)) + (h @ odd).sum(
            -1, keepdims=True
        )


class FakeTask:
    """Denoising: noise from the key, statistics, an adversary, frozen parameters."""

    def __init__(self, noise=0.1, adversarial=True, nan_at=-1):
        self.noise, self.adversarial, self.nan_at = noise, adversarial, nan_at
        self.net, self.judge = Net(SIZE), Net(1)

    def init_boxed(self, key):
        x, label = jnp.zeros((1, SIZE)), jnp.zeros((1,), jnp.int32)
        a, b = jax.random.split(key)
        params = dict(model=self.net.init(a, x, label)["params"])
        if self.adversarial:
            params["discriminator"] = self.judge.init(b, x, label)["params"]
        return params

    def work(self):
        return Work(2e6, 8)

    def init_stats(self):
        return dict(mean=jnp.zeros(()), updates=jnp.zeros((), jnp.int32))

    def loss(self, params, stats, frozen, batch, key, step):
        x = batch["image"]
        noisy = x + self.noise * jax.random.normal(key, x.shape)
        out = self.net.apply({"params": params["model"]}, noisy, batch["label"]) + frozen["offset"]
        loss = jnp.mean((out - x) ** 2)
        metrics = dict(mse=loss)
        if self.adversarial:
            metrics["fooling"] = -jnp.mean(
                self.judge.apply({"params": params["discriminator"]}, out, batch["label"])
            )
            loss = loss + 0.1 * metrics["fooling"]
        loss = jnp.where(step == self.nan_at, jnp.nan, loss)
        stats = dict(mean=0.9 * stats["mean"] + 0.1 * jnp.mean(out), updates=stats["updates"] + 1)
        return loss, (stats, metrics, out)

    def discriminator_loss(self, params, stats, frozen, aux, batch, key, step):
        judge = {"params": params["discriminator"]}
        real = self.judge.apply(judge, batch["image"], batch["label"])
        fake = self.judge.apply(judge, aux, batch["label"])
        loss = jnp.mean(nn.relu(1 - real)) + jnp.mean(nn.relu(1 + fake))
        return loss, (stats, dict(discriminator_loss=loss))

    def after_update(self, params, stats, frozen, batch, key, step):
        return params, stats


FROZEN = dict(offset=np.full((SIZE,), 0.1, np.float32))
CONFIG = dict(name="fake", seed=3, tokenizer=dict(name="multiscale_vq", levels=(1, 2)))
