"""Tasks by name; a name that is a path or a hub id means the user's own data."""

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from basis_zoo.registry import Registry
from studies.archives.contents import content_of
from studies.backbones.head import Head
from studies.tasks import data_remarks
from studies.tasks.hub import HubDataset, TableFile
from studies.tasks.places import local_path
from studies.tasks.spec import TaskSpec
from studies.tasks.table_files import SUFFIXES, is_table
from studies.tasks.task import Task, TaskData, TaskInfo

if TYPE_CHECKING:
    from studies.tasks.kinds.prepared import Prepared

_TASKS: Registry[Task] = Registry("task", Task)
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+(:[\w.-]+)?")


register_task = _TASKS.add
"""Make a task known by a name that studies can use."""
list_tasks = _TASKS.names


def get_task(name: str) -> Task:
    """The task behind a name, a path or a hub id.

    Raises:
        ValueError: none of these; the message suggests the closest registered name.
    """
    if name in _TASKS:
        return _TASKS.find(name)
    if is_table(name):
        return TableFile()
    path = local_path(name)
    if path.is_dir() if path is not None else _HUB_ID.fullmatch(name):
        return HubDataset()
    if path is None:
        raise ValueError(
            f"{_TASKS.unknown(name)}. Besides: a file ({', '.join(SUFFIXES)}), a folder that "
            "exists, a hub id owner/name, or what a plug-in registers"
        )
    if path.is_file():
        raise ValueError(
            f"task: {name} is no table: its name must end in one of {', '.join(SUFFIXES)} "
            "(text also compressed: .csv.gz); save it as one of them"
        )
    raise ValueError(f"task: no such file or folder {name}")


def parse(spec: str | Mapping[str, Any]) -> TaskSpec:
    """A `task:` entry as a `TaskSpec`.

    Raises:
        ValueError: unknown key, or a value of the wrong kind or out of range.
    """
    return TaskSpec.read("task", spec)


def check(spec: str | Mapping[str, Any]) -> TaskInfo:
    """Check a `task:` entry without fetching anything, and describe the task.

    Raises:
        ValueError: unknown task or key, a file or column that does not exist, a bad value.
    """
    parsed = parse(spec)
    return get_task(parsed.name).info(parsed)


def fetch(spec: str | Mapping[str, Any]) -> None:
    """Put a packaged task's rows into the cache.

    Raises:
        ValueError: as `check`.
        studies.archives.ArchiveError: they cannot be had.
    """
    parsed = parse(spec)
    get_task(parsed.name).fetch(parsed)


def load(spec: str | Mapping[str, Any], split_seed: int = 0) -> TaskData:
    """The task's rows, cleaned and split by `split_seed`.

    Raises:
        ValueError: as `check`, or too few rows for the splits.
        studies.archives.ArchiveError: a packaged source cannot be had.
    """
    parsed = parse(spec)
    return get_task(parsed.name).load(parsed, split_seed)


def content(spec: str | Mapping[str, Any]) -> str | None:
    """The sha256 of what the rows are read from, where these are files of the user's.

    None for what ships, whose archives are pinned, and for a hub id.

    Raises:
        ValueError: as `check`.
        OSError: a file cannot be read.
    """
    parsed = parse(spec)
    return content_of(get_task(parsed.name).files(parsed))


def is_local(spec: str | Mapping[str, Any]) -> bool:
    """Whether the rows are read from files of the user's alone, which takes seconds."""
    parsed = parse(spec)
    return get_task(parsed.name).is_local(parsed)


def truncated(spec: str | Mapping[str, Any], data: TaskData, processor: Any) -> dict[str, float]:
    """The share of each split's texts that are cut to `task.max_length`; {} where none is."""
    return data_remarks.truncated(parse(spec), data, processor)


def prepare(spec: str | Mapping[str, Any], data: TaskData, processor: Any) -> "Prepared":
    """`data` made ready for a model that takes what `processor` (or tokenizer) gives."""
    from studies.tasks.kinds import KINDS  # torch is imported no earlier than here

    return KINDS[data.info.kind](parse(spec), data, processor)


def head(spec: str | Mapping[str, Any], data: TaskData) -> Head:
    """What a model must give for this task; `studies.backbones.load` takes it."""
    parsed = parse(spec)
    return get_task(parsed.name).head(parsed, data)
