"""The groups of a config that are the same for every system: fields, defaults, and what each may hold."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Annotated, Any

from vargen.limits import COUNT, EPS, RATE, SIZE, STD, AtLeast, Between, OneOf

if TYPE_CHECKING:
    from ml_collections import ConfigDict

STEPS = 10**9
GUIDANCE = Between(0, 1e4)
TEMPERATURE = Between(0, 100)
TOP_P = Between(0, 1, above=True)
TOP_K = Between(0, 2**24)
DECODING_STEPS = Between(0, 10**6)
SEED = Between(0, 2**64 - 1)
SAMPLES = Between(4, 10**7)
BATCH = Between(1, 10**6)
LARGEST_IMAGE = 16384  # pixels a side


@dataclasses.dataclass
class Data:
    """Where the images come from, and what shape they take: `config.data`."""

    source: Annotated[str, OneOf("digits", "emoji", "folder", "tfds")] = "digits"
    path: str = ""  # the folder, or the TensorFlow Datasets directory
    dataset: str = ""  # the TensorFlow Datasets name
    image_size: Annotated[int, Between(1, LARGEST_IMAGE)] = 16
    channels: Annotated[int, OneOf(1, 3)] = 1
    num_classes: Annotated[int, Between(0, 2**24)] = 10  # 0: as many as the source has
    shift: Annotated[int, Between(0, LARGEST_IMAGE)] = 0  # largest random shift, pixels
    flip: bool = False  # random mirror images
    crop: Annotated[str, OneOf("center", "random")] = "center"
    test_fraction: Annotated[float, Between(0, 1, above=True, below=True)] = 0.1  # where the set has no split
    skip_broken: Annotated[int, Between(0, 10**6)] = 0  # broken files that a run goes on without


@dataclasses.dataclass
class Sampling:
    """How samples are drawn where a command doesn't say: `config.sampling`."""

    guidance: Annotated[float, GUIDANCE] = 1.0
    guidance_schedule: Annotated[str, OneOf("constant", "linear", "cosine", "ramp")] = "constant"
    guidance_power: Annotated[float, Between(0, 100)] = 1.0
    guidance_steps: Annotated[int, DECODING_STEPS] = 0
    temperature: Annotated[float, TEMPERATURE] = 1.0
    top_k: Annotated[int, TOP_K] = 0
    top_p: Annotated[float, TOP_P] = 1.0
    steps: Annotated[int, DECODING_STEPS] = 0


@dataclasses.dataclass
class Preset:
    """Named settings for --preset: one of `config.presets`."""

    count: Annotated[int, Between(0, 10**6)] = 0  # images of each class; 0: as always
    resize: Annotated[int, Between(0, LARGEST_IMAGE)] = (
        0  # side in pixels to which samples are scaled; 0: not
    )
    sampling: Any = dataclasses.field(default_factory=Sampling)


@dataclasses.dataclass
class Mesh:
    """The mesh of devices; one size may be -1 and takes what the others leave."""

    data: Annotated[int, Between(-1, 2**20)] = -1
    fsdp: Annotated[int, Between(-1, 2**20)] = 1
    tensor: Annotated[int, Between(-1, 2**20)] = 1


@dataclasses.dataclass
class Training:
    """A training run: `config.training`, and with losses `config.tokenizer_training`."""

    steps: Annotated[int, Between(1, STEPS)] = 1000
    batch_size: Annotated[int, BATCH] = 64
    learning_rate: Annotated[float, Between(0, 100)] = 1e-3
    min_learning_rate: Annotated[float, Between(0, 100)] = 0.0
    warmup_steps: Annotated[int, Between(0, STEPS)] = 100
    schedule: Annotated[str, OneOf("cosine", "linear", "constant")] = "cosine"
    optimizer: Annotated[str, OneOf("adamw")] = "adamw"
    b1: Annotated[float, RATE] = 0.9
    b2: Annotated[float, RATE] = 0.95
    weight_decay: Annotated[float, Between(0, 100)] = 0.05
    clip_norm: Annotated[float, AtLeast(0)] = 1.0  # 0: no clipping
    ema_decay: Annotated[float, RATE] = 0.99
    accumulate: Annotated[int, BATCH] = 1  # micro-batches that a batch is cut into, one after the other
    remat: bool = False
    log_every: Annotated[int, Between(1, STEPS)] = 10
    save_every: Annotated[int, Between(1, STEPS)] = 500
    keep: Annotated[int, Between(1, 10**6)] = 3
    image_every: Annotated[int, Between(0, STEPS)] = 0  # steps between image grids in TensorBoard; 0: never
    codes: bool = True  # generators: train on stored codes instead of encoding every batch
    augmented_copies: Annotated[int, Between(1, 10**5)] = 1  # stored codes: augmented copies of the data
    mesh: Any = dataclasses.field(default_factory=Mesh)


