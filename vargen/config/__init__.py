"""Configs: the groups that they are written with, reading config files, and overriding single fields.

A config is an `ml_collections.ConfigDict`. A config file defines `get_config()` (or `get_config(variant)`, mostly a
size), starts from `config()` here and names the parts and sizes of one system; it contains no logic.
"""

from ml_collections import ConfigDict

from vargen.config.fields import AXES, check, override
from vargen.config.files import load, variants
from vargen.config.groups import (
    config,
    digits,
    imagenet,
    images,
    part,
    pictures,
    preset,
    small,
    small_data,
    small_vq,
    training,
)
from vargen.config.text import from_json, to_json

__all__ = [
    "AXES",
    "ConfigDict",
    "check",
    "config",
    "digits",
    "from_json",
    "images",
    "imagenet",
    "load",
    "override",
    "part",
    "pictures",
    "preset",
    "small",
    "small_data",
    "small_vq",
    "to_json",
    "training",
    "variants",
]
