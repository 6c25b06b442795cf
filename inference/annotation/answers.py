"""Answers on disk, in an append-only SQLite file.

An answer survives a crash of the program or the machine once `add` has returned. Undoing it adds another row; the last
row of a question holds its final answer.
"""

from __future__ import annotations

import csv
import io
import secrets
import sqlite3
import threading
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from pathlib import Path

from prip.errors import InputError

from .items import PREFERENCE, RELEVANCE, Item, Picture

BUSY_S = 30
"""Seconds to wait for another process that writes."""

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
    """A final answer. For relevance there is one image, on the left; the right side is ""."""

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
    """Since the images appeared on the screen."""


_COLUMNS = [field.name for field in fields(Answer)]
_PLAIN = ("annotator", "task", "item", "user_prompt", "generator", "seed")
CSV_COLUMNS = (*_PLAIN, "refiner", "refiner_left", "refiner_right", "answer", "time", "seconds")


def answers_path(folder: Path) -> Path:
    """Return the file of an evaluation's answers."""
    return folder / "annotations" / "answers.sqlite"


class AnswerLog:
    """The answers of one evaluation; several threads and processes may use it at once."""

    def __init__(self, folder: Path) -> None:
        """Open or create the file. Raises InputError when that fails or the file is not an answer log."""
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
        """Close the file; nothing is lost without this call."""
        self._connection.close()

    def add(
        self, request: str, annotator: str, item: Item, sides: tuple[Picture, ...], answer: str, seconds: float
    ) -> bool:
        """Write one answer to disk and return whether it counts; the first answer to a question stays.

        Args:
            request: Unique name of this call; a repeated call is written once, and still counts.
            sides: The pictures from left to right.
            seconds: Time since the images appeared.
        """
        left, right = (*sides, Picture("", ""))[:2]
        values = [item.user_prompt, item.cluster, item.generator, item.seed, *left, *right, answer]
        with self._writing() as connection:
            if self._seen(request):
                return True
            if self.answered(annotator, item.task, [item.key]):
                return False
            marks = ", ".join("?" * len(_COLUMNS))
            connection.execute(
                f"INSERT INTO rows (request, kind, {', '.join(_COLUMNS)}) VALUES (?, 'answer', {marks})",
                [request, annotator, item.task, item.key, *values, _now(), seconds],
            )
        return True

    def undo(self, request: str, annotator: str, task: str, among: Collection[str], answered: int) -> bool:
        """Undo the annotator's latest answer to the items with the keys `among`, and return whether there was one.

        Nothing is undone unless exactly `answered` of them are answered. `request` is as for `add`.
        """
        with self._writing() as connection:
            if self._seen(request):
                return True
            keys = self.answered(annotator, task, among)
            if not keys or len(keys) != answered:
                return False
            connection.execute(
                "INSERT INTO rows (request, kind, annotator, task, item, time) VALUES (?, 'undo', ?, ?, ?, ?)",
                [request, annotator, task, keys[-1], _now()],
            )
        return True

    def answered(self, annotator: str, task: str, among: Collection[str]) -> list[str]:
        """Return the keys of the items `among` that the annotator has answered, the latest last."""
        with self._lock:
            rows = self._connection.execute(
                "SELECT item, kind FROM rows WHERE annotator = ? AND task = ? ORDER BY id", [annotator, task]
            ).fetchall()
        standing: dict[str, None] = {}
        for key, kind in rows:
            standing.pop(key, None)
            if kind == "answer":
                standing[key] = None
        wanted = set(among)
        return [key for key in standing if key in wanted]

    def final_answers(self) -> list[Answer]:
        """Return all answers that were not undone, the oldest first."""
        rows = self._connection.execute(f"SELECT {', '.join(_COLUMNS)} FROM rows WHERE {_FINAL} ORDER BY id")
        return [Answer(*values) for values in rows.fetchall()]

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
    """Return an evaluation's final answers, none if nobody has answered. Raises InputError for an unreadable file."""
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
    """Return the refiner that an answer of the task preference prefers, "" for a tie."""
    if answer.task != PREFERENCE:
        raise ValueError(f"answer: expected one of the task {PREFERENCE}, got {answer.task}")
    return {"left": answer.refiner_left, "right": answer.refiner_right, "tie": ""}[answer.answer]


_FORMULAS = ("=", "+", "-", "@", "\t", "\r")
"""Beginnings of cells that spreadsheets take for formulas."""


def _as_text(value: object) -> object:
    """Return a cell that no spreadsheet runs as a formula."""
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULAS) else value


def to_csv(answers: Sequence[Answer]) -> str:
    """Return one row per answer; `refiner` is filled for relevance, `refiner_left` and `_right` for preference.

    A text that a spreadsheet would run as a formula begins with an apostrophe.
    """
    text = io.StringIO()
    writer = csv.DictWriter(text, CSV_COLUMNS, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    for answer in answers:
        row = {**vars(answer), "refiner": ""}
        if answer.task == RELEVANCE:
            row |= {"refiner": answer.refiner_left, "refiner_left": ""}
        writer.writerow({name: _as_text(value) for name, value in row.items()})
    return text.getvalue()


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
