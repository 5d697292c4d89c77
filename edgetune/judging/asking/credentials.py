"""The key of an endpoint: from the environment, and nowhere else."""

from __future__ import annotations

import os

from edgetune.errors import UsageError
from edgetune.judging.judge_file import EndpointJudge


def read_key(judge: EndpointJudge) -> str | None:
    """The key in the judge's environment variable; None where the judge needs none.

    Raises UsageError when the variable is not set, or holds what cannot be sent.
    """
    if judge.key is None:
        return None
    key = os.environ.get(judge.key, "").strip()
    if not key:
        raise UsageError(
            f"its key belongs into the environment variable {judge.key}, which is not set",
            where=judge.name,
            remedy=f"export {judge.key}=..., or write key: null where the endpoint needs none",
        )
    if not (key.isascii() and key.isprintable()) or " " in key:
        raise UsageError(
            f"the environment variable {judge.key} holds characters that no key has",
            where=judge.name,
            remedy="set it again, without spaces, quotes and line breaks",
        )
    return key
