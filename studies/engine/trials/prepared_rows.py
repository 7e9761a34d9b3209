"""The rows of a task, prepared once for the trials of one process, and those trained on again."""

import json
import random
from dataclasses import dataclass, field, replace
from functools import cache, lru_cache
from typing import Any

import torch
from torch import Tensor, nn

from studies import tasks
from studies.tasks import TaskData
from studies.tasks.kinds import Prepared
from studies.tasks.kinds.prepared import evaluating, run_on


@lru_cache(maxsize=4)
def rows(task: str, split_seed: int, content: str | None) -> TaskData:
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


def as_test(data: TaskData, seed: int) -> TaskData:
    """`data` with as many training rows as there are test rows, or all, in place of the test rows.

    They are drawn by `seed`; of the training rows one is left, which nothing is done with.
    """
    rows = data.splits["train"]
    chosen = random.Random(seed).sample(rows, min(len(rows), len(data.splits["test"])))
    return replace(data, splits={"train": rows[:1], "test": tuple(chosen)})


class Objective:
    """The training loss on `count` training rows, the same for one `seed`, without dropout."""

    def __init__(self, prepared: Prepared, count: int, seed: int) -> None:
        self._prepared, every = prepared, range(len(prepared.train))
        chosen = random.Random(seed).sample(every, min(count, len(every)))
        self._places = sorted(chosen, key=lambda place: (prepared.train.lengths[place], place))
        self._batches_of = cache(self._collate)

    def __call__(
        self, model: nn.Module, batch_size: int, autocast: torch.dtype | None = None
    ) -> float:
        """That of `model` as it is, `batch_size` rows at a time; `autocast` as for `evaluate`."""
        batches = self._batches_of(batch_size)
        items = sum(int(batch["labels"].ne(-100).sum()) for batch in batches)
        total = 0.0
        with evaluating(model, autocast) as device:
            for outputs, labels in run_on(model, batches, device):
                total += float(self._prepared.loss(outputs, labels, items))
        return total

    def _collate(self, size: int) -> list[dict[str, Tensor]]:
        rows = [self._prepared.train[place] for place in self._places]
        starts = range(0, len(rows), size)
        return [self._prepared.collate(rows[start : start + size]) for start in starts]
