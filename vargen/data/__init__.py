"""Images and stored codes: sources by index, and the pipeline that makes batches of them."""

from vargen.data.pipeline import arrays, batches, to_float
from vargen.data.sources import ArraySource, Source, load

__all__ = ["ArraySource", "Source", "arrays", "batches", "load", "to_float"]
