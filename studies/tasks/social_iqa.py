"""Social IQa: why people do things and how they feel about it, with three choices.

Sap et al., *SocialIQA: commonsense reasoning about social interactions*, EMNLP 2019. Trained on
what evals ships (valid is cut from it), tested on what BIG-bench ships; training questions about a
situation of the test set are left out.
"""

import json
import re
from collections.abc import Sequence
from pathlib import Path

from studies.tasks.bigbench import BIGBENCH, choices_of, examples
from studies.tasks.evals import EVALS
from studies.tasks.packaged import PackagedTask
from studies.tasks.rows import AnyRow, Item, words_of
from studies.tasks.spec import TaskSpec
from studies.tasks.splits import split_pool

TEST = "test"
_CHOICES = re.compile(r"(.*?)\s*A: (.*?); B: (.*?); C: (.*?)\.?$", re.S)
_SITUATION = re.compile(r"(.*[.!])\s+[^.!]*\?$", re.S)


class SocialIqa(PackagedTask):
    """A situation, a question about it and three answers."""

    name = "social_iqa"
    kind = "multiple_choice"
    archives = (BIGBENCH, EVALS)
    licence = "CC BY 4.0 (as evals states)"
    source = "test: social_iqa of BIG-bench; train and valid: theory_of_mind/socialiqa of evals"
    rows = 4_128
    scoring = "normalised"
    default_rows = (None, 200, None)

    def read(self, folders: Sequence[Path]) -> list[AnyRow]:
        """The test set first, so that it keeps what both have."""
        items: list[AnyRow] = []
        for example in examples(folders[0], "social_iqa"):
            choices, gold = choices_of(example)
            items.append(_item(example["input"], choices, gold, TEST))
        text = (folders[1] / "social_iqa.jsonl").read_text(encoding="utf-8")
        for line in text.splitlines():
            sample = json.loads(line)
            match = _CHOICES.match(sample["input"][0]["content"].strip())
            if match is not None:
                question, *choices = match.groups()
                items.append(_item(question, choices, "ABC".index(sample["ideal"]), "train"))
        return items

    def split(
        self, rows: list[AnyRow], spec: TaskSpec, split_seed: int
    ) -> dict[str, tuple[AnyRow, ...]]:
        """BIG-bench's questions are the test set, whole or shuffled and cut."""
        items = [row for row in rows if isinstance(row, Item)]
        test = [item._replace(part="") for item in items if item.part == TEST]
        seen = {item.group for item in test}
        pool = [item._replace(part="") for item in items if item.part != TEST]
        pool = [item for item in pool if item.group not in seen]
        whole = spec.model_copy(
            update={"train_rows": spec.test_rows, "valid_rows": 0, "test_rows": 0}
        )
        chosen = split_pool(test, whole, split_seed)["train"]
        rest = split_pool(pool, spec.model_copy(update={"test_rows": 0}), split_seed)
        return {"train": rest["train"], "valid": rest["valid"], "test": chosen}


def _item(question: str, choices: list[str], gold: int, part: str) -> Item:
    question = question.strip()
    match = _SITUATION.match(question)
    situation = words_of(match.group(1) if match else question)
    context = f"Question: {question}\nAnswer:"
    return Item.of(context, choices, gold, group=situation, part=part)
