"""Classes of a user's rows: which spellings mean one, and which classes there are."""

import functools
import math
import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from decimal import Decimal, InvalidOperation

from studies.tasks.rows import AnyRow, label_of, plain
from studies.tasks.spec import TaskSpec
from studies.tasks.task import TaskInfo
from studies.tasks.values import INVISIBLE

MAX_CLASSES = 1000
_MISSING = frozenset(
    ("#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN", "<NA>",
     "N/A", "NA", "None", "n/a")
)  # fmt: skip
"""What pandas reads as missing, beside nan and null, which programs write in any case."""


def stands_for_nothing(spec: TaskSpec, label: str) -> bool:
    """Whether programs write `label` where there is none, and the study lists no such class."""
    mark = label in _MISSING or label.casefold() in ("nan", "null")
    return mark and label not in (spec.labels or ())


def settled(spec: TaskSpec, number: int, label: str) -> str:
    """The class of `task.labels` that `label` means; itself where the study lists none.

    Raises:
        ValueError: it means none of them, or more than one; names the row.
    """
    if spec.labels is None:
        return label
    name = _meant(spec.labels, label)
    if name is None:
        raise ValueError(
            f"task: {spec.name}, row {number}: label {label!r} is none of `task.labels`: "
            f"{', '.join(spec.labels)}"
        )
    return name


@functools.lru_cache(maxsize=10_000)
def _meant(names: tuple[str, ...], label: str) -> str | None:
    if label in names:
        return label
    alike = [name for name in names if _likeness(name) == _likeness(label)]
    return alike[0] if len(alike) == 1 else None


def _likeness(label: str) -> str | Decimal:
    """What spellings of one class share: a number, a truth value, or a text as it is seen."""
    folded = plain(label.translate(dict.fromkeys(map(ord, INVISIBLE))))
    if folded in ("true", "false"):
        return Decimal(folded == "true")
    try:
        number = Decimal(folded)  # a float makes one of two integers past 2^53
    except InvalidOperation:
        return folded
    return number if number.is_finite() and "_" not in folded else folded


def check_spelling(info: TaskInfo, spec: TaskSpec, rows: Sequence[AnyRow]) -> None:
    """Refuse classes that differ in spelling alone, such as pos and POS, or 1, 1.0 and true.

    Raises:
        ValueError: names the spellings, their numbers of rows, and a list that settles it.
    """
    if not info.has_classes or spec.labels is not None:
        return
    times = Counter(map(label_of, rows))
    spellings: dict[str | Decimal, list[str]] = defaultdict(list)
    for label, _ in times.most_common():
        spellings[_likeness(label)].append(label)
    for several in spellings.values():
        if len(several) > 1:
            counts = " and ".join(f"{label!r} ({times[label]} rows)" for label in several)
            names = ", ".join(_word(each[0]) for each in spellings.values())
            raise ValueError(
                f"task: column {spec.label!r} of {spec.name} has {counts}: write one class in one "
                f"way, or list the classes: `task.labels: [{names}]` takes these as one, a list "
                "with each of them as several"
            )


def _word(name: str) -> str:
    """The class as it can be written into a study's list: quoted but for plain words."""
    import yaml

    if re.fullmatch(r"[^\W\d_][\w ]*", name) and yaml.safe_load(name) == name:  # not no or null
        return name
    seen = name.isprintable()
    return yaml.safe_dump(name, default_style='"', allow_unicode=seen, width=math.inf).strip()


def check_none_lost(info: TaskInfo, rows: Sequence[AnyRow], cleaned: Sequence[AnyRow]) -> None:
    """Refuse data that have lost a class with the rows that were removed.

    Raises:
        ValueError: names the classes.
    """
    if not info.has_classes:
        return
    before, left = Counter(map(label_of, rows)), set(map(label_of, cleaned))
    lost = [label for label in before if label not in left]
    if lost:
        names = ", ".join(f"{label!r} ({before[label]} rows)" for label in lost)
        raise ValueError(
            f"task: no row of class {names} is left of {info.name}: each has no text, or a text "
            "that also occurs with another label; correct these rows, or leave the class out"
        )


def class_names(spec: TaskSpec, rows: Sequence[AnyRow]) -> tuple[str, ...]:
    """`task.labels`; else as numbers where all are integers, alphabetically otherwise.

    Raises:
        ValueError: fewer than two classes, one that is listed and has no row, or so many that the
            column holds no classes.
    """
    labels = set(map(label_of, rows))
    column = f"task: column {spec.label!r} of {spec.name}"
    if spec.labels is not None:
        absent = [name for name in spec.labels if name not in labels]
        if absent:
            raise ValueError(f"{column} has no row of `task.labels` {', '.join(absent)}")
        return spec.labels
    if len(labels) < 2:
        raise ValueError(f"{column} has {len(labels)} different label(s); need two")
    if len(labels) > min(MAX_CLASSES, max(2, len(rows) // 2)):
        raise ValueError(
            f"{column} has {len(labels)} different values in {len(rows)} rows, so they are no "
            "classes; set `task.label` to a column of classes"
        )
    numbers = all(label.removeprefix("-").isdecimal() for label in labels)
    return tuple(sorted(labels, key=int if numbers else str))
