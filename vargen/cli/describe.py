"""A trained model in words, for its report."""

from __future__ import annotations

import pathlib
import platform
from typing import TYPE_CHECKING, Any

from vargen import schema
from vargen.cli import common, env
from vargen.spelling import counted

if TYPE_CHECKING:
    from vargen.model import Model

DATA_TITLES = {
    "digits": "Handwritten digits",
    "emoji": "Emoji",
    "moving_digits": "Digits in motion",
    "shapes": "Shapes",
}


def title(model: Model) -> str:
    """The headline of the report."""
    settings = model.config.data
    named = settings.dataset or pathlib.Path(settings.path).name or settings.source
    return f"{DATA_TITLES.get(settings.source, named)}, drawn in {counted(len(common.step_sizes(model)), 'step')}"


def summary(model: Model, metrics: dict[str, float]) -> str:
    """Two sentences on what was trained on what."""
    from vargen.models import count_text, parameter_count
    from vargen.progress import duration

    c, grid = model.config, model.tokenizer.grid
    content = str(model.tokenizer.slot)
    size = count_text(parameter_count(model.generator))
    sentence = (
        f"{c.name or 'vargen'}: a tokenizer turns {'×'.join(map(str, schema.size(c.data)))} pixels into "
        f"{grid.size} slots, each holding {content}; a generator of {size} parameters writes them"
        f"{', class by class' if len(model.classes) > 1 else ''}."
    )
    if metrics.get("train_seconds"):
        sentence += f" Both were trained from scratch in {duration(metrics['train_seconds'])} on {machine()}."
    return sentence


def sizes(model: Model) -> dict[str, float]:
    """Parameters, and where it was trained here the FLOPs of the generator's updates, in products."""
    from vargen.models import parameter_count
    from vargen.training import work

    generator = model.needs_generator()
    found = dict(
        tokenizer_parameters=parameter_count(model.tokenizer), generator_parameters=parameter_count(generator)
    )
    if steps := model.steps[1]:
        images = steps * model.config.training.batch_size
        found["training_flops"] = images * work.of_generator(generator, model.tokenizer).flops
    return found


def facts(model: Model) -> dict[str, str]:
    """What else to say about a run: the six choices, sizes, machine and versions."""
    from vargen.config import AXES
    from vargen.models import count_text, parameter_count

    c = model.config
    told = {axis.capitalize(): part_text(c[axis]) for axis in AXES}
    told["Parameters"] = (
        f"tokenizer {count_text(parameter_count(model.tokenizer))}, "
        f"generator {count_text(parameter_count(model.generator))}"
    )
    told["Model"] = ", ".join(f"{k} {v}" for k, v in sorted(c.model.items()))
    told["Sampling"] = ", ".join(f"{k} {v}" for k, v in sorted(c.sampling.items()))
    return told | surroundings(machine())


def surroundings(devices: str) -> dict[str, str]:
    """The machine, by its devices, and the versions."""
    import flax
    import jax
    import numpy

    import vargen

    versions = [f"{module.__name__} {module.__version__}" for module in (vargen, jax, flax, numpy)]
    return dict(Machine=devices, Versions=", ".join([*versions, f"Python {platform.python_version()}"]))


def part_text(part: Any) -> str:
    """A part on one line: its name and options; of parts by their names these."""
    shown = {k: part_text(v) if hasattr(v, "items") else v for k, v in sorted(part.items()) if k != "name"}
    options = ", ".join(f"{k} {v}" for k, v in shown.items())
    name = part.get("name", "")
    return " ".join(text for text in (name, options and f"({options})") if text)


def machine() -> str:
    """The devices that JAX runs on, and the processor."""
    import jax

    on_processor = jax.default_backend() == "cpu"
    devices = "" if on_processor else f"{jax.device_count()} x {jax.devices()[0].device_kind}"
    return env.machine(devices, env.cores(), env.processor())
