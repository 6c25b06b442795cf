"""Answers on disk: an SQLite file to which is only added.

An answer is there, through a crash of the program or the machine, once `add` has returned. Taking it back adds a row of
its own; the final answer to a question is what its last row says.
"""

from __future__ import annotations

import secrets
import sqlite3
import threading
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from datetime import datetime, timezone
from pathlib import Path

from prip.errors import InputError

from .items import PREFERENCE, Item, Picture

BUSY_S = 30
"""How long to wait, in seconds, for another process that writes."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS rows (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    request TEXT NOT NULL UNIQUE,
    kind TEXT NOT NULL CHECK (kind IN ('answer', 'undo')),
    annotator TEXT NOT NULL,
    task TEXT NOT NULL,
    item TEXT NOT NULL,
    user_prompt TEXT,
    cluster TEXT,
    generator TEXT,
    seed INTEGER,
    refiner_left TEXT,
    image_left TEXT,
    refiner_right TEXT,
    image_right TEXT,
    answer TEXT,
    time TEXT NOT NULL,
    seconds REAL
);
CREATE INDEX IF NOT EXISTS rows_of_annotator ON rows (annotator, task, item);
CREATE TABLE IF NOT EXISTS secret (only INTEGER PRIMARY KEY CHECK (only = 1), value BLOB NOT NULL);
CREATE TRIGGER IF NOT EXISTS never_changed BEFORE UPDATE ON rows BEGIN SELECT RAISE(ABORT, 'rows stay'); END;
CREATE TRIGGER IF NOT EXISTS never_erased BEFORE DELETE ON rows BEGIN SELECT RAISE(ABORT, 'rows stay'); END;
"""

_FINAL = "kind = 'answer' AND id IN (SELECT max(id) FROM rows GROUP BY annotator, item)"


@dataclass(frozen=True)
class Answer:
    """One final answer. For relevance there is one image, on the left; the right side is ""."""

    annotator: str
    task: str
    item: str
    user_prompt: str
    cluster: str
    generator: str
    seed: int
    refiner_left: str
    image_left: str
    refiner_right: str
    image_right: str
    answer: str
    """0, 1 or 2 for relevance; left, right or tie for preference."""
    time: str
    """UTC, ISO 8601."""
    seconds: float
    """From the moment the images were on the screen."""


_COLUMNS = [field.name for field in fields(Answer)]


def answers_path(folder: Path) -> Path:
    """Returns where the answers to an evaluation's questions lie."""
    return folder / "annotations" / "answers.sqlite"


class AnswerLog:
    """The answers of one evaluation. May be used from several threads, and by several processes at once."""

    def __init__(self, folder: Path) -> None:
        """Opens, or makes, the file. Raises InputError when that cannot work or the file is another one."""
        self.path = answers_path(folder)
        self._lock = threading.RLock()
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._connection = sqlite3.connect(self.path, timeout=BUSY_S, isolation_level=None, check_same_thread=False)
            self._connection.execute("PRAGMA synchronous = EXTRA")
            self._connection.executescript(_SCHEMA)
            self._connection.execute("INSERT OR IGNORE INTO secret VALUES (1, ?)", [secrets.token_bytes(32)])
            (self.secret,) = self._connection.execute("SELECT value FROM secret").fetchone()
        except (OSError, sqlite3.Error) as error:
            raise InputError(f"{self.path} cannot be used for answers: {error}") from error

    def close(self) -> None:
        """Closes the file; nothing is lost where this is not called."""
        self._connection.close()

    def add(
        self,
        request: str,
        annotator: str,
        item: Item,
        sides: tuple[Picture, ...],
        answer: str,
        seconds: float,
    ) -> bool:
        """Writes one answer to disk; returns whether it counts.

        request: the caller's own name for this call: asked again under the same name, it is written once and counts
        still. An item that is answered already keeps its answer. sides: the pictures from left to right.
        """
        left, right = (*sides, Picture("", ""))[:2]
        values = [item.user_prompt, item.cluster, item.generator, item.seed, *left, *right, answer]
        with self._writing() as connection:
            if self._seen(request):
                return True
            if self.answered(annotator, item.task, [item.key]):
                return False
            connection.execute(
                f"INSERT INTO rows (request, kind, {', '.join(_COLUMNS)}) VALUES (?, 'answer', {_marks(_COLUMNS)})",
                [request, annotator, item.task, item.key, *values, _now(), seconds],
            )
        return True

    def undo(self, request: str, annotator: str, task: str, among: Collection[str], answered: int) -> bool:
        """Takes back the annotator's latest answer to the items `among`; returns whether there was one.

        request: as for `add`. answered: how many of these items the caller believes to be answered; where that is not
        so, something happened elsewhere, and nothing is taken back.
        """
        with self._writing() as connection:
            if self._seen(request):
                return True
            given = self.answered(annotator, task, among)
            if not given or len(given) != answered:
                return False
            connection.execute(
                "INSERT INTO rows (request, kind, annotator, task, item, time) VALUES (?, 'undo', ?, ?, ?, ?)",
                [request, annotator, task, given[-1], _now()],
            )
        return True

    def answered(self, annotator: str, task: str, among: Collection[str]) -> list[str]:
        """Returns the keys of the items `among` that have an answer of the annotator, the latest last."""
        with self._lock:
            found = self._connection.execute(
                "SELECT item, kind FROM rows WHERE annotator = ? AND task = ? ORDER BY id", [annotator, task]
            ).fetchall()
        standing: dict[str, None] = {}
        for key, kind in found:
            standing.pop(key, None)
            if kind == "answer":
                standing[key] = None
        wanted = set(among)
        return [key for key in standing if key in wanted]

    def final_answers(self) -> list[Answer]:
        """Returns all answers that were not taken back, the oldest first."""
        found = self._connection.execute(f"SELECT {', '.join(_COLUMNS)} FROM rows WHERE {_FINAL} ORDER BY id")
        return [Answer(*values) for values in found.fetchall()]

    def _seen(self, request: str) -> bool:
        return self._connection.execute("SELECT 1 FROM rows WHERE request = ?", [request]).fetchone() is not None

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise


def read_answers(folder: Path) -> list[Answer]:
    """Returns the final answers to an evaluation's questions, none where nobody was asked.

    Raises InputError when the file cannot be read.
    """
    if not answers_path(folder).is_file():
        return []
    log = AnswerLog(folder)
    try:
        return log.final_answers()
    except sqlite3.Error as error:
        raise InputError(f"{log.path} cannot be read: {error}") from error
    finally:
        log.close()


def preferred(answer: Answer) -> str:
    """Returns the refiner that an answer of the task preference prefers, "" for a tie."""
    if answer.task != PREFERENCE:
        raise ValueError(f"answer: wanted one of the task {PREFERENCE}, got {answer.task}")
    return {"left": answer.refiner_left, "right": answer.refiner_right, "tie": ""}[answer.answer]


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="milliseconds")


def _marks(columns: list[str]) -> str:
    return ", ".join("?" * len(columns))
