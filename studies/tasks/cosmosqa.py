"""CosmosQA: what lies between the lines of a story, with two or three wrong answers.

Huang et al., *Cosmos QA: machine reading comprehension with contextual commonsense reasoning*,
EMNLP 2019. Questions about one story stay in one split.
"""

import re
from collections.abc import Sequence
from pathlib import Path

from studies.tasks.bigbench import BIGBENCH, LICENCE, examples, shuffled, tidy
from studies.tasks.packaged import PackagedTask
from studies.tasks.rows import AnyRow, Item, words_of

FILE = "subtask025_cosmosqa_incorrect_answer_generation"
_INPUT = re.compile(
    r"Context:\s*(.*?)\s*\n\s*Question:\s*(.*?)\s*\n\s*Correct Answer:\s*(.*)$", re.S
)


class CosmosQA(PackagedTask):
    """A story, a question about it, one right and two or three wrong answers."""

    name = "cosmosqa"
    kind = "multiple_choice"
    archives = (BIGBENCH,)
    licence = LICENCE
    source = f"natural_instructions/{FILE}, choices shuffled"
    rows = 6_500
    default_rows = (2_000, 500, 1_500)

    def read(self, folders: Sequence[Path]) -> list[AnyRow]:
        """Every question with its story."""
        items: list[AnyRow] = []
        for example in examples(folders[0], FILE):
            match = _INPUT.match(example["input"])
            if match is None:
                continue
            story, question, right = match.groups()
            targets = example["target"]
            wrong = [tidy(t) for t in ([targets] if isinstance(targets, str) else targets)]
            choices, gold = shuffled(tidy(right), wrong, question)
            context = f"{story}\nQuestion: {question}\nAnswer:"
            items.append(Item.of(context, choices, gold, group=words_of(story)))
        return items
