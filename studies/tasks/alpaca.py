"""Instructions in Alpaca's format: `instruction`, `input` (may be empty) and `output`.

Taori et al., *Stanford Alpaca: an instruction-following LLaMA model*, 2023. Rows come from the hub
(`tatsu-lab/alpaca`) or from the file `task.data` (.json, .jsonl, .csv, .parquet).
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from studies.tasks.hub import load_tables
from studies.tasks.metrics import INSTRUCTION
from studies.tasks.rows import Exchange, words_of
from studies.tasks.spec import TaskSpec
from studies.tasks.splits import check_disjoint, clean, split_pool
from studies.tasks.table_files import is_table, read_records
from studies.tasks.task import Task, TaskData, TaskInfo

HUB = "tatsu-lab/alpaca"
_WITH_INPUT = (
    "Below is an instruction that describes a task, paired with an input that provides further "
    "context. Write a response that appropriately completes the request.\n\n"
    "### Instruction:\n{instruction}\n\n### Input:\n{input}\n\n### Response:\n"
)
_WITHOUT_INPUT = (
    "Below is an instruction that describes a task. Write a response that appropriately completes "
    "the request.\n\n### Instruction:\n{instruction}\n\n### Response:\n"
)


class Alpaca(Task):
    """Instruction tuning; measured by the loss on held-out responses."""

    def info(self, spec: TaskSpec) -> TaskInfo:
        """Describe the task."""
        return TaskInfo(
            name=spec.name,
            kind="instruction",
            metrics=INSTRUCTION,
            licence="not stated" if spec.data else "CC BY-NC 4.0",
            source=spec.data or HUB,
            rows=None if spec.data else 52_002,
            train_on_inputs=bool(spec.train_on_inputs),
        )

    def is_local(self, spec: TaskSpec) -> bool:
        """Whether the study names a file."""
        return spec.data is not None

    def files(self, spec: TaskSpec) -> Mapping[str, Path]:
        """The file that the study names, if any."""
        return {} if spec.data is None else {"": Path(spec.data).expanduser()}

    def load(self, spec: TaskSpec, split_seed: int) -> TaskData:
        """Read, clean and split the exchanges."""
        path = Path(spec.data or "").expanduser()
        if spec.data is None:
            records = load_tables(HUB)["train"]
        elif path.is_file() and is_table(spec.data):
            records = read_records(path)
        else:
            raise ValueError(
                "task: `data` must be a .json, .jsonl, .csv or .parquet file that exists, got "
                f"{path}"
            )
        pool, removed = clean(map(exchange_of, records), words_of)
        splits = split_pool(pool, spec, split_seed)
        check_disjoint(splits)
        return TaskData(self.info(spec), (), splits, removed)


def alpaca_prompt(instruction: str, given: str = "") -> str:
    """What stands before the response."""
    template = _WITH_INPUT if given.strip() else _WITHOUT_INPUT
    return template.format(instruction=instruction, input=given)


def exchange_of(record: Mapping[str, Any]) -> Exchange:
    """One record.

    Raises:
        ValueError: it has no instruction or no output.
    """
    for key in ("instruction", "output"):
        if not isinstance(record.get(key), str):
            raise ValueError(f"task: a row needs a text under {key!r}; it has {sorted(record)}")
    prompt = alpaca_prompt(record["instruction"], str(record.get("input") or ""))
    return Exchange(prompt, record["output"])
