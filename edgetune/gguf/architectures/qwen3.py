"""Qwen3: Qwen2 without biases, with RMS norms on queries and keys."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from edgetune.gguf.architectures.decoder import ATTENTION, FEED_FORWARD, NORMS, QUERY_KEY_NORMS
from edgetune.gguf.architectures.qwen2 import Qwen2
from edgetune.models.config import ModelConfig


class Qwen3(Qwen2):
    """https://arxiv.org/abs/2505.09388"""

    gguf_name = "qwen3"
    defaults: ClassVar[Mapping[str, Any]] = {**Qwen2.defaults, "head_dim": 128}
    block: ClassVar[Mapping[str, str]] = {**NORMS, **ATTENTION, **QUERY_KEY_NORMS, **FEED_FORWARD}

    def check_heads(self, config: ModelConfig) -> None:
        """Every width is supported."""
