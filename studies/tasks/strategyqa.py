"""StrategyQA: yes or no, where the steps of the reasoning are not in the question.

Geva et al., *Did Aristotle use a laptop? A question answering benchmark with implicit reasoning
strategies*, TACL 2021. Hard for small models: SmolLM2-135M is near chance.
"""

from collections.abc import Sequence
from pathlib import Path

from studies.tasks.bigbench import BIGBENCH, LICENCE, choices_of, examples
from studies.tasks.packaged import PackagedTask
from studies.tasks.rows import AnyRow, Item


class StrategyQA(PackagedTask):
    """A question and the answers Yes and No."""

    name = "strategyqa"
    kind = "multiple_choice"
    archives = (BIGBENCH,)
    licence = LICENCE
    source = "strategyqa"
    rows = 2_289

    def read(self, folders: Sequence[Path]) -> list[AnyRow]:
        """Every question."""
        items: list[AnyRow] = []
        for example in examples(folders[0], "strategyqa"):
            choices, gold = choices_of(example)
            items.append(Item.of(f"Question: {example['input'].strip()}\nAnswer:", choices, gold))
        return items
