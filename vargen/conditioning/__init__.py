"""Conditioning: what is known of the image before its first slot.

A conditioning part is a Linen module from labels (any pytree with a leading axis of examples) to a `Condition`.
`rows` is how many rows it makes, `pooled` whether it also gives a vector, `hides` whether it can hide rows. `parse`
checks what a user gave, `drop` takes labels away in training, `without` all of them (for guidance), `example` is
one for initialisation.
"""

from vargen.conditioning.caption import CaptionEmbedding, Captions
from vargen.conditioning.condition import Condition
from vargen.conditioning.label import LabelEmbedding
from vargen.conditioning.words import WordEmbedding

CONDITIONINGS = {"caption": CaptionEmbedding, "label": LabelEmbedding, "words": WordEmbedding}

__all__ = ["CONDITIONINGS", "CaptionEmbedding", "Captions", "Condition", "LabelEmbedding", "WordEmbedding"]
