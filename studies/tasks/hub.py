"""Rows of the user's own: of a Hugging Face hub data set, a local folder, or a table file.

`owner/name`, or `owner/name:subset` where the set has several, e.g. `nyu-mll/glue:sst2`. A folder
of one table file a split (train.csv, test.csv ...) is read as a single file is: `datasets` guesses
types in text. What is not text, such as Parquet in parts, is left to `datasets.load_dataset`.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from studies.archives.contents import files_below
from studies.tasks.columns import check_columns, describe_columns
from studies.tasks.labelled import from_splits
from studies.tasks.places import SPLITS, local_path, split_files
from studies.tasks.records import Source, rows_of
from studies.tasks.spec import TaskSpec
from studies.tasks.table_files import read_records
from studies.tasks.task import Task, TaskData, TaskInfo

_USED = ("train", "validation", "test")
HIDDEN = (None, -1, "-1", "")
"""What stands for a label in a split that hides them all."""


class TableFile(Task):
    """A file of the user's; all rows form one pool that we split."""

    def info(self, spec: TaskSpec) -> TaskInfo:
        """Describe the task; reads rows until all columns were seen."""
        path = Path(spec.name).expanduser()
        if not path.is_file():
            raise ValueError(f"task: no such file {spec.name} (looked for {path.resolve()})")
        info = describe_columns(spec, licence="not stated", source=f"file {path.name}")
        check_columns(spec, spec.name, read_records(path))
        return info

    def is_local(self, spec: TaskSpec) -> bool:
        """It always is."""
        return True

    def files(self, spec: TaskSpec) -> Mapping[str, Path]:
        """The one file."""
        return {"": Path(spec.name).expanduser()}

    def load(self, spec: TaskSpec, split_seed: int) -> TaskData:
        """Read, clean and split the file."""
        info = self.info(spec)
        records = list(read_records(Path(spec.name).expanduser()))
        (rows,), missing = rows_of(spec, [Source(spec.name, records)])
        return from_splits(info, spec, {"train": rows}, missing, split_seed)


class HubDataset(Task):
    """A data set with columns of text and labels, with or without splits of its own."""

    def info(self, spec: TaskSpec) -> TaskInfo:
        """Describe the task; columns are checked when the rows are loaded."""
        path = local_path(spec.name)
        if path is not None:
            return describe_columns(spec, licence="not stated", source=f"folder {path.name}")
        source = f"datasets.load_dataset({spec.name!r})"
        return describe_columns(spec, licence="see the data set's card", source=source)

    def is_local(self, spec: TaskSpec) -> bool:
        """Whether it is a folder."""
        return local_path(spec.name) is not None

    def files(self, spec: TaskSpec) -> Mapping[str, Path]:
        """Those of a folder."""
        path = local_path(spec.name)
        tables = split_files(path) if path is not None else {}
        return {file.name: file for file in tables.values()} or local_files(spec.name)

    def load(self, spec: TaskSpec, split_seed: int) -> TaskData:
        """Load, clean and split the rows."""
        info = self.info(spec)
        sources, notes = _labelled(spec)
        rows, missing = rows_of(spec, list(sources.values()))
        own = dict(zip(sources, rows, strict=True))
        return from_splits(info, spec, own, missing, split_seed, notes)


def _labelled(spec: TaskSpec) -> tuple[dict[str, Source], list[str]]:
    """The splits that have labels, and what is to be told of those that hide them.

    Raises:
        ValueError: a column is missing, two files are for one split, there is no labelled split
            `train`, or a file of the user's has no label at all.
    """
    loaded = _splits(spec)
    labelled = {name: source for name, source in loaded.items() if not _hides(spec, source)}
    if "train" not in labelled:
        raise ValueError(f"task: {spec.name} has no labelled split `train`; it has {list(loaded)}")
    notes = []
    if "test" in loaded and "test" not in labelled:
        instead = "validation" if "validation" in labelled else "train"
        notes = [f"the split `test` hides its labels: rows to test on are taken from `{instead}`"]
    return labelled, notes


def _splits(spec: TaskSpec) -> dict[str, Source]:
    """Those of train, validation and test that there are; `dev`, `val` are read as `validation`."""
    path = local_path(spec.name)
    files = split_files(path) if path is not None else {}
    if files:
        loaded = {name: _from_file(spec, file) for name, file in files.items()}
    else:
        loaded = {
            name: _from_table(spec, name, table)
            for name, table in load_tables(spec.name).items()
            if SPLITS.get(name, name) in _USED
        }
    own = [SPLITS.get(name, name) for name in loaded]
    if twice := sorted({name for name in own if own.count(name) > 1}):
        raise ValueError(
            f"task: {spec.name} has more than one split {twice[0]!r} ({', '.join(loaded)}; dev, "
            "val and valid are read as validation): keep one"
        )
    return dict(zip(own, loaded.values(), strict=True))


def _from_file(spec: TaskSpec, file: Path) -> Source:
    """The records of a file of the user's, which must have labels."""
    source = Source(str(file), list(read_records(file)))
    check_columns(spec, *source)
    if _hides(spec, source):
        raise ValueError(
            f"task: {file} has no label in any row (column {spec.label!r} is empty or -1): fill "
            "the labels in, or move the file elsewhere; its rows are then drawn from another split"
        )
    return source


def _from_table(spec: TaskSpec, name: str, table: Any) -> Source:
    """The records of a `datasets.Dataset`, with the names of classes for their numbers."""
    from datasets import ClassLabel

    called = f"{spec.name} ({name})"
    check_columns(spec, called, [dict.fromkeys(table.column_names)])
    feature = table.features[spec.label]
    if not isinstance(feature, ClassLabel):
        return Source(called, list(table))
    names = feature.names
    return Source(called, [{**r, spec.label: _name(names, r[spec.label])} for r in table])


def _hides(spec: TaskSpec, source: Source) -> bool:
    return all(record.get(spec.label) in HIDDEN for record in source.records)


def load_tables(place: str) -> Any:
    """The `DatasetDict` of a hub id, `owner/name:subset`, or a local folder."""
    from datasets import load_dataset

    path = local_path(place)
    if path is not None:
        return load_dataset(str(path))
    hub, _, subset = place.partition(":")
    return load_dataset(hub, subset or None)


def local_files(place: str) -> dict[str, Path]:
    """The files of which `load_tables` makes a data set; {} where it is none of this machine."""
    path = local_path(place)
    return files_below(path) if path is not None else {}


def _name(names: Sequence[str], label: int | None) -> str | None:
    """The class's name; hidden labels are None, or -1 as in GLUE."""
    return None if label is None or label < 0 else names[label]
