"""From the records of a file or data set to rows, by the columns that a `task:` entry names.

- `text` and `label`: a text, or a pair of texts, with a class;
- `template`, `choices` and `label`: a multiple-choice question;
- `template` and `label`: an instruction with its response.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from basis_zoo.registry import did_you_mean
from studies.tasks.metrics import CLASSIFICATION, INSTRUCTION, multiple_choice_names
from studies.tasks.rows import AnyRow, Exchange, Item, Row
from studies.tasks.spec import TaskSpec
from studies.tasks.task import Kind, TaskInfo

Record = Mapping[str, Any]
_FIELD = re.compile(r"\{([^{}]+)\}")
_LETTERS = "ABCDEFGHIJ"


def describe_columns(spec: TaskSpec, *, licence: str, source: str) -> TaskInfo:
    """What a task of these columns is; `source` is completed with the columns.

    Raises:
        ValueError: `choices` without a template.
    """
    if spec.choices is not None and spec.template is None:
        raise ValueError("task: `choices` needs a `template` for the question, e.g. '{question}'")
    columns = ", ".join(dict.fromkeys(column for _, column in wanted(spec)))
    kind = kind_of(spec)
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


def check_columns(spec: TaskSpec, columns: Sequence[str]) -> None:
    """Refuse a column that is named and not there.

    Raises:
        ValueError: names the key to set and the columns there are.
    """
    for key, column in wanted(spec):
        if column not in columns:
            raise ValueError(
                f"task: {spec.name} has no column {column!r}.{did_you_mean(column, columns)} "
                f"Set `task.{key}` to one of: {', '.join(map(str, columns))}"
            )


def rows_of(spec: TaskSpec, records: Sequence[Record]) -> list[AnyRow]:
    """One row a record.

    Raises:
        ValueError: a record lacks a value, or a label is none of its choices.
    """
    for number, record in enumerate(records, start=1):
        lacking = [column for _, column in wanted(spec) if record.get(column) is None]
        if lacking:
            raise ValueError(f"task: {spec.name}, row {number} lacks a value for {lacking[0]!r}")
    kind = kind_of(spec)
    if kind == "multiple_choice":
        return list(_items(spec, records))
    if kind == "instruction":
        return [Exchange(filled(spec.template, r), str(r[spec.label])) for r in records]
    return [_row(spec, record) for record in records]


def filled(template: str | None, record: Record) -> str:
    """The template with every `{column}` replaced by the record's value."""
    return _FIELD.sub(lambda match: str(record[match[1]]), template or "")


def _row(spec: TaskSpec, record: Record) -> Row:
    first, *second = (str(record[column]) for column in spec.columns)
    return Row(first, str(record[spec.label]), *second)


def _items(spec: TaskSpec, records: Sequence[Record]) -> list[Item]:
    if isinstance(spec.choices, str):
        choices = [[str(choice) for choice in record[spec.choices]] for record in records]
    else:
        choices = [[str(record[column]) for column in spec.choices or ()] for record in records]
    golds = _places(spec, [str(record[spec.label]).strip() for record in records], choices)
    return [
        Item.of(filled(spec.template, record), texts, gold)
        for record, texts, gold in zip(records, choices, golds, strict=True)
    ]


def _places(spec: TaskSpec, labels: Sequence[str], choices: Sequence[Sequence[str]]) -> list[int]:
    """Places of the right choices: labels are texts, letters, or numbers from 0 or else from 1."""
    pairs = list(zip(labels, choices, strict=True))
    if all(label in map(str.strip, texts) for label, texts in pairs):
        return [[text.strip() for text in texts].index(label) for label, texts in pairs]
    if all(label.upper() in tuple(_LETTERS[: len(texts)]) for label, texts in pairs):
        return [_LETTERS.index(label.upper()) for label, _ in pairs]
    start = 0 if "0" in labels else 1
    for number, (label, texts) in enumerate(pairs, start=1):
        if not label.isdigit() or not 0 <= int(label) - start < len(texts):
            raise ValueError(
                f"task: {spec.name}, row {number}: label {label!r} is not one of its "
                f"{len(texts)} choices, nor a letter or number for one; set `task.label`"
            )
    return [int(label) - start for label in labels]
