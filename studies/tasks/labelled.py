"""From labelled rows of unknown classes to a `TaskData`."""

from collections import Counter
from collections.abc import Sequence

from studies.tasks.rows import AnyRow
from studies.tasks.spec import TaskSpec
from studies.tasks.splits import check_disjoint, clean, split_pool
from studies.tasks.task import TaskData, TaskInfo

MAX_CLASSES = 1000


def from_pool(info: TaskInfo, spec: TaskSpec, rows: Sequence[AnyRow], split_seed: int) -> TaskData:
    """Clean and split one pool of rows.

    Raises:
        ValueError: too few rows, or labels that are no classes.
    """
    kept, removed = clean(rows)
    check_none_lost(info, rows, kept)
    labels = class_names(info.name, spec.label, kept) if info.has_classes else ()
    splits = split_pool(kept, spec, split_seed)
    check_disjoint(splits)
    return TaskData(info, labels, splits, removed)


def check_none_lost(info: TaskInfo, rows: Sequence[AnyRow], kept: Sequence[AnyRow]) -> None:
    """Refuse data that have lost a class with the rows that were removed.

    Raises:
        ValueError: names the classes.
    """
    if not info.has_classes:
        return
    before = Counter(row.label for row in rows)
    left = {row.label for row in kept}
    lost = [label for label in before if label not in left]
    if lost:
        told = ", ".join(f"{label!r} ({before[label]} rows)" for label in lost)
        raise ValueError(
            f"task: no row of class {told} is left of {info.name}: each has no text, or a text "
            "that also occurs with another label; correct these rows, or leave the class out"
        )


def class_names(task: str, column: str, rows: Sequence[AnyRow]) -> tuple[str, ...]:
    """The labels in order: as numbers where all are integers, alphabetically otherwise.

    Raises:
        ValueError: fewer than two classes, or so many that the column holds no classes.
    """
    found = {row.label for row in rows}
    if len(found) < 2:
        raise ValueError(
            f"task: column {column!r} of {task} has {len(found)} different label(s); need two"
        )
    if len(found) > min(MAX_CLASSES, max(2, len(rows) // 2)):
        raise ValueError(
            f"task: column {column!r} of {task} has {len(found)} different values in {len(rows)} "
            f"rows, so they are no classes; set `task.label` to a column of classes"
        )
    numbers = all(label.lstrip("-").isdigit() for label in found)
    return tuple(sorted(found, key=int if numbers else str))
