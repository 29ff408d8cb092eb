"""Conditioning: what is known of the picture before its first slot. The axis's contract is `Conditioning`."""

from vargen.conditioning.caption import CaptionEmbedding, Captions
from vargen.conditioning.condition import Condition
from vargen.conditioning.conditioning import Conditioning
from vargen.conditioning.label import LabelEmbedding
from vargen.conditioning.memory import WordMemory
from vargen.conditioning.prompt import Prompt
from vargen.conditioning.text import Text
from vargen.conditioning.words import WordEmbedding

CONDITIONINGS = {
    "caption": CaptionEmbedding,
    "label": LabelEmbedding,
    "text": Text,
    "prompt": Prompt,
    "word_memory": WordMemory,
    "words": WordEmbedding,
}

__all__ = [
    "CONDITIONINGS",
    "CaptionEmbedding",
    "Captions",
    "Condition",
    "Conditioning",
    "LabelEmbedding",
    "Prompt",
    "Text",
    "WordEmbedding",
    "WordMemory",
]
