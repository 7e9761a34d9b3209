"""QASC: questions of grade-school science with four choices.

Khot et al., *QASC: a dataset for question answering via sentence composition*, AAAI 2020. The fact
that the archive prints with each question is left out: it says the answer. Questions that rest on
one fact stay in one split.
"""

import re
from collections.abc import Sequence
from pathlib import Path

from studies.tasks.bigbench import BIGBENCH, LICENCE, examples, shuffled, tidy
from studies.tasks.packaged import PackagedTask
from studies.tasks.rows import AnyRow, Item, words_of

FILE = "subtask042_qasc_incorrect_option_generation"
_INPUT = re.compile(r"Fact:\s*(.*?)\s*\n\s*Question:\s*(.*?)\s*\n\s*Correct Answer:\s*(.*)$", re.S)


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
        items: list[AnyRow] = []
        for example in examples(folders[0], FILE):
            match = _INPUT.match(example["input"])
            if match is None:
                continue
            fact, question, right = match.groups()
            targets = example["target"]
            wrong = [tidy(t) for t in ([targets] if isinstance(targets, str) else targets)]
            choices, gold = shuffled(tidy(right), wrong, question)
            context = f"Question: {question}\nAnswer:"
            items.append(Item.of(context, choices, gold, group=words_of(fact)))
        return items
