"""The groups of a config that are the same for every system: fields, defaults, and what each may hold."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

from vargen.limits import COUNT, EPS, RATE, SHARE, SIZE, STD, Above, AtLeast, Between, OneOf, Text

if TYPE_CHECKING:
    from ml_collections import ConfigDict

STEPS = 10**9
GUIDANCE = Between(0, 1e4)
GUIDANCE_SCHEDULES = ("constant", "linear", "linear_after", "linear_before", "cosine", "ramp")
TEMPERATURE = Between(0, 100)
# What decoding holds the kernels of dense layers in: the compute dtype, or 8 bits with a scale for each output.
WEIGHTS = ("full", "int8", "float8")
TOP_P = Between(0, 1, above=True)
TOP_K = Between(0, 2**24)
DECODING_STEPS = Between(0, 10**6)
TOKENS = Between(0, 2**20)
SEED = Between(0, 2**64 - 1)
SAMPLES = Between(4, 10**7)
BATCH = Between(1, 10**6)
LARGEST_IMAGE = 16384  # pixels a side
CROPS = ("center", "random", "five")
CROP_RANGE = Between(1, 4)


@dataclasses.dataclass
class Data:
    """Where the images come from, and what shape they take: `config.data`.

    Attributes:
      source: the digits that ship with vargen, emoji, a folder of pictures, the IDX files of MNIST or Fashion-MNIST,
        the digits in motion, shapes that vargen draws, or TensorFlow Datasets.
      path: the folder of pictures or IDX files, or the directory of TensorFlow Datasets.
      dataset: the name of the TensorFlow Datasets set.
      image_size: side in pixels of what is learnt and drawn.
      frames: of each clip, where the source has clips; 1: pictures.
      channels: grey or colour.
      num_classes: 0: as many as the source has.
      shift: largest random shift, pixels.
      flip: random mirror images.
      crop: the largest square in the middle; a square at random; or five, the corners and the middle of a square, which
        with flip make ten.
      crop_range: shorter sides, in image sizes, that pictures are scaled to before a crop at random, which draws one
        from the first to the last, or five, which take each.
      filter: what pictures are scaled with in training: halves and a cubic filter (ADM), or Lanczos's at once.
      test_fraction: what is held out of a set that has no split of its own.
      skip_broken: broken files that a run goes on without.
    """

    source: Annotated[str, OneOf("digits", "emoji", "folder", "idx", "moving_digits", "shapes", "tfds")] = (
        "digits"
    )
    path: str = ""
    dataset: str = ""
    image_size: Annotated[int, Between(1, LARGEST_IMAGE)] = 16
    frames: Annotated[int, Between(1, 4096)] = 1
    channels: Annotated[int, OneOf(1, 3)] = 1
    num_classes: Annotated[int, Between(0, 2**24)] = 10
    shift: Annotated[int, Between(0, LARGEST_IMAGE)] = 0
    flip: bool = False
    crop: Annotated[str, OneOf(*CROPS)] = "center"
    crop_range: Annotated[tuple[float, ...], CROP_RANGE] = (1.0, 1.25)
    filter: Annotated[str, OneOf("cubic", "lanczos")] = "cubic"
    test_fraction: Annotated[float, Between(0, 1, above=True, below=True)] = 0.1
    skip_broken: Annotated[int, Between(0, 10**6)] = 0


def size(data: Mapping[str, Any]) -> tuple[int, ...]:
    """(H, W) of the pictures of `config.data`, whose side may be a pair in Python; (T, H, W) of clips."""
    side, frames = data["image_size"], data.get("frames", 1)
    sides = (side, side) if isinstance(side, int) else tuple(side)
    return sides if frames == 1 else (frames, *sides)


@dataclasses.dataclass
class Sampling:
    """How samples are drawn where a command doesn't say: `config.sampling`.

    Attributes:
      guidance: classifier-free guidance scale; 1: none.
      guidance_schedule: how guidance changes over the decoding steps.
      guidance_start: where the linear schedules start.
      guidance_power: the exponent of the schedule "cosine".
      guidance_before: guidance of the levels before the last, of an order level by level, each with a schedule of its
        own; none: one schedule over all.
      guidance_steps: decoding steps with guidance; 0: all.
      guidance_rise: steps after which the schedule "ramp" reaches the scale, and rises on; 0: at the last.
      guidance_side: of the schedule "ramp": levels of a larger side have the whole scale; 0: none.
      spatial_guidance: of several levels that are sizes of the whole picture: guidance by the smaller one; 1: none.
      spatial_share: of the smaller picture's codes, what that guidance leaves out to compare.
      temperature: below 1: safer, above: wilder.
      top_k: keeps the likeliest codes; 0: all. One for each of a slot's codes, where it holds several: (100, 50).
      top_p: keeps this share of probability; likewise.
      steps: decoding steps, if the order has a choice; 0: its own.
      schedule: of each level how many slots each of its steps keeps (order masked_levels): ((1,), (1, 3), (9,)); none:
        each level in one step.
      levels: sides, or (height, width) pairs, coarse to fine, in the place of those trained (tokenizers of independent
        levels, such as pyramid_vq); of one level the size of the picture in slots, or several: as trained, and each
        twice the one before, around it (orders that may begin anywhere, such as random); none: as trained.
      tokens: how many tokens, the first ones, are drawn, where these are a picture by themselves (encoder registers,
        nested); 0: all.
      random_sides: sides of the levels whose codes are drawn, others take the likeliest; none: all are.
      policy: one step after another, or speculative Jacobi decoding: drafts of several steps are verified in one pass.
      lookahead: steps that a pass of the latter looks at.
      guess: its first drafts: drawn at random, or the code to the left.
    """

    guidance: Annotated[float, GUIDANCE] = 1.0
    guidance_schedule: Annotated[str, OneOf(*GUIDANCE_SCHEDULES)] = "constant"
    guidance_start: Annotated[float, GUIDANCE] = 1.0
    guidance_power: Annotated[float, Between(0, 100)] = 1.0
    guidance_before: Annotated[tuple[float, ...], GUIDANCE] = ()
    guidance_steps: Annotated[int, DECODING_STEPS] = 0
    guidance_rise: Annotated[int, DECODING_STEPS] = 0
    guidance_side: Annotated[int, DECODING_STEPS] = 0
    spatial_guidance: Annotated[float, GUIDANCE] = 1.0
    spatial_share: Annotated[float, SHARE] = 0.5
    temperature: Annotated[float, TEMPERATURE] = 1.0
    top_k: Annotated[int | tuple[int, ...], TOP_K] = 0
    top_p: Annotated[float | tuple[float, ...], TOP_P] = 1.0
    steps: Annotated[int, DECODING_STEPS] = 0
    schedule: Annotated[tuple[tuple[int, ...], ...], Between(1, 2**24)] = ()
    levels: Annotated[tuple[int | tuple[int, int], ...], Between(1, 4096)] = ()
    tokens: Annotated[int, TOKENS] = 0
    random_sides: Annotated[tuple[int, ...], Between(1, 4096)] = ()
    policy: Annotated[str, OneOf("scheduled", "jacobi")] = "scheduled"
    lookahead: Annotated[int, Between(1, 4096)] = 16
    guess: Annotated[str, OneOf("random", "left")] = "random"


@dataclasses.dataclass
class Preset:
    """Named settings for --preset: one of `config.presets`.

    Attributes:
      count: images of each class; 0: as always.
      resize: side in pixels to which samples are scaled; 0: not.
      labels: of --fid-samples: classes in turn, all alike (balanced), or each drawn (random).
      rounding: of --fid-samples: levels to the nearest whole one, or down.
      sampling: fields of `config.sampling`.
    """

    count: Annotated[int, Between(0, 10**6)] = 0
    resize: Annotated[int, Between(0, LARGEST_IMAGE)] = 0
    labels: Annotated[str, OneOf("balanced", "random")] = "balanced"
    rounding: Annotated[str, OneOf("nearest", "down")] = "nearest"
    sampling: Any = dataclasses.field(default_factory=Sampling)


@dataclasses.dataclass
class Mesh:
    """The mesh of devices; one size may be -1 and takes what the others leave.

    Attributes:
      data: the batch is split over these devices, parameters are copied.
      fsdp: batch and parameters are split.
      tensor: heads and hidden sizes are split.
    """

    data: Annotated[int, Between(-1, 2**20)] = -1
    fsdp: Annotated[int, Between(-1, 2**20)] = 1
    tensor: Annotated[int, Between(-1, 2**20)] = 1


@dataclasses.dataclass
class Training:
    """A training run: `config.training`, and with losses `config.tokenizer_training`.

    Attributes:
      steps: updates.
      batch_size: images of an update, over all devices.
      learning_rate: its peak.
      min_learning_rate: what a schedule ends at.
      warmup_steps: updates over which the learning rate rises.
      warmup_start: share of the peak that it rises from at the first update; none: (update + 1) / warmup_steps.
      schedule: of the learning rate after them.
      hold: share of the updates after them at which the learning rate stays at its peak, before it falls.
      optimizer: what makes updates of gradients.
      b1, b2: decays of AdamW's two averages.
      weight_decay: AdamW's, on the parameters that decay.
      final_weight_decay: what it ends at, by a half cosine over all updates; none: as it starts.
      decay: which parameters decay: patterns of their names (blocks/mixer/query/kernel), of which the last that fits
        decides; one after "!" takes them out.
      trained: which parameters are trained at all, by such patterns; the others stay as they begin.
      clip_norm: largest norm of the gradient; 0: no clipping.
      ema_decay: of the average of the parameters, which samples are drawn with; 0: the last parameters themselves.
      ema_warmup: the average forgets fast at first: its decay is at most (1 + update) / (10 + update).
      accumulate: micro-batches that a batch is cut into, one after the other.
      remat: what of a generator's block is computed again in the backward pass instead of kept: none; all but
        what products and kernels gave (products); or the whole block (blocks), a third more work.
      scan_layers: a generator's layers are one loop; unrolled (False) they compile longer, and on GPUs take less time.
      log_every: updates between two records.
      save_every: updates between two checkpoints.
      keep: how many checkpoints stay.
      validate_every: updates between two looks at held-out pictures, beside those at every save; 0: at saves alone.
      image_every: updates between image grids in TensorBoard; 0: never.
      codes: generators: train on stored codes instead of encoding every batch.
      augmented_copies: stored codes: copies of the data, each changed anew, or where the changes give a number of views
        (center, five; with and without flip) by the next of these; 1: unchanged. Training makes no more than it passes
        over the data.
      mesh: of devices.
    """

    steps: Annotated[int, Between(1, STEPS)] = 1000
    batch_size: Annotated[int, BATCH] = 64
    learning_rate: Annotated[float, Between(0, 100)] = 1e-3
    min_learning_rate: Annotated[float, Between(0, 100)] = 0.0
    warmup_steps: Annotated[int, Between(0, STEPS)] = 100
    warmup_start: Annotated[float | None, SHARE] = None
    schedule: Annotated[str, OneOf("cosine", "linear", "constant")] = "cosine"
    hold: Annotated[float, RATE] = 0.0
    optimizer: Annotated[str, OneOf("adamw")] = "adamw"
    b1: Annotated[float, RATE] = 0.9
    b2: Annotated[float, RATE] = 0.95
    weight_decay: Annotated[float, Between(0, 100)] = 0.05
    final_weight_decay: Annotated[float | None, Between(0, 100)] = None
    decay: tuple[str, ...] = ("*kernel",)
    trained: tuple[str, ...] = ("*",)
    clip_norm: Annotated[float, AtLeast(0)] = 1.0
    ema_decay: Annotated[float, RATE] = 0.99
    ema_warmup: bool = True
    accumulate: Annotated[int, BATCH] = 1
    remat: Annotated[str, OneOf("none", "products", "blocks")] = "none"
    scan_layers: bool = True
    log_every: Annotated[int, Between(1, STEPS)] = 10
    save_every: Annotated[int, Between(1, STEPS)] = 500
    keep: Annotated[int, Between(1, 10**6)] = 3
    validate_every: Annotated[int, Between(0, STEPS)] = 0
    image_every: Annotated[int, Between(0, STEPS)] = 0
    codes: bool = True
    augmented_copies: Annotated[int, Between(1, 10**5)] = 1
    mesh: Any = dataclasses.field(default_factory=Mesh)


@dataclasses.dataclass
class Losses:
    """What a tokenizer is trained on: `config.tokenizer_training.losses`.

    Attributes:
      l1, l2: weights of the mean absolute and squared error.
      ms_ssim: weight of 1 - MS-SSIM, the structural similarity at several scales.
      perceptual: weight of the perceptual loss LPIPS, which needs `perceptual_weights`.
      gram: weight of the squared distance of the same network's Gram matrices, which needs them too.
      perceptual_weights: file of that network, safetensors or npz.
      adversarial: weight of the discriminator's judgement; 0: there is none.
      adversarial_start: the update at which it begins.
      adversarial_kind: its form.
      adaptive: the adversarial weight balances the gradients of the last layer (VQGAN).
      discriminator: the part that judges.
      discriminator_learning_rate: its peak.
      augment: what changes real and decoded pictures at random before the discriminator sees them: their colour, a move
        by up to an eighth, a square that is cut out (DiffAugment); none: nothing does.
      augment_hole: share of each side that is cut out.
      lecam: weight of LeCam's regularisation in the discriminator's loss.
      lecam_decay: of its averages of logits.
      r1: weight of R1 in the discriminator's loss, a half of it times the squared gradient at real pictures.
      r1_every: updates between two of which R1 counts, so many times as much.
      semantic: weight of the loss that draws features towards a teacher's; 0: none.
      semantic_kind: of features place by place, by the angle (cosine); or of whole pictures, each told from the others
        of its batch (contrastive).
      semantic_at: which features: latents; those of a module of the decoder by its name (block1), or of the encoder
        (encoder/merged); or taught, of a decoder direct with taught=True.
      semantic_whole_at: features whose mean over places is drawn towards the teacher's of whole pictures too, by the
        angle; as of semantic_at, '': none.
      semantic_margin: what a cosine may lack of 1 at no cost.
      semantic_channels: the first so many channels of them alone; 0: all.
      semantic_hidden: width of the network between them and the teacher's; 0: one linear map.
      semantic_temperature: of the contrastive loss.
      prior: weight of the cross-entropy of a small transformer that learns to draw the codes; 0: none.
      prior_width, prior_layers, prior_heads: of its blocks.
      prior_temperature: by which the likenesses of its vectors to the codes are divided.
      prior_ratio: of the vectors that it reads in a second round, those that it drew itself, at most.
      prior_rise: share of the training after which there are so many.
      teacher: a part: dinov2, siglip or efficientnet, with the file of its weights.
    """

    l1: Annotated[float, AtLeast(0)] = 0.0
    l2: Annotated[float, AtLeast(0)] = 1.0
    ms_ssim: Annotated[float, AtLeast(0)] = 0.0
    perceptual: Annotated[float, AtLeast(0)] = 0.0
    gram: Annotated[float, AtLeast(0)] = 0.0
    perceptual_weights: str = ""
    adversarial: Annotated[float, AtLeast(0)] = 0.0
    adversarial_start: Annotated[int, Between(0, STEPS)] = 0
    adversarial_kind: Annotated[str, OneOf("hinge", "vanilla", "non_saturating")] = "hinge"
    adaptive: bool = False
    discriminator: Any = dataclasses.field(default_factory=lambda: dict(name="patch"))
    discriminator_learning_rate: Annotated[float, Between(0, 100)] = 1e-4
    augment: Annotated[tuple[str, ...], OneOf("color", "translation", "cutout")] = ()
    augment_hole: Annotated[float, SHARE] = 0.5
    lecam: Annotated[float, AtLeast(0)] = 0.0
    lecam_decay: Annotated[float, RATE] = 0.999
    r1: Annotated[float, AtLeast(0)] = 0.0
    r1_every: Annotated[int, Between(1, STEPS)] = 1
    semantic: Annotated[float, AtLeast(0)] = 0.0
    semantic_kind: Annotated[str, OneOf("cosine", "contrastive")] = "cosine"
    semantic_at: Annotated[str, Text("the name of features")] = "latents"
    semantic_whole_at: Annotated[str, Text("the name of features or nothing")] = ""
    semantic_margin: Annotated[float, Between(0, 2)] = 0.0
    semantic_channels: Annotated[int, Between(0, 2**20)] = 0
    semantic_hidden: Annotated[int, Between(0, 2**20)] = 2048
    semantic_temperature: Annotated[float, Above(0)] = 0.07
    prior: Annotated[float, AtLeast(0)] = 0.0
    prior_width: Annotated[int, SIZE] = 128
    prior_layers: Annotated[int, COUNT] = 4
    prior_heads: Annotated[int, COUNT] = 4
    prior_temperature: Annotated[float, Above(0)] = 0.7
    prior_ratio: Annotated[float, SHARE] = 0.5
    prior_rise: Annotated[float, Above(0)] = 0.3
    teacher: Any = None


@dataclasses.dataclass
class TokenizerTraining(Training):
    """`config.tokenizer_training`.

    Attributes:
      crop: in the place of `data.crop` while the tokenizer is trained; "": the same.
      crop_range: then in the place of `data.crop_range`.
      losses: what the tokenizer is trained on.
    """

    b2: Annotated[float, RATE] = 0.95
    weight_decay: Annotated[float, Between(0, 100)] = 0.0
    crop: Annotated[str, OneOf("", *CROPS)] = ""
    crop_range: Annotated[tuple[float, ...], CROP_RANGE] = (1.0, 1.25)
    losses: Any = dataclasses.field(default_factory=Losses)


@dataclasses.dataclass
class Evaluation:
    """How a model is measured: `config.evaluation`.

    Attributes:
      samples: images drawn, and held-out images compared with.
      batch_size: how many at once.
      seed: of the samples.
    """

    samples: Annotated[int, SAMPLES] = 500
    batch_size: Annotated[int, BATCH] = 100
    seed: Annotated[int, SEED] = 0


@dataclasses.dataclass
class Model:
    """A generator's sizes, and what a block is made of (`Block`): `config.model`, which holds those it sets.

    Attributes:
      layers: of all stages together, which share them evenly; or of each, as a tuple.
      width: D, of the rows.
      mlp_width: hidden size of a block's MLP; 0: four times the width.
      mlp: its kind.
      norm: the blocks' norms.
      affine: whether norms have a scale and a bias.
      eps: of the norms.
      norm_position: before a block's branches; after the sum with them (BERT), without a norm before the head; or after
        a branch, before the sum (Swin v2).
      bias: whether the MLP's products have a bias.
      adaptive: whether the condition modulates the blocks, each by a product of its own or all by a shared one; or the
        round of a feed of several does ("rounds").
      final_norm: of the norm before the head, where blocks are modulated: it is too, in the place of a learned scale;
        or has a learned scale alone; or both. With none there is no such norm.
      adaln_zero: modulations start at zero.
      gate_gain: factor on the initial modulations that gate a block's branches.
      init_std: of the initial parameters; negative: sqrt(1 / (3 D)), VAR's rule; 0: Xavier's.
      init: their normal distribution: cut at two deviations, which leaves 0.88 of init_std, or whole.
      depth_scaled_init: projections out of a residual branch start smaller by sqrt(2 L).
      dropout: of blocks.
      drop_path: probability with which a block is left out, rising with depth to this.
      skips: each block of a stage's second half takes what the one as far from the other end gave too, by a product of
        both (U-ViT).
    """

    layers: Annotated[int | tuple[int, ...], COUNT] = 0
    width: Annotated[int, SIZE] = 0
    mlp_width: Annotated[int, Between(0, 2**22)] = 0
    mlp: Annotated[str, OneOf("gelu", "gelu_tanh", "gelu_sigmoid", "swiglu", "geglu")] = "gelu_tanh"
    norm: Annotated[str, OneOf("layer", "rms")] = "layer"
    affine: bool = True
    eps: Annotated[float, EPS] = 1e-6
    norm_position: Annotated[str, OneOf("pre", "post", "res_post")] = "pre"
    bias: bool = True
    adaptive: Annotated[str, OneOf("none", "adaln", "shared", "rounds")] = "none"
    final_norm: Annotated[str, OneOf("modulated", "learned", "both", "none")] = "modulated"
    adaln_zero: bool = False
    gate_gain: Annotated[float, Between(0, 100)] = 1e-5
    init_std: Annotated[float, STD] = 0.02
    init: Annotated[str, OneOf("truncated", "normal")] = "truncated"
    depth_scaled_init: bool = False
    dropout: Annotated[float, RATE] = 0.0
    drop_path: Annotated[float, RATE] = 0.0
    skips: bool = False


@dataclasses.dataclass
class Config:
    """What stands at the top of a config, beside the axes and the groups above.

    Attributes:
      name: what reports call it.
      seed: of the initial parameters, the order of the data and everything drawn in training.
      compute_dtype: "auto": bfloat16 on accelerators, float32 on the CPU.
    """

    name: str = ""
    seed: Annotated[int, SEED] = 0
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
