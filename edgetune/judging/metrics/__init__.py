"""Metrics that need no judge, one file a family. A new one is a Measure in such a file and a line in the registry."""

from edgetune.judging.metrics.likelihood import same_tokens
from edgetune.judging.metrics.registry import MEASURES, default_measures, find_measures, main_measure

__all__ = ["MEASURES", "default_measures", "find_measures", "main_measure", "same_tokens"]
