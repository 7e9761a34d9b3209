"""Questions and the growing files of answers and grades: JSON Lines, appended to, resumable."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Question:
    """One conversation to be held."""

    number: int
    category: str
    turns: tuple[str, ...]
    reference: tuple[str, ...] = ()
    """Right answers for the judge, where there are such."""


def read_questions(file: Path) -> list[Question]:
    """All questions of a file in FastChat's format.

    Raises:
        ValueError: a line is no JSON object with `question_id` and `turns`.
    """
    questions = []
    for number, record in _lines(file):
        turns = record.get("turns")
        if not isinstance(turns, list) or not turns:
            raise ValueError(f"{file}, line {number}: needs a list of turns")
        questions.append(
            Question(
                int(record["question_id"]),
                str(record.get("category") or ""),
                tuple(map(str, turns)),
                tuple(map(str, record.get("reference") or ())),
            )
        )
    return questions


def read_done(file: Path, key: str) -> dict[int, Any]:
    """question_id -> what `key` holds, for every whole line; {} where there is no file yet.

    A last line cut short by an interruption is passed over and written again.

    Raises:
        ValueError: another line is no JSON object with `question_id` and `key`.
    """
    if not file.is_file():
        return {}
    done = {}
    for number, record in _lines(file, grows=True):
        if key not in record:
            raise ValueError(f"{file}, line {number}: needs {key}, has {', '.join(record)}")
        done[int(record["question_id"])] = record[key]
    return done


def append(file: Path, record: Mapping[str, Any]) -> None:
    """Add one line; a line cut short before it is removed, one that lacks its end alone is kept."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a+b") as stream:
        stream.seek(0)
        last = stream.read().rpartition(b"\n")[2]
        try:
            json.loads(last)
        except ValueError:
            stream.truncate(stream.tell() - len(last))
        else:
            stream.write(b"\n")
        stream.write(json.dumps(record, ensure_ascii=False).encode() + b"\n")


def _lines(file: Path, *, grows: bool = False) -> Iterator[tuple[int, dict[str, Any]]]:
    """The records of a file with their lines; where it `grows`, the last line may be cut short."""
    lines = file.read_bytes().split(b"\n")  # a cut may leave half a character
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except ValueError as error:
            if grows and number == len(lines):
                return
            raise ValueError(f"{file}, line {number} is no JSON: {error}") from error
        if not (isinstance(record, dict) and isinstance(record.get("question_id"), int | str)):
            raise ValueError(
                f"{file}, line {number}: needs a JSON object with a question_id, got "
                f"{str(record)[:80]}"
            )
        yield number, record
