"""Images and stored codes: sources by index, and the pipeline that makes batches of them."""

from vargen.data.pipeline import arrays, batches, in_batches, padded, to_float
from vargen.data.sources import ArraySource, Source, load

__all__ = ["ArraySource", "Source", "arrays", "batches", "in_batches", "load", "padded", "to_float"]
