"""The commonsense reasoning suite of LLM-Adapters: one training mixture, eight test sets.

Hu et al., *LLM-Adapters*, EMNLP 2023. Rows are objects with `instruction`, `input`, `output` ("the
correct answer is ending2") and `answer` ("ending2"), in LLM-Adapters' own files:

    <data>/commonsense_170k.json   (or commonsense_15k.json; also below ft-training_set/)
    <data>/boolq/test.json ...     (also below dataset/)

`task.data` names that folder, the training file beside the eight folders, or a hub data set that
holds these files; without it, `<cache>/commonsense` is looked into.

Choices are read out of the instruction ("Answer format: true/false"). They are answered by
likelihood of "the correct answer is <choice>", or in words, where the first choice that the answer
names counts and answers that name none are reported as `unparsed`. Accuracy is the unweighted mean
over the eight sets.
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from studies.archives import cache_folder
from studies.tasks.metrics import multiple_choice_names
from studies.tasks.rows import Item, words_of
from studies.tasks.spec import TaskSpec
from studies.tasks.splits import check_disjoint, clean_beside, sampled, split_pool
from studies.tasks.table_files import read_records
from studies.tasks.task import Task, TaskData, TaskInfo

PARTS = (
    "boolq",
    "piqa",
    "social_i_qa",
    "hellaswag",
    "winogrande",
    "ARC-Easy",
    "ARC-Challenge",
    "openbookqa",
)
VALID_ROWS = 120
"""What LLM-Adapters holds out of the mixture."""
REPOSITORY = "https://github.com/AGI-Edgerunners/LLM-Adapters"
_PAD = " " * 16
"""The indentation of the source code, which is part of the prompts."""
_FORMAT = re.compile(r"Answer format:\s*(\S+)\s*$")
_ROW = ("instruction", "output", "answer")
_NEEDED_FILES = ("*commonsense_*.json", "*test.json")


class Commonsense(Task):
    """One of the mixtures, tested on all eight sets."""

    def __init__(self, mixture: str, rows: int) -> None:
        self._mixture, self._rows = mixture, rows

    def info(self, spec: TaskSpec) -> TaskInfo:
        """Describe the task; files are looked for when the rows are loaded."""
        return TaskInfo(
            name=spec.name,
            kind="multiple_choice",
            metrics=multiple_choice_names(spec.evaluate, [_plain(part) for part in PARTS]),
            licence="each of the eight sets has its own terms",
            source=f"LLM-Adapters, {self._mixture}.json and the eight test.json",
            rows=self._rows,
            scoring=spec.scoring or "sum",
            train_on_inputs=True if spec.train_on_inputs is None else spec.train_on_inputs,
            answers_end=True,
        )

    def files(self, spec: TaskSpec) -> Mapping[str, Path]:
        """The mixture and the eight test sets, as far as they are on this machine."""
        folder = _local_folder(spec)
        names = [(f"{self._mixture}.json",), *((part, "test.json") for part in PARTS)]
        files = {"/".join(name): _place(folder, *name) for name in names} if folder else {}
        return {name: file for name, file in files.items() if file is not None}

    def load(self, spec: TaskSpec, split_seed: int) -> TaskData:
        """Read mixture and test sets; training rows that are also test rows are left out.

        `test_rows` counts rows of each set. The test sets are taken as they are.
        """
        folder = _folder(spec)
        sets = (list(_items(_find(folder, part, "test.json"), part)) for part in PARTS)
        test = tuple(i for own in sets for i in sampled(own, spec.test_rows, "commonsense"))
        mixture = _items(_find(folder, f"{self._mixture}.json"), "")
        pool, removed = clean_beside(test, mixture, words_of)
        valid = min(VALID_ROWS, len(pool) // 10) if spec.valid_rows is None else spec.valid_rows
        asked = spec.model_copy(update={"test_rows": 0, "valid_rows": valid})
        splits = {**split_pool(pool, asked, split_seed), "test": test}
        check_disjoint(splits)
        return TaskData(self.info(spec), (), splits, removed)


def training_prompt(instruction: str) -> str:
    """The prompt of LLM-Adapters' finetune.py, whose linter's remark is part of the text."""
    return (
        "Below is an instruction that describes a task. Write a response that appropriately "
        f"completes the request.  # noqa: E501\n\n{_PAD}### Instruction:\n{_PAD}{instruction}\n"
        f"{_PAD}\n{_PAD}### Response:\n{_PAD}"
    )


def evaluation_prompt(instruction: str) -> str:
    """The prompt of its commonsense_evaluate.py, which is not quite the one that is trained on."""
    return (
        "Below is an instruction that describes a task. Write a response that appropriately "
        f"completes the request. \n\n{_PAD}### Instruction:\n{_PAD}{instruction}\n\n"
        f"{_PAD}### Response:\n{_PAD}"
    )


def choices_of(instruction: str) -> tuple[str, ...]:
    """The words that the instruction allows as an answer.

    Raises:
        ValueError: it ends without an answer format.
    """
    match = _FORMAT.search(instruction)
    if match is None:
        raise ValueError(
            f"task: this row does not end with 'Answer format: a/b': {instruction[-80:]!r}"
        )
    return tuple(match.group(1).split("/"))


def _items(file: Path, part: str) -> Iterator[Item]:
    for number, record in enumerate(read_records(file), start=1):
        try:
            yield _item(record, part)
        except ValueError as error:
            raise ValueError(f"{file}, row {number}: {error}") from error


def _item(record: Mapping[str, Any], part: str) -> Item:
    lacking = [key for key in _ROW if not isinstance(record.get(key), str)]
    if lacking:
        raise ValueError(f"task: no text under {lacking[0]!r}; rows need {', '.join(_ROW)}")
    instruction, answer = record["instruction"], record["answer"]
    words = choices_of(instruction)
    if answer not in words:  # e.g. a fifth answer where the format names four
        words = (*words, answer)
    context = evaluation_prompt(instruction)
    return Item(
        options=tuple((context, f"the correct answer is {word}") for word in words),
        gold=words.index(answer),
        train=(training_prompt(instruction), record["output"]),
        part=_plain(part),
        words=words,
    )


def _plain(part: str) -> str:
    """A part's name as metrics spell it."""
    return part.lower().replace("-", "_")


