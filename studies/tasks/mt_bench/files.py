"""Questions and the growing files of answers and grades: JSON Lines, appended to, resumable."""

import json
from collections.abc import Mapping
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
        if "question_id" not in record or not isinstance(turns, list) or not turns:
            raise ValueError(f"{file}, line {number}: needs question_id and a list of turns")
        questions.append(
            Question(
                int(record["question_id"]),
                str(record.get("category", "")),
                tuple(map(str, turns)),
                tuple(map(str, record.get("reference") or ())),
            )
        )
    return questions


def read_done(file: Path, key: str) -> dict[int, Any]:
    """question_id -> what `key` holds, for every whole line; {} where there is no file yet.

    A last line cut short by an interruption is passed over and written again.
    """
    if not file.is_file():
        return {}
    done = {}
    lines = file.read_text(encoding="utf-8").split("\n")
    for place, line in enumerate(lines):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except ValueError as error:
            if place == len(lines) - 1:
                break
            raise ValueError(f"{file}, line {place + 1} is no JSON: {error}") from error
        done[int(record["question_id"])] = record[key]
    return done


def append(file: Path, record: Mapping[str, Any]) -> None:
    """Add one line; a line cut short before it is removed."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a+b") as stream:
        stream.seek(0)
        text = stream.read()
        whole = text.rfind(b"\n") + 1
        if whole != len(text):
            stream.truncate(whole)
        stream.write(json.dumps(record, ensure_ascii=False).encode() + b"\n")


def _lines(file: Path) -> list[tuple[int, dict[str, Any]]]:
    lines = []
    for number, line in enumerate(file.read_text(encoding="utf-8").split("\n"), start=1):
        if line.strip():
            try:
                lines.append((number, json.loads(line)))
            except ValueError as error:
                raise ValueError(f"{file}, line {number} is no JSON: {error}") from error
    return lines
