"""Headlines of The Onion (sarcastic) and HuffPost (not).

Misra & Arora, *Sarcasm detection using news headlines dataset*, AI Open 2023. The classes are
nearly even (52.4% are not sarcastic).
"""

import json
from collections.abc import Sequence
from pathlib import Path

from studies.tasks.evals import EVALS
from studies.tasks.packaged import PackagedTask
from studies.tasks.rows import AnyRow, Row


class Sarcasm(PackagedTask):
    """One headline, two classes."""

    name = "sarcasm"
    kind = "text_classification"
    archives = (EVALS,)
    licence = "not stated for this set (evals is MIT); the original set has its own terms"
    source = "sarcasm/samples.jsonl"
    labels = ("serious", "sarcastic")
    rows = 28_496
    default_rows = (2_000, 1_000, 4_000)

    def read(self, folders: Sequence[Path]) -> list[AnyRow]:
        """Every headline; duplicates are removed later."""
        text = (folders[0] / "sarcasm.jsonl").read_text(encoding="utf-8")
        samples = (json.loads(line) for line in text.split("\n") if line)
        return [Row(s["input"][1]["content"], self.labels[int(s["ideal"])]) for s in samples]
