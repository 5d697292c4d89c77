"""Metrics that need no judge, one file a family. A new one is a Measure in such a file and a line in the registry."""

from edgetune.judging.metrics.likelihood import same_tokens
from edgetune.judging.metrics.registry import METRICS, default_metrics, find_metrics, main_metric

__all__ = ["METRICS", "default_metrics", "find_metrics", "main_metric", "same_tokens"]
