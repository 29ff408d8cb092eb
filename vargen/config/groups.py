"""What config files are written with: the shared schema with its defaults, its groups, and parts."""

from __future__ import annotations

from typing import Any

from ml_collections import ConfigDict

from vargen import schema
from vargen.errors import UserError


def part(name: str, **options: Any) -> ConfigDict:
    """A part of an axis: its registered name and its constructor's options (checked when it is built)."""
    return ConfigDict(dict(name=name, **{k: _plain(v) for k, v in options.items()}))


def _plain(value: Any) -> Any:
    """Parts within a sequence as plain mappings, which `to_dict` and JSON need, and `from_json` gives back."""
    if isinstance(value, (list, tuple)):
        return type(value)(v.to_dict() if isinstance(v, ConfigDict) else _plain(v) for v in value)
    return value


def config() -> ConfigDict:
    """The schema with its defaults; a config file adds the axes (`AXES`) and `model` (layers, width, ...)."""
    c = schema.defaults(schema.Config)
    c.data = digits()
    c.conditioning = part("label", dropout=0.1)
    c.sampling = schema.defaults(schema.Sampling)
    c.presets = ConfigDict()
    c.tokenizer_training = schema.defaults(schema.TokenizerTraining)
    c.training = schema.defaults(schema.Training)
    c.evaluation = schema.defaults(schema.Evaluation)
    return c


def preset(
    count: int = 0, resize: int = 0, labels: str = "balanced", rounding: str = "nearest", **sampling: Any
) -> ConfigDict:
    """Named settings for `config.presets`.

    Args:
      count: images drawn of each class; 0: as always.
      resize: side in pixels to which samples are scaled; 0: not.
      labels, rounding: of the samples of a FID, see `schema.Preset`.
      **sampling: fields of `config.sampling`; those not given have their defaults.
    """
    changed = _changed(schema.defaults(schema.Sampling), sampling)
    return ConfigDict(dict(count=count, resize=resize, labels=labels, rounding=rounding, sampling=changed))


def training(**changes: Any) -> ConfigDict:
    """Fields of a training run with defaults (`schema.Training`); `changes` replace some."""
    return _changed(schema.defaults(schema.Training), changes)


def images(
    source: str,
    image_size: int,
    channels: int,
    num_classes: int,
    *,
    path: str = "",
    dataset: str = "",
    **changes: Any,
) -> ConfigDict:
    """Fields of `config.data`: where the images come from, and what shape they take.

    Args:
      source: one of `data.SOURCES`.
      image_size: side in pixels.
      channels: 1 (grey) or 3.
      num_classes: number of labels; 0 takes the number that the source has.
      path: the folder, or the TensorFlow Datasets directory.
      dataset: the TensorFlow Datasets name.
      **changes: other fields of `schema.Data`.
    """
    fields = dict(source=source, image_size=image_size, channels=channels, num_classes=num_classes)
    return _changed(schema.defaults(schema.Data), dict(fields, path=path, dataset=dataset) | changes)


def _changed(c: ConfigDict, changes: dict[str, Any]) -> ConfigDict:
    for field in changes:
        if field not in c:
            raise UserError(f"config field {field}: unknown, expected among {', '.join(sorted(c))}")
    c.update(changes)
    return c


def digits() -> ConfigDict:
    """The handwritten digits that ship with vargen, at 16x16, randomly shifted by a pixel."""
    return images("digits", 16, 1, 10, shift=1)


def pictures(image_size: int) -> ConfigDict:
    """One's own pictures (`--config.data.path` names the folder), cut at random and mirrored."""
    return images("folder", image_size, 3, 0, flip=True, crop="random")


def small_data(size: str) -> ConfigDict:
    """The data of the sizes that every config has: `digits`, `pictures32` and `pictures64`."""
    return dict(digits=digits(), pictures32=pictures(32), pictures64=pictures(64))[size]


def small_vq(patch: int, vocab: int) -> ConfigDict:
    """A small VQ tokenizer of patches: normalised codes of 8 channels, the dead ones revived."""
    encoder = part("patch", patch=patch, blocks=1)
    return part(
        "vq", encoder=encoder, vocab=vocab, channels=8, codebook_weight=0.1, beta=0.02, revive_every=25
    )


def small(c: ConfigDict, *, tokenizer: dict[str, Any], generator: dict[str, Any]) -> None:
    """Short training, for `digits` and `pictures*`: the digits' shifts are stored eight times; of pictures, every
    look is another crop.

    Args:
      c: the config, its data set.
      tokenizer, generator: fields of both trainings.
    """
    views: dict[str, Any] = dict(augmented_copies=8) if c.data.source == "digits" else dict(codes=False)
    c.tokenizer_training.update(dict(batch_size=64, warmup_steps=50) | tokenizer)
    c.training.update(dict(batch_size=64, learning_rate=2e-3) | views | generator)


def imagenet(image_size: int, **changes: Any) -> ConfigDict:
    """ImageNet-1k, prepared by TensorFlow Datasets (`--config.data.path` names its directory)."""
    fields: dict[str, Any] = dict(dataset="imagenet2012", flip=True, crop="center") | changes
    return images("tfds", image_size, 3, 1000, **fields)
