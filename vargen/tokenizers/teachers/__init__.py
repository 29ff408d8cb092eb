"""Teachers: frozen networks whose features tokenizers are trained towards, or made of."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp

from vargen import parts
from vargen.tokenizers.teachers import dinov2, efficientnet, siglip
from vargen.tokenizers.teachers.teacher import Features, Teacher

TEACHERS = dict(dinov2=dinov2.build, siglip=siglip.build, efficientnet=efficientnet.build)


def build(part: Mapping[str, Any], place: str, dtype: Any = jnp.float32) -> Teacher:
    """The teacher that a part names.

    Args:
      part: name and options.
      place: where it stands in a config, for messages.
      dtype: of its computation; its features are float32.

    Raises:
      UserError: an unknown name or option, or sizes that don't fit each other.
    """
    return parts.build(TEACHERS, part, place, place=place, dtype=dtype)


__all__ = ["TEACHERS", "Features", "Teacher", "build"]
