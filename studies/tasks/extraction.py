"""Find the choice that a generated answer names.

LLM-Adapters takes the first match of a fixed word list (true, solution1, answer3, ending2,
option1) in the text after the last `### Response:`; no match counts as wrong. Here the words are
the item's own choices, and what is not parsed is reported as a rate of its own.
"""

import re
from collections.abc import Sequence


def extract(answer: str, choices: Sequence[str]) -> int | None:
    """The place of the choice that occurs first in `answer` as whole words, or None.

    Where two begin at one place ("answer1", "answer12") the longer one is meant. Case is ignored.
    """
    matches: list[tuple[int, int, int]] = []
    text = answer.rpartition("### Response:")[2]
    for place, choice in enumerate(choices):
        pattern = rf"(?<!\w){re.escape(choice.strip())}(?!\w)"
        match = re.search(pattern, text, re.IGNORECASE) if choice.strip() else None
        if match is not None:
            matches.append((match.start(), -len(choice), place))
    return min(matches)[2] if matches else None
