"""WinoGrande: which of two things a blank stands for.

Sakaguchi et al., *WinoGrande: an adversarial Winograd schema challenge at scale*, AAAI 2020. Each
item has a twin that differs in a few words and has the other answer; twins stay in one split.
A choice is scored as usual for this set: put into the blank, it is the context, and the words after
the blank are scored, which are the same for both (so sum and length-normalised agree).
"""

import re
from collections.abc import Sequence
from pathlib import Path

from studies.tasks.bigbench import BIGBENCH, LICENCE, examples, tidy
from studies.tasks.packaged import PackagedTask
from studies.tasks.rows import AnyRow, Item

FILE = "subtask029_winogrande_full_object"
_TWINS = re.compile(
    r"Sentence 1:\s*(.*?)\s*\n?Answer ?1:\s*(.*?)\s*\n?Sentence 2:\s*(.*?)\s*\n?Answer ?2:\s*(.*)$",
    re.S,
)


class WinoGrande(PackagedTask):
    """Pairs of sentences with a blank and two words for it."""

    name = "winogrande"
    kind = "multiple_choice"
    archives = (BIGBENCH,)
    licence = LICENCE
    source = f"natural_instructions/{FILE}, sentences read out of the generation targets"
    rows = 8_998
    default_rows = (2_000, 500, 1_500)

    def read(self, folders: Sequence[Path]) -> list[AnyRow]:
        """Both sentences of every pair."""
        items: list[AnyRow] = []
        for number, example in enumerate(examples(folders[0], FILE)):
            match = _TWINS.match(example["target"][0].strip())
            if match is None:
                continue  # a handful of targets are no two sentences with answers
            first, right, second, wrong = map(tidy, match.groups())
            words = sorted((right.lower(), wrong.lower()))
            if words[0] == words[1] or "_" not in first or "_" not in second:
                continue
            for sentence, answer in ((first, right), (second, wrong)):
                items.append(_item(sentence, words, answer.lower(), str(number)))
        return items


def _item(sentence: str, words: list[str], answer: str, pair: str) -> Item:
    before, after = sentence.split("_", 1)
    before, after = before.strip(), f" {after.strip()}."
    return Item(
        options=tuple((f"{before} {word}", after) for word in words),
        gold=words.index(answer),
        group=pair,
        train=(before, f" {answer}{after}"),
    )
