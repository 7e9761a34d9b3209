"""The columns that a `task:` entry names, and what they make of the rows.

- `text` and `label`: a text, or a pair of texts, with a class;
- `template`, `choices` and `label`: a multiple-choice question;
- `template` and `label`: an instruction with its response.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from basis_zoo.registry import did_you_mean
from studies.tasks.metrics import CLASSIFICATION, INSTRUCTION, multiple_choice_names
from studies.tasks.spec import TaskSpec
from studies.tasks.task import Kind, TaskInfo

Record = Mapping[str, Any]
_FIELD = re.compile(r"\{([^{}]+)\}")
_FIELD_OR_BRACE = re.compile(r"\{\{|\}\}|\{([^{}]+)\}")
"""For templates with `{{`: there, as in Python's own, `{{` and `}}` stand for braces."""


def describe_columns(spec: TaskSpec, *, licence: str, source: str) -> TaskInfo:
    """What a task of these columns is; `source` is completed with the columns.

    Raises:
        ValueError: `choices` without a template, or a key that these columns have no use for.
    """
    if spec.choices is not None and spec.template is None:
        raise ValueError("task: `choices` needs a `template` for the question, e.g. '{question}'")
    inputs = inputs_of(spec)
    if not inputs:
        raise ValueError(f"task: `template` names no column in braces, got {spec.template!r}")
    if spec.label in inputs:
        raise ValueError(
            f"task: column {spec.label!r} is `label`, the answer, and is shown to the model by "
            f"`{columns_read(spec)[0][0]}`; take it out of one of them"
        )
    columns = ", ".join(dict.fromkeys(column for _, column in columns_read(spec)))
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


def columns_read(spec: TaskSpec) -> list[tuple[str, str]]:
    """(key of the entry, column) for every column that is read."""
    return [
        *(("text" if spec.template is None else "template", column) for column in inputs_of(spec)),
        *(("choices", column) for column in choices_of(spec)),
        ("label", spec.label),
    ]


def inputs_of(spec: TaskSpec) -> Sequence[str]:
    """The columns of what a model is shown."""
    if spec.template is None:
        return spec.columns
    return [field[1] for field in fields_of(spec.template).finditer(spec.template) if field[1]]


def choices_of(spec: TaskSpec) -> Sequence[str]:
    """The columns of choices, or the one with lists of them."""
    return (spec.choices,) if isinstance(spec.choices, str) else spec.choices or ()


def fields_of(template: str) -> re.Pattern[str]:
    """What finds the `{column}` of a template, in its first group; without one it finds a brace."""
    return _FIELD_OR_BRACE if "{{" in template else _FIELD


def check_columns(spec: TaskSpec, name: str, records: Iterable[Record]) -> None:
    """Refuse a column that is named and that no record has.

    Raises:
        ValueError: there is no record, or names the key to set and the columns there are.
    """
    columns: dict[str, None] = {}
    left = columns_read(spec)
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


def optional(spec: TaskSpec) -> Sequence[str]:
    """The columns that `missing: keep` lets be empty, of a pair, a template or more choices."""
    inputs = inputs_of(spec)
    return [*(inputs if len(inputs) > 1 else ()), *choices_of(spec)[2:]]
