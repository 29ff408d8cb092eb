"""One look at a whole config before anything is trained: what must fit together, then an abstract trace of all."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import AbstractMesh, AxisType

from vargen import config as configs
from vargen import models, samplers, schema, sharding
from vargen.errors import UserError
from vargen.generator import Generator
from vargen.models import build_generator, build_tokenizer, require
from vargen.samplers import Sampling, decode
from vargen.tokenizers import discriminators
from vargen.tokenizers.losses import PERCEPTUAL

FITTING = ("l1", "l2", "ms_ssim", "perceptual")  # weights of losses that bring pictures back
SIDES = dict(digits=8, moving_digits=16, shapes=16)  # the smallest image_size of a source


def check_fields(c: Any) -> None:
    """Every field by itself, and the data's against each other; nothing is built or traced.

    Raises:
      UserError: naming the field.
    """
    configs.check(c)
    require(c, "data", "sampling", "tokenizer_training", "training", "evaluation")
    least = SIDES.get(c.data.source, 1)
    if c.data.image_size < least:
        raise UserError(
            f"config field data.image_size: expected at least {least} for {c.data.source}, found {c.data.image_size}"
        )
    if c.data.shift >= c.data.image_size:
        raise UserError(
            f"config field data.shift: expected less than image_size, {c.data.image_size}, found {c.data.shift}"
        )
    for group in ("data", "tokenizer_training"):
        scales = tuple(c[group].crop_range)
        if not scales or list(scales) != sorted(set(scales)):
            raise UserError(
                f"config field {group}.crop_range: expected at least one number, each above the last, found {scales}"
            )


def check(c: Any, devices: int, processes: int = 1, memory: Mapping[str, int] | None = None) -> Generator:
    """A whole config, before its first step. No parameter is allocated, no data is read.

    Args:
      c: `data.num_classes` filled in.
      devices: of all processes together.
      processes: of the run.
      memory: bytes of one device, by the group (`tokenizer_training`, `training`) of what will be trained there;
        others are not held against it.

    Returns:
      The generator.

    Raises:
      UserError: a field by itself, fields that don't fit each other, or a part that cannot be traced.
    """
    check_fields(c)
    tokenizer = build_tokenizer(c)
    generator = build_generator(c, tokenizer)
    for group in ("tokenizer_training", "training"):
        _check_run(c[group], group, devices, processes)
    _check_sampling(c, tokenizer, generator)
    _trace(c, tokenizer, generator, devices, memory or {})
    return generator


def _check_run(settings: Any, group: str, devices: int, processes: int) -> None:
    """Mesh and devices, batch and pieces, rates that contradict each other."""
    sizes = sharding.mesh_sizes(**settings.mesh, devices=devices, name=f"config field {group}.mesh")
    name = f"config field {group}.batch_size"
    sharding.check_batch(settings.batch_size, settings.accumulate, sizes[0] * sizes[1], name)
    if settings.min_learning_rate > settings.learning_rate:
        raise UserError(
            f"config field {group}.min_learning_rate: expected at most learning_rate, {settings.learning_rate:g}, "
            f"found {settings.min_learning_rate:g}"
        )
    if "losses" in settings and not any(settings.losses[k] for k in FITTING):
        raise UserError(
            f"config field {group}.losses: expected a weight above 0 for {', '.join(FITTING[:-1])} or {FITTING[-1]}, "
            "found none"
        )


def _check_sampling(c: Any, tokenizer: Any, generator: Generator) -> None:
    """The sampling settings, and those of every preset, against the order and the head."""
    named = {f"presets.{name}.sampling": preset["sampling"] for name, preset in c.get("presets", {}).items()}
    for name, settings in dict(sampling=c.sampling, **named).items():
        check_sampling(generator, Sampling.make(**settings), name)
        for field in ("levels", "tokens"):
            if settings.get(field):
                models.sampled(configs.override(c, [(f"sampling.{field}", settings[field])]), tokenizer)


def check_sampling(generator: Generator, sampling: Sampling, where: str = "sampling") -> None:
    """Sampling settings against the parts of a generator.

    Raises:
      UserError: naming the field below `where`; see `samplers.check_ahead`.
    """
    try:
        samplers.check_ahead(generator, sampling)
    except ValueError as error:
        field = str(error).removeprefix("sampling.")
        joint = "." if field != str(error) else ": "
        raise UserError(f"config field {where}{joint}{field}") from error


def _check_memory(group: str, settings: Any, state: Any, batch: dict, devices: int, memory: int) -> None:
    """What a device must hold at the very least: its part of the state, and its rows of a batch.

    Activations come on top, so that what passes may still be too much; what doesn't pass can never be trained.
    """
    data, fsdp, tensor = sharding.mesh_sizes(**settings.mesh, devices=devices, name=group)
    own = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(state)) // (fsdp * tensor)
    rows = settings.batch_size // (data * fsdp)
    fed = rows * sum(x.size // len(x) * x.dtype.itemsize for x in jax.tree.leaves(batch))
    has = f"expected what fits in the memory of a device, {memory / 2**30:.1f} GiB, found"
    if own > memory:
        what = "model" if group == "training" else "tokenizer"
        raise UserError(
            f"config field {what}: {has} {own / 2**30:.1f} GiB of parameters, their average and moments; "
            f"{group}.mesh.fsdp splits them over devices"
        )
    if own + fed > memory:
        raise UserError(
            f"config field {group}.batch_size: {has} {fed / 2**30:.1f} GiB of {rows} items beside "
            f"{own / 2**30:.1f} GiB of parameters"
        )


def _trace(c: Any, tokenizer: Any, generator: Generator, devices: int, memory: Mapping[str, int]) -> None:
    """Everything that training and sampling will run, by shapes alone."""
    from vargen.training import optimizer, state
    from vargen.training.step import update
    from vargen.training.tasks import GeneratorTask, TokenizerTask

    key = jax.eval_shape(lambda: jax.random.key(0))
    image = (*schema.size(c.data), c.data.channels)
    mesh = AbstractMesh((1, 1, 1), sharding.MESH_AXES, axis_types=(AxisType.Auto,) * 3)

    def batch_of(settings: Any, **arrays: Any) -> dict:
        rows = settings.accumulate * min(settings.batch_size // settings.accumulate, 2)
        return {k: jax.ShapeDtypeStruct((rows, *shape), dtype) for k, (shape, dtype) in arrays.items()}

    def trained(task: Any, group: str, frozen: Any, batch: dict) -> Any:
        settings = c[group]
        optimizers = optimizer.build(settings, state.boxed(task))
        abstract = state.shapes(task, optimizers)
        if group in memory:
            _check_memory(group, settings, abstract, batch, devices, memory[group])
        for field in ("decay", "trained"):
            optimizer.check_patterns(abstract.params["model"], settings[field], f"{group}.{field}")
        step = update(task, settings, mesh)
        jax.eval_shape(step, abstract, frozen, batch, key)
        return abstract.params["model"]

    with _stage("tokenizer", c.tokenizer.name):
        images = batch_of(c.tokenizer_training, image=(image, jnp.float32))
        settings = c.tokenizer_training
        if tokenizer.trained:
            discriminators.build(settings.losses.discriminator)  # its options, even where it doesn't judge
            task = TokenizerTask(
                tokenizer, settings, lambda weights, x, y: dict.fromkeys(PERCEPTUAL, jnp.zeros(len(x)))
            )
            judge = {} if task.adversary is None else task.adversary.discriminator.frozen()
            frozen = dict(perceptual={}, discriminator=judge)
            if task.semantic is not None:
                frozen["teacher"] = jax.eval_shape(task.semantic.teacher.init, key)
            params = trained(task, "tokenizer_training", frozen, images)
        else:
            params = jax.eval_shape(tokenizer.init, key)
        content = jax.eval_shape(tokenizer.encode, params, images["image"])
        jax.eval_shape(tokenizer.decode, params, content)
        stored = jax.eval_shape(tokenizer.stored, params, images["image"])
    with _stage("generator", f"{c.feed.name}, {c.mixer.name}, {c.head.name}"):
        label = jax.eval_shape(generator.condition.example)
        if generator.condition.takes == "embeddings":
            label = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), label)
            own = jax.eval_shape(generator.init, key)
        else:
            fed, frozen = dict(image=(image, jnp.float32)), params
            if c.training.codes:
                fed = dict(content=(stored.shape[1:], stored.dtype))
                frozen = dict(quantizer=params["quantizer"])
            batch = batch_of(c.training, **fed, label=(label.shape[1:], jnp.int32))
            own = trained(GeneratorTask(generator, tokenizer, c.training.steps), "training", frozen, batch)
    with _stage("sampling", c.order.name):
        settings, drawing = Sampling.make(**c.sampling), models.sampled(c, tokenizer, generator)[1]
        jax.eval_shape(
            lambda p, q, y, k: decode(drawing, p, q, y, k, settings)[0],
            own,
            params["quantizer"],
            label,
            key,
        )


@contextmanager
def _stage(stage: str, parts: str) -> Iterator[None]:
    """What can't be traced, in one line; the trace stays below it for whoever looks for a bug."""
    try:
        yield
    except UserError:
        raise
    except (ValueError, TypeError, IndexError, ZeroDivisionError, OverflowError, AttributeError) as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        if lines[0].startswith("config field"):
            raise UserError(lines[0]) from error
        raise UserError(f"config: its {stage} ({parts}) cannot be computed: {lines[0][:300]}") from error
