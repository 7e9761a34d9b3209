"""QASC: questions of grade-school science with four choices.

Khot et al., *QASC: a dataset for question answering via sentence composition*, AAAI 2020. The fact
that the archive prints with each question is left out: it says the answer. Questions that rest on
one fact stay in one split.
"""

from collections.abc import Sequence
from pathlib import Path

from studies.tasks.bigbench import BIGBENCH, LICENCE, questions
from studies.tasks.packaged import PackagedTask
from studies.tasks.rows import AnyRow, Item, words_of

FILE = "subtask042_qasc_incorrect_option_generation"


class Qasc(PackagedTask):
    """A question, one right and three wrong answers."""

    name = "qasc"
    kind = "multiple_choice"
    archives = (BIGBENCH,)
    licence = LICENCE
    source = f"natural_instructions/{FILE}, question without its fact, choices shuffled"
    rows = 6_500
    scoring = "normalised"
    default_rows = (2_000, 500, 1_500)

    def read(self, folders: Sequence[Path]) -> list[AnyRow]:
        """Every question."""
        return [
            Item.of(f"Question: {question}\nAnswer:", choices, gold, group=words_of(fact))
            for fact, question, choices, gold in questions(folders[0], FILE, "Fact")
        ]
