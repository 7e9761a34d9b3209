"""The rows of a task, read and prepared once for the trials of one process."""

import json
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from studies import tasks
from studies.tasks.kinds import Prepared


@lru_cache(maxsize=4)
def rows(task: str, split_seed: int, content: str | None) -> tasks.TaskData:
    """The rows of a task given as JSON; those of a file with one `content` are read once."""
    return tasks.load(json.loads(task), split_seed)


@dataclass(frozen=True)
class Request:
    """Rows for a model; its processor is told by what the model is."""

    task: str
    split_seed: int
    content: str | None
    backbone: str
    processor: Any = field(compare=False)


@lru_cache(maxsize=2)
def ready(wanted: Request) -> tuple[Prepared, dict[str, float]]:
    """The rows as the model takes them, and what was cut; once for the trials of one process."""
    data = rows(wanted.task, wanted.split_seed, wanted.content)
    task = json.loads(wanted.task)
    cut = tasks.truncated(task, data, wanted.processor)
    return tasks.prepare(task, data, wanted.processor), cut
