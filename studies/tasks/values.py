"""What one cell of a user's table may hold: a text, a number, or nothing."""

import math
import re
from collections.abc import Sequence
from typing import Any

from studies.tasks.spec import TaskSpec

SHOWN = 5
"""Rows that a message names before it counts the others."""


INVISIBLE = "\u00ad\u200b\u200c\u200d\u200e\u200f\u2060\ufeff"
"""Characters of no width, which editors and web pages leave behind; the last is the BOM."""
_NO_PART = re.compile(rf"^[\s{INVISIBLE}]+|[\s{INVISIBLE}]+$")


def bare(text: str) -> str:
    """The text without the white space and the characters of no width around it."""
    return _NO_PART.sub("", text)


def is_nothing(value: Any) -> bool:
    """Whether the cell is null, NaN, or holds nothing that can be seen."""
    if isinstance(value, str):
        return not bare(value)
    return value is None or (isinstance(value, float) and math.isnan(value))


def text_of(spec: TaskSpec, number: int, column: str, value: Any) -> str:
    """The cell as text.

    Raises:
        ValueError: it holds several values or half a character; names row and column.
    """
    if isinstance(value, list | tuple | dict | set | bytes):
        what = {dict: "an object", bytes: "bytes"}.get(type(value), "a list")
        raise ValueError(
            f"task: {spec.name}, row {number}: column {column!r} holds {what}, where a text or a "
            f"number is needed: {str(value)[:60]}"
        )
    text = str(value)
    if not text.isascii() and any("\ud800" <= letter <= "\udfff" for letter in text):
        raise ValueError(
            f"task: {spec.name}, row {number}: column {column!r} holds half of a character (a "
            f"surrogate, as of an emoji cut in two), which is no text: {text[:60]!r}"
        )
    return text


def row_numbers(numbers: Sequence[int]) -> str:
    """Some numbers of rows, and how many more there are."""
    more = len(numbers) - SHOWN
    listed = ", ".join(map(str, numbers[:SHOWN])) + (f" and {more} more" if more > 0 else "")
    return f"row{'s' if len(numbers) > 1 else ''} {listed}"
