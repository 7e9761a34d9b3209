"""From a user's rows, in one pool or in splits of their own, to a `TaskData`."""

from collections.abc import Sequence

from studies.tasks.labels import check_none_lost, check_spelling, class_names
from studies.tasks.rows import AnyRow
from studies.tasks.spec import TaskSpec
from studies.tasks.splits import check_disjoint, clean, split_pool
from studies.tasks.task import TaskData, TaskInfo


def from_pool(
    info: TaskInfo, spec: TaskSpec, rows: Sequence[AnyRow], missing: int, split_seed: int
) -> TaskData:
    """Clean and split one pool of rows, out of which `missing` were dropped.

    Raises:
        ValueError: too few rows, labels that are no classes, or a class without a row.
    """
    check_spelling(info, spec, rows)
    kept, removed = clean(rows)
    check_none_lost(info, rows, kept)
    labels = class_names(spec, kept) if info.has_classes else ()
    splits = split_pool(kept, spec, split_seed, stratified=spec.stratify and info.has_classes)
    check_disjoint(splits)
    return TaskData(info, labels, splits, {"missing": missing, **removed})
