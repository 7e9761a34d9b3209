"""Labelled data that studies train and test on, by name.

A name is one of `list_tasks()`, the path of a .csv, .tsv, .jsonl or .parquet file, a local folder,
or a Hugging Face hub id `owner/name[:subset]`. Every task says what is measured, which way is
better, where its rows come from and under which terms.
"""

from studies.tasks.alpaca import Alpaca
from studies.tasks.bigbench import Cifar10, CosmosQA, Qasc, StrategyQA, VitaminC, WinoGrande
from studies.tasks.commonsense import Commonsense
from studies.tasks.data_remarks import findings, sizes
from studies.tasks.evals import Sarcasm
from studies.tasks.glue import GLUE
from studies.tasks.matrices import DRAWN, MatrixOfFiles
from studies.tasks.movie_sentences import MovieSentences
from studies.tasks.registry import (
    check,
    content,
    fetch,
    get_task,
    head,
    is_local,
    list_tasks,
    load,
    parse,
    prepare,
    register_task,
    truncated,
)
from studies.tasks.rows import Exchange, Item, Picture, Row
from studies.tasks.social_iqa import SocialIqa
from studies.tasks.spec import TaskSpec
from studies.tasks.splits import describe, rows_hash
from studies.tasks.task import HEADS, Task, TaskData, TaskInfo
from studies.tasks.vision import VISION

register_task("movie_sentences", MovieSentences())
for _task in (Cifar10, CosmosQA, Qasc, Sarcasm, SocialIqa, StrategyQA, VitaminC, WinoGrande):
    register_task(_task.name, _task())
for _name, _subset in {**DRAWN, **GLUE, **VISION}.items():
    register_task(_name, _subset)
register_task("alpaca", Alpaca())
register_task("matrix_of_files", MatrixOfFiles())
register_task("commonsense_15k", Commonsense("commonsense_15k", 15_119))
register_task("commonsense_170k", Commonsense("commonsense_170k", 170_420))

__all__ = [
    "HEADS",
    "Exchange",
    "Item",
    "Picture",
    "Row",
    "Task",
    "TaskData",
    "TaskInfo",
    "TaskSpec",
    "check",
    "content",
    "describe",
    "fetch",
    "findings",
    "get_task",
    "head",
    "is_local",
    "list_tasks",
    "load",
    "parse",
    "prepare",
    "register_task",
    "rows_hash",
    "sizes",
    "truncated",
]
