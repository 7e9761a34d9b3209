"""From a user's rows, in one pool or in splits of their own, to a `TaskData`."""

from collections import Counter
from collections.abc import Mapping, Sequence

from studies.tasks.labels import check_none_lost, check_spelling, class_names
from studies.tasks.rows import AnyRow, identity
from studies.tasks.spec import TaskSpec
from studies.tasks.splits import (
    VALID_SHARE,
    apart_from,
    check_disjoint,
    clean,
    contradicted,
    split_pool,
)
from studies.tasks.task import TaskData, TaskInfo

_ORDER = ("test", "validation", "train")
"""A text that is in several splits stays in the first of these."""


def from_splits(
    info: TaskInfo,
    spec: TaskSpec,
    own: Mapping[str, Sequence[AnyRow]],
    missing: int,
    split_seed: int,
    notes: Sequence[str] = (),
) -> TaskData:
    """Clean `own`, out of which `missing` rows were dropped, and draw train, valid and test.

    Test comes from a split `test`, else `validation`, else `train`; valid from a `validation` that
    is not used for test, else from `train`.

    Raises:
        ValueError: too few rows, labels that are no classes, or a class or split without a row.
    """
    read = [row for rows in own.values() for row in rows]
    check_spelling(info, spec, read)
    pools, removed = _cleaned(own)
    cleaned = [row for rows in pools.values() for row in rows]
    check_none_lost(info, read, cleaned)
    for name, rows in pools.items():
        if not rows and len(pools) > 1:
            raise ValueError(
                f"task: no row of the split {name!r} is left of {spec.name}: each lacks a value, "
                "is also in another split, or has another label there"
            )
    labels = class_names(spec, cleaned) if info.has_classes else ()
    splits = _split(pools, spec, split_seed, stratified=spec.stratify and info.has_classes)
    check_disjoint(splits)
    return TaskData(info, labels, splits, {"missing": missing, **removed}, tuple(notes))


def _cleaned(
    own: Mapping[str, Sequence[AnyRow]],
) -> tuple[dict[str, list[AnyRow]], dict[str, int]]:
    """One row for each identity over all splits, none where labels differ; removed, by reason."""
    if len(own) == 1:
        ((name, rows),) = own.items()
        cleaned, counts = clean(rows)
        return {name: cleaned}, counts
    conflicting = contradicted(row for rows in own.values() for row in rows)
    splits: dict[str, list[AnyRow]] = {}
    home: dict[str, str] = {}
    removed = Counter[str]()
    for name in (name for name in _ORDER if name in own):
        free = []
        for row in own[name]:
            where = home.get(identity(row)) if home else None
            if where is None:
                free.append(row)
            else:
                removed[where] += 1
        splits[name], counts = clean(free, conflicting=conflicting)
        removed.update(counts)
        role = "in_valid" if name == "validation" and "test" in own else "in_test"
        home |= dict.fromkeys(map(identity, splits[name]), role)
    return splits, dict(removed)


def _split(
    pools: Mapping[str, Sequence[AnyRow]], spec: TaskSpec, split_seed: int, *, stratified: bool
) -> dict[str, tuple[AnyRow, ...]]:
    """Train, valid and test out of clean pools."""
    if set(pools) == {"train"}:
        return split_pool(pools["train"], spec, split_seed, stratified=stratified)
    tested = "test" if "test" in pools else "validation"
    chosen: dict[str, tuple[AnyRow, ...]] = {}

    def take(name: str, source: str, count: int | None) -> None:
        free = apart_from((row for rows in chosen.values() for row in rows), pools[source])
        if not free or (count or 1) > len(free):
            used = len(pools[source]) - len(free)
            after = f", {used} of which are used" if used else ""
            raise ValueError(
                f"task: {spec.name}: asked for {name}_rows {count or 'of at least 1'}, but the "
                f"split {source!r} has {len(pools[source])} rows{after}; ask for fewer in `task` "
                "(what a study leaves out, its profile sets)"
            )
        part = {"train_rows": count or len(free), "valid_rows": 0, "test_rows": 0}
        drawn = split_pool(free, spec.model_copy(update=part), split_seed, stratified=stratified)
        chosen[name] = drawn["train"]

    take("test", tested, spec.test_rows)
    if set(pools) == set(_ORDER):
        take("valid", "validation", spec.valid_rows)
    else:
        share = max(1, round(VALID_SHARE * len(pools["train"])))
        take("valid", "train", spec.valid_rows or share)
    take("train", "train", spec.train_rows)
    return {name: chosen[name] for name in ("train", "valid", "test")}
