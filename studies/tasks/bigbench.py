"""The BIG-bench archive, one sdist of 358 MB from which seven small files are taken, and its tasks.

Its files carry a canary: they should never appear in training corpora. Training on them here
compares adapters with each other; it is never the ground of a leaderboard claim.
"""

import base64
import json
import random
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from studies.archives import Archive, Member
from studies.tasks.packaged import PackagedTask
from studies.tasks.rows import AnyRow, Item, Picture, Row, words_of

ROOT = "bigbench-1.0.0/bigbench/benchmark_tasks"
LICENCE = "Apache-2.0 (BIG-bench code); the set keeps its own terms, which the archive omits"
_NATURAL = "natural_instructions"
_COSMOSQA = "subtask025_cosmosqa_incorrect_answer_generation"
_QASC = "subtask042_qasc_incorrect_option_generation"
_WINOGRANDE = "subtask029_winogrande_full_object"
_FILES = (
    (
        f"{_NATURAL}/{_WINOGRANDE}",
        3_974_978,
        "0b50034573d26f63b0b270ac6229ea3535fe4981cb98a8af4c3e184f1635fda2",
    ),
    (
        f"{_NATURAL}/{_COSMOSQA}",
        4_391_835,
        "c612d88db314086905c709629b04444994d6b3cd8dc688fffb3f3158ab854699",
    ),
    (
        f"{_NATURAL}/{_QASC}",
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


def _tidy(text: str) -> str:
    """`text` without space around it and the full stop that the archive puts after every answer."""
    return text.strip().rstrip(".").strip()


def _questions(folder: Path, name: str, given: str) -> Iterator[tuple[str, str, list[str], int]]:
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
        said, question, right = match[1], match[2], _tidy(match[3])
        targets = example["target"]
        wrong = map(_tidy, [targets] if isinstance(targets, str) else targets)
        choices = list(dict.fromkeys([right, *wrong]))
        random.Random(question).shuffle(choices)
        yield said, question, choices, choices.index(right)


class _BigBenchTask(PackagedTask):
    archives = (BIGBENCH,)
    licence = LICENCE


class CosmosQA(_BigBenchTask):
    """A story, a question about what lies between its lines, and two or three wrong answers.

    Huang et al., *Cosmos QA: machine reading comprehension with contextual commonsense reasoning*,
    EMNLP 2019. Questions about one story stay in one split.
    """

    name = "cosmosqa"
    kind = "multiple_choice"
    source = f"natural_instructions/{_COSMOSQA}, choices shuffled"
    rows = 6_500
    default_rows = (2_000, 500, 1_500)

    def read(self, folders: Sequence[Path]) -> list[AnyRow]:
        """Every question with its story."""
        return [
            Item.of(f"{story}\nQuestion: {question}\nAnswer:", choices, gold, group=words_of(story))
            for story, question, choices, gold in _questions(folders[0], _COSMOSQA, "Context")
        ]


class Qasc(_BigBenchTask):
    """A question of grade-school science, one right and three wrong answers.

    Khot et al., *QASC: a dataset for question answering via sentence composition*, AAAI 2020. The
    fact that the archive prints with each question is left out: it says the answer. Questions that
    rest on one fact stay in one split.
    """

    name = "qasc"
    kind = "multiple_choice"
    source = f"natural_instructions/{_QASC}, question without its fact, choices shuffled"
    rows = 6_500
    default_rows = (2_000, 500, 1_500)
    scoring = "normalised"

    def read(self, folders: Sequence[Path]) -> list[AnyRow]:
        """Every question."""
        return [
            Item.of(f"Question: {question}\nAnswer:", choices, gold, group=words_of(fact))
            for fact, question, choices, gold in _questions(folders[0], _QASC, "Fact")
        ]


class StrategyQA(_BigBenchTask):
    """Yes or no, where the steps of the reasoning are not in the question.

    Geva et al., *Did Aristotle use a laptop? A question answering benchmark with implicit reasoning
    strategies*, TACL 2021. Hard for small models: SmolLM2-135M is near chance.
    """

    name = "strategyqa"
    kind = "multiple_choice"
    source = "strategyqa"
    rows = 2_289

    def read(self, folders: Sequence[Path]) -> list[AnyRow]:
        """Every question."""
        return [
            Item.of(f"Question: {example['input'].strip()}\nAnswer:", *choices_of(example))
            for example in examples(folders[0], "strategyqa")
        ]


class VitaminC(_BigBenchTask):
    """Does a passage support a claim, refute it, or neither? A pair of texts, three classes.

    Schuster et al., *Get your vitamin C! Robust fact verification with contrastive evidence*, NAACL
    2021. Its passages are revisions of each other, so all of one article stay in one split.
    """

    name = "vitaminc"
    kind = "text_classification"
    source = "vitaminc_fact_verification, split by article"
    labels = ("True", "False", "Neither")
    rows = 54_631
    default_rows = (4_000, 1_000, 4_000)

    def read(self, folders: Sequence[Path]) -> list[AnyRow]:
        """Every claim with its passage."""
        rows: list[AnyRow] = []
        for example in examples(folders[0], "vitaminc_fact_verification"):
            passage, marker, claim = example["input"].rpartition("\nClaim: ")
            if marker:
                choices, gold = choices_of(example)
                article = words_of(passage.partition(":")[0])
                rows.append(Row(passage.strip(), choices[gold], claim.strip(), article))
        return rows


class WinoGrande(_BigBenchTask):
    """Pairs of sentences with a blank, and two words for it.

    Sakaguchi et al., *WinoGrande: an adversarial Winograd schema challenge at scale*, AAAI 2020.
    Each item has a twin that differs in a few words and has the other answer; twins stay in one
    split. A choice is scored as usual for this set: put into the blank, it is the context, and the
    words after the blank are scored, the same for both (so sum and length-normalised agree).
    """

    name = "winogrande"
    kind = "multiple_choice"
    source = f"natural_instructions/{_WINOGRANDE}, sentences read out of the generation targets"
    rows = 8_998
    default_rows = (2_000, 500, 1_500)

    def read(self, folders: Sequence[Path]) -> list[AnyRow]:
        """Both sentences of every pair."""
        items: list[AnyRow] = []
        for number, example in enumerate(examples(folders[0], _WINOGRANDE)):
            match = _TWINS.match(example["target"][0].strip())
            if match is None:
                continue  # a handful of targets are no two sentences with answers
            first, right, second, wrong = map(_tidy, match.groups())
            words = sorted((right.lower(), wrong.lower()))
            if words[0] == words[1] or "_" not in first or "_" not in second:
                continue
            for sentence, answer in ((first, right.lower()), (second, wrong.lower())):
                before, after = sentence.split("_", 1)
                before, after = before.strip(), f" {after.strip()}."
                options = tuple((f"{before} {word}", after) for word in words)
                lesson = before, f" {answer}{after}"
                items.append(Item(options, words.index(answer), str(number), lesson))
        return items


_TWINS = re.compile(
    r"Sentence 1:\s*(.*?)\s*\n?Answer ?1:\s*(.*?)\s*\n?Sentence 2:\s*(.*?)\s*\n?Answer ?2:\s*(.*)$",
    re.S,
)


class Cifar10(_BigBenchTask):
    """The test images of CIFAR-10: 10,000 photographs of 32 x 32 pixels, ten classes of 1,000.

    Krizhevsky, *Learning multiple layers of features from tiny images*, 2009. The archive has the
    test set alone, so train and valid are cut from it too: figures are not comparable with
    published ones.
    """

    name = "cifar10"
    kind = "image_classification"
    source = "cifar10_classification/base64: the test set of CIFAR-10, split anew"
    labels = tuple("airplane automobile bird cat deer dog frog horse ship truck".split())
    rows = 10_000
    default_rows = (2_000, 500, 2_000)

    def read(self, folders: Sequence[Path]) -> list[AnyRow]:
        """Every image; the archive has them sorted by class."""
        rows: list[AnyRow] = []
        for example in examples(folders[0], "base64"):
            choices, gold = choices_of(example)
            rows.append(Picture(base64.b64decode(example["input"]), choices[gold]))
        return rows
