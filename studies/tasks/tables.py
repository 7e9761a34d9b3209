"""A table file of the user's as a task."""

from collections.abc import Mapping
from pathlib import Path

from studies.tasks.columns import check_columns, describe_columns
from studies.tasks.labelled import from_splits
from studies.tasks.records import Source, rows_of
from studies.tasks.spec import TaskSpec
from studies.tasks.table_files import read_records
from studies.tasks.task import Task, TaskData, TaskInfo


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
