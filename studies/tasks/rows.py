"""The rows of tasks: plain values that say when two of them count as the same.

Every row has `identity` (equal for rows that count as one), `label` (what contradicts when two rows
of one identity differ in it), `group` (rows of a group stay in one split; None where each stands
alone) and `answer` (what always answering the same would be compared with). `identity_in` and
`label_in` give the first two in another `Form` of their texts.
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

    @property
    def identity(self) -> str:
        """The text as compared, or both texts of a pair."""
        return self.identity_in(plain)

    def identity_in(self, form: Form) -> str:
        """The identity in another form."""
        return "\n".join(form(text) for text in (self.text, self.pair) if text is not None)

    def label_in(self, form: Form) -> str:
        """The class, whatever the form."""
        return self.label

    @property
    def answer(self) -> str:
        """The class."""
        return self.label


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
    def label(self) -> str:
        """The right choice's own words."""
        return self.label_in(plain)

    @property
    def identity(self) -> str:
        """Contexts and choices as compared, whatever their order."""
        return self.identity_in(plain)

    def identity_in(self, form: Form) -> str:
        """The identity in another form."""
        return "\n".join(sorted({form(part) for option in self.options for part in option}))

    def label_in(self, form: Form) -> str:
        """The right choice's words in another form."""
        return "\n".join(map(form, self.options[self.gold]))

    @property
    def answer(self) -> str:
        """The right choice's place."""
        return str(self.gold)

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

    @property
    def text(self) -> str:
        """The prompt."""
        return self.prompt

    @property
    def label(self) -> str:
        """The same for all: two responses to one prompt are no contradiction."""
        return ""

    @property
    def identity(self) -> str:
        """The prompt as compared."""
        return self.identity_in(plain)

    def identity_in(self, form: Form) -> str:
        """The identity in another form."""
        return form(self.prompt)

    def label_in(self, form: Form) -> str:
        """The same for all, whatever the form."""
        return self.label

    @property
    def answer(self) -> str:
        """The response."""
        return self.response


class Picture(NamedTuple):
    """One image of an image classification task."""

    image: bytes
    """An encoded file, e.g. PNG."""
    label: str
    group: str | None = None

    @property
    def text(self) -> str:
        """Something to show in a message."""
        return f"image {self.identity[:12]} ({self.label})"

    @property
    def identity(self) -> str:
        """A hash of the encoded file."""
        return hashlib.sha256(self.image).hexdigest()

    def identity_in(self, form: Form) -> str:
        """The hash, whatever the form."""
        return self.identity

    def label_in(self, form: Form) -> str:
        """The class, whatever the form."""
        return self.label

    @property
    def answer(self) -> str:
        """The class."""
        return self.label


class Matrix(NamedTuple):
    """A matrix to approximate."""

    values: bytes
    """float32, row by row."""
    shape: tuple[int, int]
    """(out, in)"""
    label: str = ""
    group: str | None = None

    @property
    def text(self) -> str:
        """Something to show in a message."""
        return f"matrix {self.identity[:12]} {self.shape}"

    @property
    def identity(self) -> str:
        """A hash of the values."""
        return hashlib.sha256(self.values).hexdigest()

    def identity_in(self, form: Form) -> str:
        """The hash, whatever the form."""
        return self.identity

    def label_in(self, form: Form) -> str:
        """Nothing: a matrix has no class."""
        return self.label

    @property
    def answer(self) -> str:
        """Nothing: a matrix has no class."""
        return self.label


AnyRow = Row | Item | Exchange | Picture | Matrix
