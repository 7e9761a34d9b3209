"""The rows of tasks: plain values, and when two of them count as the same.

Rows of one `group` stay in one split; those without one (None) stand alone. What else rows of all
kinds are asked for is a function: `identity`, `label_of`, `answer_of` and `shown`.
"""

import hashlib
import re
import unicodedata
from collections.abc import Callable
from typing import Any, NamedTuple

Form = Callable[[str], str]
"""What of a text is compared."""


def plain(text: str) -> str:
    """The form in which two texts count as the same: case and white space made alike, in NFC.

    Symbols stay: "C++" and "C#", ":)" and ":(", "3 < 5" and "3 > 5" differ, and so do "x²" and
    "x2", which NFKC would make one.
    """
    folded = unicodedata.normalize("NFC", text).casefold()
    return " ".join(unicodedata.normalize("NFC", folded).split())


def words_of(text: str) -> str:
    """A looser form: letters and digits alone, without case, width, space and punctuation.

    Groups are named by it, and shipped tasks are cleaned by it: their rows stay what they were.
    Alike in `plain` is alike here: `check_disjoint` refuses the one after cleaning by the other.
    """
    text = plain(text)
    words = re.sub(r"[\W_]+", " ", unicodedata.normalize("NFKC", text).casefold()).strip()
    return words or text


class Row(NamedTuple):
    """One example of a text classification or regression task."""

    text: str
    label: str
    pair: str | None = None
    """Second text, where the label is about two."""
    group: str | None = None


class Item(NamedTuple):
    """One multiple-choice question, as a language model is asked it."""

    options: tuple[tuple[str, str], ...]
    """(context, continuation) of each choice: the model scores the continuation."""
    gold: int
    """Place of the right choice."""
    group: str | None = None
    train: tuple[str, str] | None = None
    """(prompt, answer) to train on, where they are not those of the right choice."""
    part: str = ""
    """The test set it belongs to, for tasks made of several; accuracy is reported for each."""
    words: tuple[str, ...] = ()
    """What a generated answer is searched for, one a choice; () means the choices themselves."""

    @classmethod
    def of(cls, context: str, choices: list[str], gold: int, **rest: Any) -> "Item":
        """An item whose choices follow one context after a space."""
        return cls(tuple((context, f" {choice}") for choice in choices), gold, **rest)

    @property
    def text(self) -> str:
        """Context and choices, as one text."""
        contexts = dict.fromkeys(context for context, _ in self.options)
        return "\n".join([*contexts, *sorted({choice for _, choice in self.options})])

    @property
    def names(self) -> tuple[str, ...]:
        """What a generated answer is searched for, one a choice."""
        return self.words or tuple(text.strip() for _, text in self.options)

    @property
    def question(self) -> str:
        """The prompt of a generated answer: the context of all choices, or what is trained on."""
        contexts = {context for context, _ in self.options}
        return contexts.pop() if len(contexts) == 1 else self.lesson[0]

    @property
    def lesson(self) -> tuple[str, str]:
        """(prompt, answer) to train on."""
        return self.train or self.options[self.gold]


class Exchange(NamedTuple):
    """One instruction with the response to learn."""

    prompt: str
    response: str
    group: str | None = None


class Picture(NamedTuple):
    """One image of an image classification task."""

    image: bytes
    """An encoded file, e.g. PNG."""
    label: str
    group: str | None = None


class Matrix(NamedTuple):
    """A matrix to approximate."""

    values: bytes
    """float32, row by row."""
    shape: tuple[int, int]
    """(out, in)"""
    label: str = ""
    group: str | None = None


AnyRow = Row | Item | Exchange | Picture | Matrix


def identity(row: AnyRow, form: Form = plain) -> str:
    """Equal for rows that count as one: texts in that form, choices in any order, hashed bytes."""
    if isinstance(row, Picture | Matrix):
        return hashlib.sha256(row[0]).hexdigest()
    if isinstance(row, Item):
        return "\n".join(sorted({form(part) for option in row.options for part in option}))
    texts = (row.prompt, None) if isinstance(row, Exchange) else (row.text, row.pair)
    return "\n".join(form(text) for text in texts if text is not None)


def label_of(row: AnyRow, form: Form = plain) -> str:
    """What contradicts where two rows of one identity differ in it: the class, or in that form the
    words of the right choice; nothing of an exchange, which may have several responses."""
    if isinstance(row, Item):
        return "\n".join(map(form, row.options[row.gold]))
    return "" if isinstance(row, Exchange) else row.label


def answer_of(row: AnyRow) -> str:
    """The class, the right choice's place or the response: what may always be answered."""
    if isinstance(row, Exchange):
        return row.response
    return str(row.gold) if isinstance(row, Item) else row.label


def shown(row: AnyRow) -> str:
    """Something to show in a message: the text, if it has one, with the choices."""
    if isinstance(row, Row | Item):
        return row.text
    if isinstance(row, Exchange):
        return row.prompt
    if isinstance(row, Picture):
        return f"image {identity(row)[:12]} ({row.label})"
    return f"matrix {identity(row)[:12]} {row.shape}"
