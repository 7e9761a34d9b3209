"""Rows from a CSV, TSV, JSON, JSON Lines or Parquet file.

The standard library reads the text formats: readers that guess types turn the text "NA" into
nothing and the label "01" into 1.
"""

import csv
import json
from collections.abc import Iterator
from pathlib import Path

from studies.tasks.labelled import from_pool
from studies.tasks.records import check_columns, describe_columns, rows_of
from studies.tasks.spec import TaskSpec
from studies.tasks.task import Task, TaskData, TaskInfo

SUFFIXES = (".csv", ".tsv", ".json", ".jsonl", ".parquet")


def is_table(name: str) -> bool:
    """Whether a task's name is the path of such a file."""
    return name.lower().endswith(SUFFIXES)


class TableFile(Task):
    """A file of the user's; all rows form one pool that we split."""

    def info(self, spec: TaskSpec) -> TaskInfo:
        """Describe the task; reads the first row to check the columns."""
        path = Path(spec.name).expanduser()
        if not path.is_file():
            raise ValueError(f"task: no such file {spec.name} (looked for {path.resolve()})")
        info = describe_columns(spec, licence="not stated", source=f"file {path.name}")
        first = next(read_records(path), None)
        if first is None:
            raise ValueError(f"task: {spec.name} has no rows")
        check_columns(spec, list(first))
        return info

    def load(self, spec: TaskSpec, split_seed: int) -> TaskData:
        """Read, clean and split the file."""
        info = self.info(spec)
        rows = rows_of(spec, list(read_records(Path(spec.name).expanduser())))
        return from_pool(info, spec, rows, split_seed)


def read_records(path: Path) -> Iterator[dict[str, object]]:
    """The records of a file, one after the other."""
    suffix = path.suffix.lower()
    if suffix in (".csv", ".tsv"):
        with path.open(newline="", encoding="utf-8-sig") as file:
            yield from csv.DictReader(file, delimiter="\t" if suffix == ".tsv" else ",")
    elif suffix == ".jsonl":
        with path.open(encoding="utf-8") as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    yield _object(path, number, line)
    elif suffix == ".json":
        yield from _array(path)
    else:
        import pyarrow.parquet

        for batch in pyarrow.parquet.ParquetFile(path).iter_batches():
            yield from batch.to_pylist()


def _object(path: Path, number: int, line: str) -> dict[str, object]:
    try:
        record = json.loads(line)
    except ValueError as error:
        raise ValueError(f"task: {path}, line {number} is no JSON: {error}") from error
    if not isinstance(record, dict):
        raise ValueError(f"task: {path}, line {number} must be a JSON object, got {line[:60]!r}")
    return record


def _array(path: Path) -> list[dict[str, object]]:
    try:
        records = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"task: {path} is no JSON: {error}") from error
    if not isinstance(records, list) or not all(isinstance(record, dict) for record in records):
        raise ValueError(f"task: {path} must be a JSON array of objects")
    return records
