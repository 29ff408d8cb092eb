"""Clips [..., T, H, W, C] as pictures [..., H, W, C]: where only pictures are known, there are two ways to see them."""

from __future__ import annotations

from typing import Any


def as_pictures(images: Any) -> Any:
    """Each frame a picture of its own: [B, T, H, W, C] -> [B T, H, W, C]; pictures [B, H, W, C] as they are."""
    return images.reshape(-1, *images.shape[-3:])


def strip(clips: Any) -> Any:
    """The frames of a clip side by side: [..., T, H, W, C] -> [..., H, T W, C]."""
    *before, frames, height, width, channels = clips.shape
    return clips.swapaxes(-4, -3).reshape(*before, height, frames * width, channels)
