"""What a task's description and its tokens tell of the data, in words for a reader."""

from collections.abc import Mapping
from typing import Any

from studies.tasks.rows import AnyRow, Exchange, Item, Row
from studies.tasks.spec import TaskSpec
from studies.tasks.task import TaskData

_REASONS = {
    "missing": "without a value",
    "empty": "without text",
    "conflicting": "whose text also has another label",
    "duplicate": "that repeat another",
    "other_response": "with another response to a prompt that is there",
    "in_test": "that are also in test",
    "in_valid": "that are also in valid",
}
"""Why rows are left out, by the words of a description."""
_SPECIAL = 8
"""Tokens beside those of the texts, at most; a text has no more tokens than bytes."""


def sizes(described: Mapping[str, Any]) -> str:
    """How many rows there are, from a description."""
    counts = ", ".join(f"{split} {n}" for split, n in described["rows"].items())
    return f"{described['task']}: rows of {counts}"


def findings(described: Mapping[str, Any]) -> list[str]:
    """What was left out, is rare or was cut, from a description; empty where nothing was."""
    lines = []
    removed = described.get("removed", {})
    parts = [f"{n} {_REASONS.get(why, why)}" for why, n in removed.items() if n]
    if parts:
        lines.append(f"rows were left out: {', '.join(parts)}")
    lines += described.get("notes", [])
    for split, classes in described.get("scarce", {}).items():
        none = [each.removesuffix(": 0") for each in classes if each.endswith(": 0")]
        few = [each for each in classes if not each.endswith(": 0")]
        if none and split == "train":
            lines.append(f"train has no row of a class, so no arm can learn it ({', '.join(none)})")
            classes = few
        if classes:
            lines.append(f"{split} has few rows of a class ({', '.join(classes)})")
    cut = [f"{share:.1%} of {split}" for split, share in described.get("truncated", {}).items()]
    if cut:
        lines.append(f"texts are cut to `task.max_length`: {', '.join(cut)}")
    return [f"{described.get('task', 'data')}: {line}" for line in lines]


def truncated(spec: TaskSpec, data: TaskData, tokenizer: Any) -> dict[str, float]:
    """The share of each split's rows that are longer than `task.max_length`; {} where none is.

    Images have no length. Of a question to be answered, the longest choice counts.
    """
    if data.info.kind == "image_classification":
        return {}
    shares = {}
    for split, rows in data.splits.items():
        if long := _too_long(spec, data, split, tokenizer):
            shares[split] = round(long / len(rows), 5)
    return shares


def _too_long(spec: TaskSpec, data: TaskData, split: str, tokenizer: Any) -> int:
    """How many rows of `split` do not fit."""
    most = spec.max_length
    ends = data.info.kind == "instruction" or (split == "train" and data.info.answers_end)
    if data.info.kind == "multiple_choice":
        most += split != "train"  # the last token of a scored choice is no input
    long = [
        (place, each)
        for place, row in enumerate(data.splits[split])
        for each in _texts(row, split)
        if sum(len(text.encode()) for text in each) + _SPECIAL > most
    ]
    if not long:
        return 0
    columns = [list(column) for column in zip(*(each for _, each in long), strict=True)]
    tokens = tokenizer(*columns, return_attention_mask=False, verbose=False)["input_ids"]
    counted = zip(long, tokens, strict=True)
    return len({place for (place, _), ids in counted if len(ids) + ends > most})


def _texts(row: AnyRow, split: str) -> list[tuple[str, ...]]:
    """What of a row is made tokens: each text, or pair of texts, by itself."""
    if isinstance(row, Row):
        return [(row.text,) if row.pair is None else (row.text, row.pair)]
    if isinstance(row, Exchange):
        return [(row.prompt + row.response,)]
    if isinstance(row, Item):
        options = [row.lesson] if split == "train" else row.options
        return [(context + choice,) for context, choice in options]
    return []
