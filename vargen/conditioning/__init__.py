"""Conditioning: what is known of the image before its first slot, as vectors of the model's width."""

from vargen.conditioning.label import LabelEmbedding

CONDITIONINGS = {"label": LabelEmbedding}

__all__ = ["CONDITIONINGS", "LabelEmbedding"]
