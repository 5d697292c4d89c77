"""edgetune: from a training recipe to a chat on a laptop without a GPU, with proof that nothing got worse."""

__version__ = "0.1.0"
