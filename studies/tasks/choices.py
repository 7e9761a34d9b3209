"""The choices of a user's questions, and which of them is right."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from studies.tasks.spec import TaskSpec
from studies.tasks.values import bare, is_nothing, row_numbers, text_of

_LETTERS = "ABCDEFGHIJ"


class Question(NamedTuple):
    """What one row says of its choices."""

    source: str
    """The file or split that the row is in."""
    number: int
    """Of the row, from 1."""
    label: str
    texts: list[str]
    names: list[str]
    """Labels of the choices in ARC's form; [] where there are none."""


def question_of(spec: TaskSpec, number: int, record: Mapping[str, Any]) -> Question:
    """The choices and the label of a row.

    Raises:
        ValueError: they are not two or more texts or numbers; names the row.
    """
    label = bare(text_of(spec, number, spec.label, record[spec.label]))
    if not isinstance(spec.choices, str):
        known = [c for c in spec.choices or () if not is_nothing(record.get(c))]
        texts = [text_of(spec, number, column, record[column]) for column in known]
        return Question(spec.name, number, label, texts, [])
    given: Any = record[spec.choices]
    names: Any = []
    if isinstance(given, Mapping) and {"text", "label"} <= set(given):
        given, names = given["text"], given["label"]
    elif isinstance(given, list | tuple) and all(
        isinstance(choice, Mapping) and {"text", "label"} <= set(choice) for choice in given
    ):
        given, names = [c["text"] for c in given], [c["label"] for c in given]
    wrong = _fault(given, names)
    if wrong:
        raise ValueError(
            f"task: {spec.name}, row {number}: column {spec.choices!r} must hold a list of two or "
            f"more texts or numbers, or ARC's {{text, label}}; it holds {wrong}"
        )
    return Question(
        spec.name, number, label, [str(choice) for choice in given], [str(n) for n in names]
    )


def _fault(given: Any, names: Any) -> str:
    """What is wrong with the choices; "" where nothing is."""
    if isinstance(given, str):
        like = " that looks like a list" if given.lstrip().startswith(("[", "(", "{")) else ""
        hint = "save the rows as .jsonl with real lists, or give each choice a column of its own"
        return f"a text{like}: {given[:60]!r}; {hint}"
    if not isinstance(given, list | tuple):
        return f"{given!r}"[:80]
    for choice in given:
        good = isinstance(choice, str | int | float) and not isinstance(choice, bool)
        if not good or is_nothing(choice):
            return f"the choice {choice!r}"[:80]
    if len(given) < 2:
        return f"{len(given)} of them"
    if names and len(names) != len(given):
        return f"{len(given)} texts with {len(names)} labels"
    return ""


def places(spec: TaskSpec, questions: Sequence[Question]) -> list[int]:
    """Places of the right choices.

    All labels are read in one way, the first that fits all: the text of a choice, its name in ARC's
    form, its letter, its number. Where `task.label_start` is set they are numbers.

    Raises:
        ValueError: some fit in no way, or whether numbers count from 0 or from 1 is not told.
    """
    if spec.label_start is not None:
        readings = [[_number(q, spec.label_start) for q in questions]]
    else:
        first = _start(questions)
        readings = [
            [_of(q.label, [bare(text) for text in q.texts]) for q in questions],
            [_of(q.label, q.names) for q in questions],
            [_of(q.label.upper(), list(_LETTERS[: len(q.texts)])) for q in questions],
            [_number(q, first or 0) for q in questions],
        ]
        _require_one_reading(questions, readings, known_start=first is not None)
    best = min(readings, key=lambda reading: reading.count(None))
    wrong = [q for q, place in zip(questions, best, strict=True) if place is None]
    if wrong:
        one = wrong[0]
        others = [q.number for q in wrong[1:] if q.source == one.source]
        also = f"; so it is in {row_numbers(others)}" if others else ""
        raise ValueError(
            f"task: {one.source}, row {one.number}: label {one.label!r} is not one of its "
            f"{len(one.texts)} choices, nor a letter or number for one{also}. Correct the rows, or "
            "set `task.label` to the column of right choices"
        )
    if spec.label_start is None and best is readings[-1] and first is None:
        raise ValueError(
            f"task: {spec.name}: no label of column {spec.label!r} is 0 and none is the last "
            "choice's number, so they may count from 0 or from 1: set `task.label_start` to 0 or 1"
        )
    return [place for place in best if place is not None]


def _require_one_reading(
    questions: Sequence[Question],
    readings: Sequence[list[int | None]],
    *,
    known_start: bool,
) -> None:
    """Refuse labels that two readings fit, each in all rows, and mean other choices by.

    Names in ARC's form are there for the labels; numbers count where it is known from where.
    """
    texts, names, letters, numbers = readings
    if None not in names:
        return
    fitting = {"the text of a choice": texts, "its letter": letters}
    if known_start:
        fitting["its number"] = numbers
    fitting = {how: places for how, places in fitting.items() if None not in places}
    for how, places in list(fitting.items())[1:]:
        (usual, other), *_ = fitting.items()
        if places != other:
            row = next(i for i, (a, b) in enumerate(zip(other, places, strict=True)) if a != b)
            question = questions[row]
            raise ValueError(
                f"task: {question.source}, row {question.number}: label {question.label!r} may be "
                f"{usual} or {how}, and in every row both are there: save the labels as numbers "
                "of the choices and set `task.label_start` to 0 or 1"
            )


def _of(label: str, names: Sequence[str]) -> int | None:
    """Where `label` is, if it is there once."""
    return names.index(label) if names.count(label) == 1 else None


def _number(question: Question, start: int) -> int | None:
    value = _whole(question.label)
    if value is None or not 0 <= value - start < len(question.texts):
        return None
    return value - start


def _whole(label: str) -> int | None:
    """The number that `label` writes, also as 2.0; None where it writes none."""
    digits = label.removesuffix(".0")
    return int(digits) if digits.isdecimal() else None


def _start(questions: Sequence[Question]) -> int | None:
    """What numbers count from, as far as they tell: a 0 or a last number is among them."""
    numbers = [(_whole(q.label), len(q.texts)) for q in questions]
    if any(value == 0 for value, _ in numbers):
        return 0
    return 1 if any(value == count for value, count in numbers) else None
