"""The key of an endpoint, which comes only from the variable that the judge's file names."""

from __future__ import annotations

import os

from edgetune.errors import UsageError
from edgetune.judging.suites.judge_file import EndpointJudge
from edgetune.keys import find_key


def read_key(judge: EndpointJudge) -> str | None:
    """The key in the judge's variable, of the environment or .env; None where the judge needs none.

    Raises UsageError when the variable is not set, or holds what cannot be sent.
    """
    if judge.key is None:
        return None
    if not judge.key.isidentifier():  # most likely the key itself, which no message may show
        raise UsageError(
            "its key must be the name of a variable, not what the variable holds",
            where=judge.name,
            remedy="write a name such as key: OPENAI_API_KEY",
        )
    key = find_key(judge.key)
    if key is None:
        empty = judge.key in os.environ
        raise UsageError(
            f"its key {judge.key} is "
            + ("empty in the environment, which takes precedence over .env" if empty else "not set"),
            where=judge.name,
            remedy=f"export {judge.key}=..., or {'unset it and ' if empty else ''}write it into .env in this folder, "
            "or write key: null where the endpoint needs none",
        )
    return key
