"""What is measured of images and their reconstructions: `add` takes in a batch, `metrics` gives the numbers."""

from __future__ import annotations

from typing import Any


class Similar:
    """The mean of a measure of pairs of images."""

    def __init__(self, measure: Any, name: str) -> None:
        self._measure, self._name, self._values = measure, name, []

    def add(self, real: Any, reconstruction: Any) -> None:
        """Takes in images and reconstructions, [b, H, W, C] in [-1, 1]."""
        self._values.append(self._measure(real, reconstruction))

    def metrics(self) -> dict[str, float]:
        """The number by its name."""
        import numpy as np

        return {self._name: float(np.mean(np.concatenate(self._values)))}


def perceptual(file: str) -> Similar:
    """LPIPS by a network's file."""
    import jax
    import numpy as np

    from vargen.tokenizers.perceptual import load_perceptual

    function, params = load_perceptual(file)
    jitted = jax.jit(function)
    return Similar(lambda a, b: np.asarray(jitted(params, a, b)["perceptual"]), "lpips")


class Reconstructed:
    """rFID: reconstructions against the images that they are of."""

    def __init__(self, weights: str, count: int) -> None:
        from vargen.evaluation import fid
        from vargen.interop import inception

        self._encoder = inception.read(weights)
        fid.check_count("held-out images", count, max(self._encoder.sizes))
        self._sets = fid.Gathered(), fid.Gathered()

    def add(self, real: Any, reconstruction: Any) -> None:
        """Takes in images and reconstructions, [b, H, W, C] in [-1, 1]."""
        from vargen.report import pictures

        for gathered, images in zip(self._sets, (real, reconstruction), strict=True):
            gathered.add(self._encoder(pictures.to_uint8(images)))

    def metrics(self) -> dict[str, float]:
        """The number by its name."""
        from vargen.evaluation import fid

        return dict(rfid=fid.compare(self._sets[0].reference(), self._sets[1])["fid"])
