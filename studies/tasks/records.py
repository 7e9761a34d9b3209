"""From the records of a file or data set to rows, by the columns that a `task:` entry names.

- `text` and `label`: a text, or a pair of texts, with a class;
- `template`, `choices` and `label`: a multiple-choice question;
- `template` and `label`: an instruction with its response.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from basis_zoo.registry import did_you_mean
from studies.tasks.choices import places, question_of
from studies.tasks.labels import NO_LABEL, settled
from studies.tasks.metrics import CLASSIFICATION, INSTRUCTION, multiple_choice_names
from studies.tasks.rows import AnyRow, Exchange, Item, Row
from studies.tasks.spec import TaskSpec
from studies.tasks.task import Kind, TaskInfo
from studies.tasks.values import bare, is_nothing, shown, text_of

Record = Mapping[str, Any]
Numbered = Sequence[tuple[int, Record]]
"""Records with their places in a source, from 1."""
_FIELD = re.compile(r"\{([^{}]+)\}")


class Source(NamedTuple):
    """Records of one file, or of one split of a data set."""

    name: str
    """How messages call it."""
    records: Sequence[Record]


def describe_columns(spec: TaskSpec, *, licence: str, source: str) -> TaskInfo:
    """What a task of these columns is; `source` is completed with the columns.

    Raises:
        ValueError: `choices` without a template, or a key that these columns have no use for.
    """
    if spec.choices is not None and spec.template is None:
        raise ValueError("task: `choices` needs a `template` for the question, e.g. '{question}'")
    columns = ", ".join(dict.fromkeys(column for _, column in wanted(spec)))
    kind = kind_of(spec)
    uses = (("labels", "text_classification"), ("label_start", "multiple_choice"))
    for key, its_kind in uses:
        if getattr(spec, key) is not None and kind != its_kind:
            raise ValueError(
                f"task: `{key}` is for {its_kind.replace('_', ' ')}, but `template` and `choices` "
                f"make {kind.replace('_', ' ')} of these columns"
            )
    metrics = {
        "text_classification": CLASSIFICATION,
        "multiple_choice": multiple_choice_names(spec.evaluate),
        "instruction": INSTRUCTION,
    }[kind]
    return TaskInfo(
        name=spec.name,
        kind=kind,
        metrics=metrics,
        licence=licence,
        source=f"{source}, columns {columns}",
        scoring=spec.scoring or "sum",
        train_on_inputs=bool(spec.train_on_inputs),
        answers_end=spec.evaluate != "loglikelihood",
    )


def kind_of(spec: TaskSpec) -> Kind:
    """What the named columns make of the rows."""
    if spec.template is None:
        return "text_classification"
    return "instruction" if spec.choices is None else "multiple_choice"


def wanted(spec: TaskSpec) -> list[tuple[str, str]]:
    """(key of the entry, column) for every column that is read."""
    if spec.template is None:
        texts = [("text", column) for column in spec.columns]
    else:
        texts = [("template", column) for column in _FIELD.findall(spec.template)]
    choices = (spec.choices,) if isinstance(spec.choices, str) else spec.choices or ()
    return [*texts, *(("choices", column) for column in choices), ("label", spec.label)]


def check_columns(spec: TaskSpec, name: str, records: Iterable[Record]) -> None:
    """Refuse a column that is named and that no record has.

    Raises:
        ValueError: there is no record, or names the key to set and the columns there are.
    """
    columns: dict[str, None] = {}
    left = wanted(spec)
    for record in records:
        columns.update(dict.fromkeys(record))
        left = [(key, column) for key, column in left if column not in columns]
        if not left:
            return
    if not columns:
        raise ValueError(f"task: {name} has no rows")
    key, column = left[0]
    raise ValueError(
        f"task: {name} has no column {column!r}.{did_you_mean(column, columns)} "
        f"Set `task.{key}` to one of: {', '.join(map(str, columns))}"
    )


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
    if lacking and spec.missing == "refuse":
        told = "; ".join(f"{column!r} in {shown(rows)}" for column, rows in lacking.items())
        raise ValueError(
            f"task: {spec.name} lacks a value for {told}. Fill it in, or leave such rows out with "
            "`task.missing: drop`"
        )
    return whole


def _lacks(spec: TaskSpec, record: Record) -> str | None:
    """The column of a value that is missing; an empty text is one, an empty label is not."""
    classes = kind_of(spec) == "text_classification"
    for key, column in wanted(spec):
        value = record.get(column)
        if is_nothing(value) and (not isinstance(value, str) or key not in ("text", "template")):
            return column
        word = bare(value) if isinstance(value, str) else ""
        unlisted = word not in (spec.labels or ())
        if classes and key == "label" and unlisted and word.casefold() in NO_LABEL:
            return column
    return None


def filled(spec: TaskSpec, number: int, record: Record) -> str:
    """The template with every `{column}` replaced by the record's value."""
    return _FIELD.sub(
        lambda match: text_of(spec, number, match[1], record[match[1]]), spec.template or ""
    )


def _row(spec: TaskSpec, number: int, record: Record) -> AnyRow:
    first, *second = (text_of(spec, number, column, record[column]) for column in spec.columns)
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
