"""How good samples and reconstructions are: metrics, a small classifier, and both put together."""

from vargen.evaluation.caveats import caveats
from vargen.evaluation.classifier import Classifier, fit
from vargen.evaluation.evaluate import Measured, evaluate, measure, reconstruct

__all__ = ["Classifier", "Measured", "caveats", "evaluate", "fit", "measure", "reconstruct"]
