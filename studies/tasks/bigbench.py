"""The BIG-bench archive: one sdist of 358 MB from which seven small files are taken.

Its files carry a canary: they should never appear in training corpora. Training on them here
compares adapters with each other; it is never the ground of a leaderboard claim.
"""

import json
import random
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from studies.archives import Archive, Member

ROOT = "bigbench-1.0.0/bigbench/benchmark_tasks"
LICENCE = "Apache-2.0 (BIG-bench code); the set keeps its own terms, which the archive omits"
_NATURAL = "natural_instructions"
_FILES = (
    (
        f"{_NATURAL}/subtask029_winogrande_full_object",
        3_974_978,
        "0b50034573d26f63b0b270ac6229ea3535fe4981cb98a8af4c3e184f1635fda2",
    ),
    (
        f"{_NATURAL}/subtask025_cosmosqa_incorrect_answer_generation",
        4_391_835,
        "c612d88db314086905c709629b04444994d6b3cd8dc688fffb3f3158ab854699",
    ),
    (
        f"{_NATURAL}/subtask042_qasc_incorrect_option_generation",
        2_121_732,
        "eb7910c482ac068e1b5be3e4c1fdbcb28f68bc05807fdb0f12fc1808c474087a",
    ),
    (
        "social_iqa",
        639_200,
        "edc9f568b70ae6d4af0783764dbe4e4f18aa1242c675a93f534338d73a565348",
    ),
    (
        "strategyqa",
        854_248,
        "60af9081fed20102fd8bb1e02dc7d9f12238efcba33e4c1a56b4d61cb6409803",
    ),
    (
        "vitaminc_fact_verification",
        23_315_055,
        "10f83da50374701fc7ce69162a7a167b14e1a86351201aa8bf14b56fa0a3214f",
    ),
    (
        "cifar10_classification/base64",
        33_862_907,
        "226298409875f5b93ccda063863181f88723d39bac7eeef28a79843ae0aace31",
    ),
)

BIGBENCH = Archive(
    package="bigbench",
    version="1.0.0",
    filename="bigbench-1.0.0.tar.gz",
    size=358_249_635,
    sha256="1bb398a5512c6d798cdebe0dfa0ac03f67f6033fa6b39c6ef71df978c7cbc5c2",
    members=tuple(
        Member((f"{ROOT}/{name}/task.json",), f"{name.split('/')[-1]}.json", size, sha256)
        for name, size, sha256 in _FILES
    ),
)


def examples(folder: Path, name: str) -> list[dict[str, Any]]:
    """The examples of one task; `name` is the last part of its folder."""
    whole = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
    rows: list[dict[str, Any]] = whole["examples"]
    return rows


def choices_of(example: dict[str, Any]) -> tuple[list[str], int]:
    """Choices of an example with `target_scores`, and the place of the best."""
    scores = example["target_scores"]
    choices = list(scores)
    return choices, choices.index(max(choices, key=scores.__getitem__))


def tidy(text: str) -> str:
    """`text` without space around it and the full stop that the archive puts after every answer."""
    return text.strip().rstrip(".").strip()


def questions(folder: Path, name: str, given: str) -> Iterator[tuple[str, str, list[str], int]]:
    """What is `given` (Fact, Context), question, choices and the right one's place, of a task.

    The order of the choices depends on the question alone.
    """
    form = re.compile(
        rf"{given}:\s*(.*?)\s*\n\s*Question:\s*(.*?)\s*\n\s*Correct Answer:\s*(.*)$", re.S
    )
    for example in examples(folder, name):
        match = form.match(example["input"])
        if match is None:
            continue
        said, question, right = match[1], match[2], tidy(match[3])
        targets = example["target"]
        wrong = map(tidy, [targets] if isinstance(targets, str) else targets)
        choices = list(dict.fromkeys([right, *wrong]))
        random.Random(question).shuffle(choices)
        yield said, question, choices, choices.index(right)
