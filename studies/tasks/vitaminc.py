"""VitaminC: does a passage support a claim, refute it, or neither?

Schuster et al., *Get your vitamin C! Robust fact verification with contrastive evidence*, NAACL
2021. Its passages are revisions of each other, so all passages of one article stay in one split.
"""

from collections.abc import Sequence
from pathlib import Path

from studies.tasks.bigbench import BIGBENCH, LICENCE, choices_of, examples
from studies.tasks.packaged import PackagedTask
from studies.tasks.rows import AnyRow, Row, words_of


class VitaminC(PackagedTask):
    """Passage and claim as a pair of texts; three classes."""

    name = "vitaminc"
    kind = "text_classification"
    archives = (BIGBENCH,)
    licence = LICENCE
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
