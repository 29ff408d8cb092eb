"""What people look at: the page about a trained system, and pictures as files and labelled sheets."""

from vargen.report import pictures
from vargen.report.metrics import METRICS, levels
from vargen.report.page import HEADLINES, write

__all__ = ["HEADLINES", "METRICS", "levels", "pictures", "write"]
