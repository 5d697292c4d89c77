"""How good answers are: one registry of metrics for training and judging."""