def _local_folder(spec: TaskSpec) -> Path | None:
    """The folder of the user's that holds the files; None where the study names none."""
    if spec.data is None:
        return cache_folder() / "commonsense"
    path = Path(spec.data).expanduser()
    if path.is_dir():
        return path
    return path.parent if path.is_file() else None


def _folder(spec: TaskSpec) -> Path:
    folder = _local_folder(spec)
    if folder is not None:
        return folder
    assert spec.data is not None, "the cache otherwise"
    if spec.data.startswith((".", "/", "~")) or spec.data.count("/") != 1:
        raise ValueError(f"task: `data` names no file, folder or hub data set: {spec.data}")
    from huggingface_hub import snapshot_download

    return Path(
        snapshot_download(spec.data, repo_type="dataset", allow_patterns=list(_NEEDED_FILES))
    )


def _place(folder: Path, *name: str) -> Path | None:
    """The file `name` below `folder` or below the folders of an LLM-Adapters checkout."""
    places = [folder.joinpath(inner, *name) for inner in ("", "dataset", "ft-training_set")]
    return next((place for place in places if place.is_file()), None)


def _find(folder: Path, *name: str) -> Path:
    file = _place(folder, *name)
    if file is None:
        raise ValueError(
            f"task: {'/'.join(name)} is neither in {folder} nor in its dataset or ft-training_set. "
            f"Get {REPOSITORY} and set `task.data` to it"
        )
    return file
