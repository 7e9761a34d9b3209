"""Rows of a Hugging Face hub data set, or of a local folder.

`owner/name`, or `owner/name:subset` where the set has several, e.g. `nyu-mll/glue:sst2`. A folder
of one table file a split (train.csv, test.csv ...) is read as a single file is; whatever else,
through `datasets.load_dataset`, whose reader of CSV guesses types.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from studies.archives.contents import files_below
from studies.tasks.labels import check_none_lost, check_spelling, class_names
from studies.tasks.records import Record, check_columns, describe_columns, rows_of
from studies.tasks.rows import AnyRow
from studies.tasks.spec import TaskSpec
from studies.tasks.splits import check_disjoint, clean, split_pool
from studies.tasks.table_files import is_table, read_records
from studies.tasks.task import Task, TaskData, TaskInfo

READERS = {".json": "json", ".jsonl": "json", ".csv": "csv", ".parquet": "parquet"}
"""The builder of `datasets` for a file's ending."""
_SPLITS = {"dev": "validation", "val": "validation", "valid": "validation"}
_NAMED = ("train", "validation", "test", *_SPLITS)
_HIDDEN = (None, -1, "-1", "")
"""What stands for a label in a split that hides them all."""


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

    def files(self, spec: TaskSpec) -> Mapping[str, Path]:
        """Those of a folder."""
        tables = _split_files(spec.name) if _is_path(spec.name) else {}
        return {f.name: f for f in tables.values()} or local_files(spec.name)

    def load(self, spec: TaskSpec, split_seed: int) -> TaskData:
        """Load, clean and split the rows."""
        info = self.info(spec)
        pools: dict[str, list[AnyRow]] = {}
        read: list[AnyRow] = []
        removed = Counter[str]()
        for name, records in labelled_splits(spec.name, spec).items():
            part = spec.model_copy(update={"name": f"{spec.name} ({name})"})  # said of wrong rows
            rows, missing = rows_of(part, records)
            read += rows
            pools[name], counts = clean(rows)
            removed.update({"missing": missing, **counts})
        check_spelling(info, spec, read)
        check_none_lost(info, read, [row for rows in pools.values() for row in rows])
        removed["in_test"] = _repeated(pools)
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
    files = _split_files(place) if _is_path(place) else {}
    if files:
        loaded = {name: _from_file(spec, file) for name, file in files.items()}
    else:
        loaded = {name: _from_table(spec, table) for name, table in load_tables(place).items()}
    own = [_SPLITS.get(name, name) for name in loaded]
    if twice := sorted({name for name in own if own.count(name) > 1}):
        raise ValueError(
            f"task: {spec.name} has more than one split {twice[0]!r} ({', '.join(loaded)}; dev, "
            "val and valid are read as validation): keep one"
        )
    found = {
        name: records
        for name, records in zip(own, loaded.values(), strict=True)
        if not all(record.get(spec.label) in _HIDDEN for record in records)
    }
    if "train" not in found:
        raise ValueError(f"task: {spec.name} has no labelled split `train`; it has {list(loaded)}")
    return found


def _split_files(folder: str) -> dict[str, Path]:
    """Table files by the split that each is named after; {} where the folder holds others too."""
    path = Path(folder).expanduser()
    files = [file for file in sorted(path.glob("*")) if is_table(file.name)]
    found = {file.name.partition(".")[0]: file for file in files}
    alone = len(found) == len(files) and set(found) <= set(_NAMED)
    return found if alone and not (path / "README.md").exists() else {}


def _from_file(spec: TaskSpec, file: Path) -> list[Record]:
    records: list[Record] = list(read_records(file))
    if records:
        # the file's name, so that the message says which of the folder's
        check_columns(spec.model_copy(update={"name": str(file)}), list(records[0]))
    return records


def _from_table(spec: TaskSpec, table: Any) -> list[Record]:
    """The records of a `datasets.Dataset`, with the names of classes for their numbers."""
    from datasets import ClassLabel

    check_columns(spec, list(table.column_names))
    feature = table.features[spec.label]
    if not isinstance(feature, ClassLabel):
        return list(table)
    return [{**r, spec.label: _name(feature.names, r[spec.label])} for r in table]


def _repeated(pools: Mapping[str, Sequence[AnyRow]]) -> int:
    """Rows of other splits that are also in the one tested on, which `assign` leaves out."""
    name = next((name for name in ("test", "validation") if pools.get(name)), None)
    if name is None:
        return 0
    tested = {row.identity for row in pools[name]}
    rest = (row for other, rows in pools.items() if other != name for row in rows)
    return sum(row.identity in tested for row in rest)


def _is_path(place: str) -> bool:
    return place.startswith((".", "/", "~"))


def load_tables(place: str) -> Any:
    """The `DatasetDict` of a hub id, `owner/name:subset`, or a local folder."""
    from datasets import load_dataset

    path, _, subset = place.partition(":")
    if _is_path(path):
        path = str(Path(path).expanduser())
    return load_dataset(path, subset or None)


def local_files(place: str) -> dict[str, Path]:
    """The files of which `load_tables` makes a data set; {} where it is none of this machine."""
    folder = Path(place.partition(":")[0]).expanduser()
    return files_below(folder) if folder.is_dir() else {}


def split_files(folder: str) -> dict[str, Path]:
    """The table files of a folder that holds one a split, by the split."""
    path = Path(folder).expanduser()
    return {file.stem: file for file in sorted(path.glob("*")) if file.suffix in READERS}


def local_tables(folder: str) -> Any:
    """The `DatasetDict` of a folder that holds one file a split, named after it.

    Raises:
        ValueError: there is no such folder, or it holds no table files of one format.
    """
    from datasets import load_dataset

    files = split_files(folder)
    formats = {READERS[file.suffix] for file in files.values()}
    if len(formats) != 1:
        raise ValueError(
            f"task: `data` must be a folder with one file a split (train.jsonl ...), all .jsonl, "
            f".csv or .parquet; {folder} holds {sorted(file.name for file in files.values())}"
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
