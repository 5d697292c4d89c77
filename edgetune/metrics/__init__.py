"""How good answers are, measured in one way for training and judging."""
