"""From the records of files, or of a data set, to rows."""

from collections.abc import Sequence
from typing import NamedTuple

from studies.tasks.choices import places, question_of
from studies.tasks.columns import (
    Record,
    choices_of,
    columns_read,
    fields_of,
    inputs_of,
    kind_of,
    optional,
)
from studies.tasks.labels import settled, stands_for_nothing
from studies.tasks.rows import AnyRow, Exchange, Item, Row
from studies.tasks.spec import TaskSpec
from studies.tasks.values import bare, is_nothing, row_numbers, text_of

Numbered = Sequence[tuple[int, Record]]
"""Records with their places in a source, from 1."""


class Source(NamedTuple):
    """Records of one file, or of one split of a data set."""

    name: str
    """How messages call it."""
    records: Sequence[Record]


def rows_of(spec: TaskSpec, sources: Sequence[Source]) -> tuple[list[list[AnyRow]], int]:
    """One row for each record that lacks no value, and how many were dropped for lacking one.

    The labels of questions are read in one way, whichever source they are in.

    Raises:
        ValueError: a record lacks a value and `task.missing` is not drop, a value is no text or
            number, or a label is none of the choices; names the rows.
    """
    named = [spec.model_copy(update={"name": source.name}) for source in sources]
    whole = [_whole(part, source.records) for part, source in zip(named, sources, strict=True)]
    kind = kind_of(spec)
    if kind == "multiple_choice":
        rows = _items(spec, list(zip(named, whole, strict=True)))
    else:
        make = _exchange if kind == "instruction" else _row
        rows = [
            [make(part, number, record) for number, record in records]
            for part, records in zip(named, whole, strict=True)
        ]
    return rows, sum(len(s.records) for s in sources) - sum(map(len, whole))


def _whole(spec: TaskSpec, records: Sequence[Record]) -> Numbered:
    """The records that lack no value, with their numbers."""
    whole: list[tuple[int, Record]] = []
    lacking: dict[str, list[int]] = {}
    for number, record in enumerate(records, start=1):
        column = _lacks(spec, record)
        if column is None:
            whole.append((number, record))
        else:
            lacking.setdefault(column, []).append(number)
    if lacking and spec.missing != "drop":
        gaps = "; ".join(f"{column!r} in {row_numbers(rows)}" for column, rows in lacking.items())
        keep = spec.missing == "refuse" and set(lacking) & set(optional(spec))
        marks = dict.fromkeys(_mark(spec, records[n - 1]) for n in lacking.get(spec.label, ()))
        classes = " or ".join(f"{mark!r}" for mark in marks if mark)
        raise ValueError(
            f"task: {spec.name} lacks a value for {gaps}. Fill it in, or leave such rows out with "
            "`task.missing: drop`"
            + ("; `task.missing: keep` takes empty texts and last choices as such" if keep else "")
            + (f"; if {classes} is a class, list all classes in `task.labels`" if classes else "")
        )
    return whole


def _lacks(spec: TaskSpec, record: Record) -> str | None:
    """The column of a value that is missing; an empty text is one where it is not all there is."""
    empty = [column for _, column in columns_read(spec) if is_nothing(record.get(column))]
    if spec.missing == "keep":
        inputs, choices = inputs_of(spec), choices_of(spec)
        there = [place for place, column in enumerate(choices) if column not in empty]
        may_be = {*choices[max([1, *there]) + 1 :]}
        if not set(inputs) <= set(empty):
            may_be |= set(inputs) - set(choices)
        empty = [column for column in empty if column not in may_be]
    for column in empty:
        only = spec.template is None and column == spec.text
        if not only or not isinstance(record.get(column), str):  # else left out as empty
            return column
    return spec.label if _mark(spec, record) else None


def _mark(spec: TaskSpec, record: Record) -> str:
    """What is written for a class that is missing; "" where it is there, or nothing is written."""
    value = record.get(spec.label)
    word = bare(value) if isinstance(value, str) else ""
    missing = kind_of(spec) == "text_classification" and stands_for_nothing(spec, word)
    return word if missing else ""


def filled(spec: TaskSpec, number: int, record: Record) -> str:
    """The template with every `{column}` replaced by the record's value."""
    template = spec.template or ""
    return fields_of(template).sub(
        lambda field: _text(spec, number, field[1], record) if field[1] else field[0][0], template
    )


def _text(spec: TaskSpec, number: int, column: str, record: Record) -> str:
    """The text of a cell; "" where it may be empty and is."""
    value = record.get(column)
    return "" if is_nothing(value) else text_of(spec, number, column, value)


def _row(spec: TaskSpec, number: int, record: Record) -> AnyRow:
    first, *second = (_text(spec, number, column, record) for column in spec.columns)
    label = bare(text_of(spec, number, spec.label, record[spec.label]))
    return Row(first, settled(spec, number, label), *second)


def _exchange(spec: TaskSpec, number: int, record: Record) -> AnyRow:
    response = text_of(spec, number, spec.label, record[spec.label])
    return Exchange(filled(spec, number, record), response)


def _items(spec: TaskSpec, parts: Sequence[tuple[TaskSpec, Numbered]]) -> list[list[AnyRow]]:
    questions = [[question_of(part, *each) for each in records] for part, records in parts]
    golds = iter(places(spec, [question for several in questions for question in several]))
    return [
        [
            Item.of(filled(part, *each), question.texts, next(golds))
            for each, question in zip(records, several, strict=True)
        ]
        for (part, records), several in zip(parts, questions, strict=True)
    ]
