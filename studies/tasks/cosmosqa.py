"""CosmosQA: what lies between the lines of a story, with two or three wrong answers.

Huang et al., *Cosmos QA: machine reading comprehension with contextual commonsense reasoning*,
EMNLP 2019. Questions about one story stay in one split.
"""

from collections.abc import Sequence
from pathlib import Path

from studies.tasks.bigbench import BIGBENCH, LICENCE, questions
from studies.tasks.packaged import PackagedTask
from studies.tasks.rows import AnyRow, Item, words_of

FILE = "subtask025_cosmosqa_incorrect_answer_generation"


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
        return [
            Item.of(f"{story}\nQuestion: {question}\nAnswer:", choices, gold, group=words_of(story))
            for story, question, choices, gold in questions(folders[0], FILE, "Context")
        ]