@dataclasses.dataclass
class Losses:
    """What a tokenizer is trained on: `config.tokenizer_training.losses`."""

    l1: Annotated[float, AtLeast(0)] = 0.0
    l2: Annotated[float, AtLeast(0)] = 1.0
    perceptual: Annotated[float, AtLeast(0)] = 0.0
    perceptual_weights: str = ""  # safetensors or npz of the perceptual network; empty: no perceptual loss
    adversarial: Annotated[float, AtLeast(0)] = 0.0
    adversarial_start: Annotated[int, Between(0, STEPS)] = 0
    adversarial_kind: Annotated[str, OneOf("hinge", "vanilla", "non_saturating")] = "hinge"
    adaptive: bool = False
    discriminator_width: Annotated[int, SIZE] = 64
    discriminator_layers: Annotated[int, Between(1, 16)] = 3
    discriminator_learning_rate: Annotated[float, Between(0, 100)] = 1e-4


@dataclasses.dataclass
class TokenizerTraining(Training):
    """`config.tokenizer_training`."""

    b2: Annotated[float, RATE] = 0.95
    weight_decay: Annotated[float, Between(0, 100)] = 0.0
    losses: Any = dataclasses.field(default_factory=Losses)


@dataclasses.dataclass
class Evaluation:
    """How a model is measured: `config.evaluation`."""

    samples: Annotated[int, SAMPLES] = 500
    batch_size: Annotated[int, BATCH] = 100
    seed: Annotated[int, SEED] = 0


@dataclasses.dataclass
class Model:
    """A generator's sizes, and what a block is made of (`Block`): `config.model`, which holds those it sets."""

    # Of all stacks together, which share them evenly; or of each, as a tuple.
    layers: Annotated[int | tuple[int, ...], COUNT] = 0
    width: Annotated[int, SIZE] = 0
    mlp_width: Annotated[int, Between(0, 2**22)] = 0  # 0: four times the width
    mlp: Annotated[str, OneOf("gelu", "gelu_tanh", "swiglu")] = "gelu_tanh"
    norm: Annotated[str, OneOf("layer", "rms")] = "layer"
    affine: bool = True
    eps: Annotated[float, EPS] = 1e-6
    bias: bool = True
    adaptive: Annotated[str, OneOf("none", "adaln", "shared")] = "none"
    adaln_zero: bool = False
    init_std: Annotated[float, STD] = 0.02
    depth_scaled_init: bool = False  # projections out of a residual branch start smaller by sqrt(2 L)
    dropout: Annotated[float, RATE] = 0.0
    drop_path: Annotated[float, RATE] = 0.0


@dataclasses.dataclass
class Config:
    """What stands at the top of a config, beside the axes and the groups above."""

    name: str = ""
    seed: Annotated[int, SEED] = 0
    # "auto": bfloat16 on accelerators, float32 on the CPU
    compute_dtype: Annotated[str, OneOf("auto", "float32", "bfloat16")] = "auto"


# By the place in a config; every one of `presets` is a `Preset`.
GROUPS: dict[str, type] = {
    "data": Data,
    "sampling": Sampling,
    "tokenizer_training": TokenizerTraining,
    "tokenizer_training.losses": Losses,
    "tokenizer_training.mesh": Mesh,
    "training": Training,
    "training.mesh": Mesh,
    "evaluation": Evaluation,
    "model": Model,
}


def defaults(group: type) -> ConfigDict:
    """A group with its defaults."""
    from ml_collections import ConfigDict  # slow to import, and the commands' help needs the limits alone

    return ConfigDict(dataclasses.asdict(group()))
