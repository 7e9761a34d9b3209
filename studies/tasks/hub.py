"""Rows of a Hugging Face hub data set, or of a local folder, through `datasets.load_dataset`.

`owner/name`, or `owner/name:subset` where the set has several, e.g. `nyu-mll/glue:sst2`.
"""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from studies.tasks.labels import check_none_lost, check_spelling, class_names
from studies.tasks.records import Record, check_columns, describe_columns, rows_of
from studies.tasks.rows import AnyRow
from studies.tasks.spec import TaskSpec
from studies.tasks.splits import check_disjoint, clean, split_pool
from studies.tasks.task import Task, TaskData, TaskInfo

READERS = {".json": "json", ".jsonl": "json", ".csv": "csv", ".parquet": "parquet"}
"""The builder of `datasets` for a file's ending."""


class HubDataset(Task):
    """A data set with columns of text and labels, with or without splits of its own.

    Test comes from the set's labelled `test` split, else from `validation`, else from `train`;
    valid from a `validation` split not used for test, else from `train`. A text that is in
    several splits stays in test before valid before train.
    """

    def info(self, spec: TaskSpec) -> TaskInfo:
        """Describe the task; columns are checked when the rows are loaded."""
        return describe_columns(
            spec,
            licence="see the data set's card",
            source=f"datasets.load_dataset({spec.name!r})",
        )

    def is_local(self, spec: TaskSpec) -> bool:
        """Whether it is a folder."""
        return _is_path(spec.name)

    def load(self, spec: TaskSpec, split_seed: int) -> TaskData:
        """Load, clean and split the rows."""
        info = self.info(spec)
        pools: dict[str, list[AnyRow]] = {}
        read: list[AnyRow] = []
        removed = Counter[str]()
        for name, records in labelled_splits(spec.name, spec).items():
            rows, missing = rows_of(spec, records)
            read += rows
            pools[name], counts = clean(rows)
            removed.update({"missing": missing, **counts})
        check_spelling(info, spec, read)
        check_none_lost(info, read, [row for rows in pools.values() for row in rows])
        splits = assign(pools, spec, split_seed, stratified=spec.stratify and info.has_classes)
        check_disjoint(splits)
        every = [row for rows in splits.values() for row in rows]
        labels = class_names(spec, every) if info.has_classes else ()
        return TaskData(info, labels, splits, dict(removed))


def labelled_splits(place: str, spec: TaskSpec) -> dict[str, list[Record]]:
    """Labelled records of `place` by its own split names; `dev`, `val` are read as `validation`.

    Class numbers become class names where the set has them. A split without any label hides them;
    elsewhere a label that is not there is a missing value.

    Raises:
        ValueError: a column is missing, or there is no labelled split `train`.
    """
    from datasets import ClassLabel

    found: dict[str, list[Record]] = {}
    loaded = load_tables(place)
    for name, table in loaded.items():
        check_columns(spec, list(table.column_names))
        feature = table.features[spec.label]
        names = feature.names if isinstance(feature, ClassLabel) else None
        records = list(table)
        if names:
            records = [{**r, spec.label: _name(names, r[spec.label])} for r in records]
        if not all(record[spec.label] in (None, -1) for record in records):
            found[{"dev": "validation", "val": "validation"}.get(name, name)] = records
    if "train" not in found:
        raise ValueError(f"task: {spec.name} has no labelled split `train`; it has {list(loaded)}")
    return found


def _is_path(place: str) -> bool:
    return place.startswith((".", "/", "~"))


def load_tables(place: str) -> Any:
    """The `DatasetDict` of a hub id, `owner/name:subset`, or a local folder."""
    from datasets import load_dataset

    path, _, subset = place.partition(":")
    if _is_path(path):
        path = str(Path(path).expanduser())
    return load_dataset(path, subset or None)


def local_tables(folder: str) -> Any:
    """The `DatasetDict` of a folder that holds one file a split, named after it.

    Raises:
        ValueError: there is no such folder, or it holds no table files of one format.
    """
    from datasets import load_dataset

    path = Path(folder).expanduser()
    files = {f.stem: f for f in sorted(path.glob("*")) if f.suffix in READERS}
    formats = {READERS[file.suffix] for file in files.values()}
    if len(formats) != 1:
        raise ValueError(
            f"task: `data` must be a folder with one file a split (train.jsonl ...), all .jsonl, "
            f".csv or .parquet; {path} holds {sorted(file.name for file in files.values())}"
        )
    return load_dataset(formats.pop(), data_files={name: str(f) for name, f in files.items()})


def _name(names: Sequence[str], label: int | None) -> str | None:
    """The class's name; hidden labels are None, or -1 as in GLUE."""
    return None if label is None or label < 0 else names[label]


def assign(
    pools: dict[str, list[AnyRow]], spec: TaskSpec, split_seed: int, *, stratified: bool
) -> dict[str, tuple[AnyRow, ...]]:
    """Train, valid and test out of a data set's own splits."""
    test = pools.get("test") or pools.get("validation")
    valid = pools.get("validation") if "test" in pools else None
    if test is None:
        return split_pool(pools["train"], spec, split_seed, stratified=stratified)
    chosen: dict[str, tuple[AnyRow, ...]] = {}
    taken: set[str] = set()

    def take(name: str, rows: Sequence[AnyRow], count: int | None) -> None:
        free = [row for row in rows if row.identity not in taken]
        part = spec.model_copy(
            update={"train_rows": count or len(free), "valid_rows": 0, "test_rows": 0}
        )
        chosen[name] = split_pool(free, part, split_seed, stratified=stratified)["train"]
        taken.update(row.identity for row in chosen[name])

    take("test", test, spec.test_rows)
    # rows of the test set that were not asked for do not become training rows either
    taken.update(row.identity for row in test)
    share = max(1, round(0.1 * len(pools["train"])))
    take("valid", valid or pools["train"], spec.valid_rows or (None if valid else share))
    take("train", pools["train"], spec.train_rows)
    return {name: chosen[name] for name in ("train", "valid", "test")}
