"""The cache of answers, in one SQLite file: the same question is paid for only once.

Every answer is committed as soon as it arrives, so a killed process loses only the requests in progress. Several
processes may use the file at once. It holds answers under hashes: no question, no key, no address.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from edgetune import __version__, events
from edgetune.cache import cache_folder
from edgetune.errors import DataError
from edgetune.judging.asking.request import JudgeRequest, Reply, VerdictForm
from edgetune.judging.asking.verdict import parse_verdict
from edgetune.judging.suites.identity import hash_value, versions_of
from edgetune.judging.suites.judge_file import Judge, LocalJudge, judge_hash

BUSY_SECONDS = 30.0
"""How long another process may lock the file before this one continues without it."""

_APPLICATION_ID = 0x65647475
"""SQLite's application id of this file: "edtu"."""
_LAYOUT = 1

REPLY_FORMAT = "edgetune reply 3"
"""Part of every key: increase it when a change affects what is stored of a verdict, or how its probabilities
are read."""


class AnswerCache:
    """Answers by key. `file` is created where it is missing; by default it lies in edgetune's cache folder.

    Raises DataError when the file is damaged or another program's. Where it cannot be written (a read-only folder, a
    full disk), there is one warning, and the work continues without it.
    """

    def __init__(self, file: Path | None = None) -> None:
        self.file = cache_folder() / "judge.sqlite" if file is None else file
        self._connection: sqlite3.Connection | None = None
        self._writable = True
        self._opened_at = time.time()
        try:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            self._connection = sqlite3.connect(
                self.file, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False
            )
            # Text as bytes: one row that is no UTF-8 is a row without an answer, not the end of the work.
            self._connection.text_factory = bytes
            self._prepare(self._connection)
        except (OSError, sqlite3.OperationalError) as problem:
            self.close()
            self._go_on_without(problem)
        except sqlite3.DatabaseError as problem:
            self.close()
            raise self._damaged(problem) from None

    def get(self, key: str) -> Any | None:
        """The answer under this key; None where there is none, or none that can be read."""
        row = self._run("SELECT value FROM answers WHERE key = ?", (key,))
        try:
            return None if row is None else json.loads(row[0])
        except (ValueError, TypeError, RecursionError):
            return None

    def of_last_run(self, keys: Iterable[str], pause_seconds: float) -> set[str]:
        """Of these keys, those whose answers come from a run that ended at most `pause_seconds` before this one began.

        A longer pause between two answers separates two runs. Answers stored since this cache was opened do not count.
        """
        found = ((key, self._run("SELECT stored FROM answers WHERE key = ?", (key,))) for key in keys)
        newest_first = sorted(((row[0], key) for key, row in found if row is not None), reverse=True)
        last, taken = self._opened_at, set()
        for stored, key in newest_first:
            if stored > self._opened_at:
                continue
            if last - stored > pause_seconds:
                break
            last = stored
            taken.add(key)
        return taken

    def put(self, key: str, value: Any) -> None:
        """Store an answer, a plain value. It is on disk when this returns."""
        if self._writable:
            row = (key, json.dumps(value, ensure_ascii=True), time.time())
            self._run("INSERT OR REPLACE INTO answers VALUES (?, ?, ?)", row)

    def forget(self, keys: Iterable[str]) -> None:
        """Delete these answers."""
        for key in keys:
            if self._writable:
                self._run("DELETE FROM answers WHERE key = ?", (key,))

    def _run(self, statement: str, values: tuple[Any, ...]) -> Any | None:
        """The first row that a statement gives, if any; None where the file cannot be used."""
        if self._connection is None:
            return None
        try:
            return self._connection.execute(statement, values).fetchone()
        except sqlite3.OperationalError as problem:
            self._go_on_without(problem)
            return None
        except sqlite3.DatabaseError as problem:
            raise self._damaged(problem) from None

    def close(self) -> None:
        """Close the file."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def __enter__(self) -> AnswerCache:
        return self

    def __exit__(self, *problem: object) -> None:
        self.close()

    @property
    def keeps(self) -> bool:
        """Whether stored answers will be found again."""
        return self._connection is not None and self._writable

    def _prepare(self, connection: sqlite3.Connection) -> None:
        connection.execute("BEGIN")  # one consistent view, while another process may be creating the file
        (owner,) = connection.execute("PRAGMA application_id").fetchone()
        (layout,) = connection.execute("PRAGMA user_version").fetchone()
        (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        connection.execute("COMMIT")
        if tables and owner != _APPLICATION_ID:
            raise sqlite3.DatabaseError("it is another program's database")
        if tables and layout != _LAYOUT:
            raise sqlite3.DatabaseError(f"it has layout {layout}, and this version of edgetune reads {_LAYOUT}")
        # With a write-ahead log, NORMAL outlives a killed process; only a power cut can take the last commits.
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        if not tables:
            connection.execute("BEGIN IMMEDIATE")
            connection.execute(
                "CREATE TABLE IF NOT EXISTS answers (key TEXT PRIMARY KEY, value TEXT NOT NULL, stored REAL NOT NULL)"
            )
            connection.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version = {_LAYOUT}")
            connection.execute("COMMIT")

    def _go_on_without(self, problem: Exception) -> None:
        if self._writable:
            reason = problem.strerror if isinstance(problem, OSError) else problem
            events.warn(f"{self.file}: answers cannot be saved there ({reason}); continuing without the cache")
        self._writable = False

    def _damaged(self, problem: Exception) -> DataError:
        return DataError(
            f"the cache of answers cannot be used ({problem})",
            where=self.file,
            remedy="move the file away, so that a new one is created, or set EDGETUNE_CACHE to another folder",
        )


def request_keys(judge: Judge, requests: Sequence[JudgeRequest]) -> list[str]:
    """For each request, SHA-256 of all that shapes the answer: the judge, what is asked, and the form of the verdict.

    A judge on this machine is known by its file's bytes, and by the versions of what runs it.
    """
    # How often a question is asked does not shape an answer: the repeat's number is part of its identity.
    shaping = [REPLY_FORMAT, judge_hash(judge.model_copy(update={"repeats": 1})), _runtime_of(judge)]
    return [
        hash_value([*shaping, request.identity, [[name, *choices] for name, choices in request.form.fields.items()]])
        for request in requests
    ]


def find_reply(cache: AnswerCache | None, key: str, form: VerdictForm) -> Reply | None:
    """The verdict in the cache; None where there is none, or none that can be read: it is requested again."""
    value = None if cache is None else cache.get(key)
    try:
        kept = _KEPT.validate_python(value)
    except ValidationError:
        return None
    return Reply(kept.text, kept.probabilities, cached=True) if is_readable(kept.text, form) else None


def keep_reply(cache: AnswerCache, key: str, reply: Reply) -> None:
    """Store a verdict that can be read (`is_readable`)."""
    cache.put(key, asdict(_Kept(reply.text, reply.probabilities)))


def is_readable(text: str, form: VerdictForm) -> bool:
    """Whether a judge's text holds a verdict. A text without one may be a gateway's error page, and is not stored."""
    return parse_verdict(text, form).values is not None


def _runtime_of(judge: Judge) -> dict[str, str] | None:
    if not isinstance(judge, LocalJudge):
        return None
    return {"edgetune": __version__, **versions_of("llama-cpp-python", "jinja2")}


@dataclass(frozen=True)
class _Kept:
    """The stored part of a reply."""

    text: str
    probabilities: dict[str, dict[str, float]]


_KEPT = TypeAdapter(_Kept)
