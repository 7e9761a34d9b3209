"""Clean a pool of rows and split it, so that no text and no group is in two splits.

The split depends on `split_seed` alone, never on a trial's seed: all arms and seeds see the same
rows, which is what pairing by seed rests on.
"""

import bisect
import hashlib
import itertools
import json
import random
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from studies.tasks.rows import AnyRow, Exchange, Form, answer_of, identity, label_of, plain, shown
from studies.tasks.spec import TaskSpec
from studies.tasks.task import TaskData

R = TypeVar("R", bound=AnyRow)

SPLITS = ("train", "valid", "test")
FEW, SHOWN = 5, 8
"""Rows of a class in a split below which a result names it, and how many classes it names."""
VALID_SHARE, TEST_SHARE = 0.1, 0.2
"""Shares of the pool where the study does not say how many rows."""


def clean(
    rows: Iterable[AnyRow], form: Form = plain, conflicting: Collection[str] = ()
) -> tuple[list[AnyRow], dict[str, int]]:
    """One row for each identity in `form`, in the order of first sight.

    Beside them how many rows were removed, by reason. A text that occurs with two labels, or whose
    identity is one of `conflicting`, is left out altogether: all of its rows count.
    """
    first: dict[str, AnyRow] = {}
    times: Counter[str] = Counter()
    conflicting = set(conflicting)
    empty = responses = 0
    for row in rows:
        if not shown(row).strip():
            empty += 1
            continue
        key = identity(row, form)
        times[key] += 1
        known = first.setdefault(key, row)
        if label_of(known, form) != label_of(row, form):
            conflicting.add(key)
        if isinstance(row, Exchange) and form(row.response) != form(answer_of(known)):
            responses += 1
    cleaned = [row for key, row in first.items() if key not in conflicting]
    removed = {
        "empty": empty,
        "conflicting": sum(times[key] for key in conflicting),
        "duplicate": sum(n - 1 for key, n in times.items() if key not in conflicting) - responses,
    }
    return cleaned, {**removed, **({"other_response": responses} if responses else {})}


def contradicted(rows: Iterable[AnyRow]) -> set[str]:
    """The identities that occur with two labels."""
    labels: dict[str, str] = {}
    pairs = ((identity(row), label_of(row)) for row in rows)
    return {key for key, label in pairs if labels.setdefault(key, label) != label}


def clean_beside(
    tested: Iterable[AnyRow], rows: Iterable[AnyRow], form: Form
) -> tuple[list[AnyRow], dict[str, int]]:
    """`clean` for `rows` to train on: those that a test set has too are removed as in_test."""
    cleaned, removed = clean(rows, form)
    left = apart_from(tested, cleaned, form)
    return left, {**removed, "in_test": len(cleaned) - len(left)}


def apart_from(taken: Iterable[AnyRow], rows: Iterable[R], form: Form = plain) -> list[R]:
    """Those of `rows` whose identity in `form` is none of those `taken`."""
    identities = {identity(row, form) for row in taken}
    return [row for row in rows if identity(row, form) not in identities]


def sampled(rows: Sequence[R], count: int | None, name: str) -> tuple[R, ...]:
    """`count` rows, the same for the same `name`; for None or too many all, in their order."""
    if count is None or count >= len(rows):
        return tuple(rows)
    return tuple(random.Random(name).sample(rows, count))


def split_pool(
    rows: Sequence[AnyRow], spec: TaskSpec, split_seed: int, *, stratified: bool = False
) -> dict[str, tuple[AnyRow, ...]]:
    """Shuffle a clean pool by `split_seed` and cut it: test first, then valid, train from the end.

    So another `train_rows` leaves valid and test as they are. Rows of one group are moved together;
    where a cut falls into a group, the rest of that group is left out. `stratified` gives every
    split the labels in like shares.

    Raises:
        ValueError: the pool has fewer rows than were asked for.
    """
    units = _units(rows)
    random.Random(split_seed).shuffle(units)
    if stratified:
        units = _evenly(units)
    order = [row for unit in units for row in unit]
    ends = list(itertools.accumulate(map(len, units)))
    test, valid = (
        max(1, round(len(order) * share)) if count is None else count
        for count, share in ((spec.test_rows, TEST_SHARE), (spec.valid_rows, VALID_SHARE))
    )
    after_test = _next_end(ends, test)
    after_valid = _next_end(ends, after_test + valid)
    free = len(order) - after_valid
    train = free if spec.train_rows is None else spec.train_rows
    if train < 1 or train > free:
        groups = (
            "" if len(units) == len(order) else f" in {len(units)} groups that are kept together"
        )
        count = "at least 1" if spec.train_rows is None else train
        raise ValueError(
            f"task: {spec.name}: asked for train_rows {count}, valid_rows {valid} and test_rows "
            f"{test}, but the pool has {len(order)} rows{groups}; ask for fewer in `task` "
            "(what a study leaves out, its profile sets)"
        )
    return {
        "train": tuple(order[len(order) - train :]),
        "valid": tuple(order[after_test : after_test + valid]),
        "test": tuple(order[:test]),
    }


def _units(rows: Sequence[AnyRow]) -> list[list[AnyRow]]:
    """Rows of a group together, in the order of first sight; a row without group is its own."""
    units: dict[str, list[AnyRow]] = {}
    for place, row in enumerate(rows):
        units.setdefault(f"#{place}" if row.group is None else f"g{row.group}", []).append(row)
    return list(units.values())


def _evenly(units: Sequence[list[AnyRow]]) -> list[list[AnyRow]]:
    """Spread the units of each label over the whole order, so that any stretch has its share."""
    counts = Counter(label_of(unit[0]) for unit in units)
    seen: Counter[str] = Counter()
    places = []
    for place, unit in enumerate(units):
        label = label_of(unit[0])
        places.append(((seen[label] + 0.5) / counts[label], place))
        seen[label] += 1
    return [units[place] for _, place in sorted(places)]


def _next_end(ends: Sequence[int], place: int) -> int:
    """The first end of a group at or after `place`; beyond the last one, `place` itself."""
    if place == 0:
        return 0
    where = bisect.bisect_left(ends, place)
    return ends[where] if where < len(ends) else place


def check_disjoint(splits: Mapping[str, Sequence[AnyRow]]) -> None:
    """Refuse splits that share a row's identity or a group.

    Raises:
        ValueError: names the two splits and one shared text.
    """
    owner: dict[str, str] = {}
    for name, rows in splits.items():
        for row in rows:
            keys = [] if row.group is None else [f"group {row.group}"]
            for key in (identity(row), *keys):
                other = owner.setdefault(key, name)
                if other != name:
                    raise ValueError(f"leak: {shown(row)[:80]!r} is in both {other} and {name}")


def describe(data: TaskData) -> dict[str, Any]:
    """What a result records about its data: hash, rows, shares, what was removed, source."""
    # of rows that each seed draws, what they are drawn from
    rows = data.info.source if data.info.drawn else {s: data.splits[s] for s in SPLITS}
    shares = {name: majority(data.splits[name]) for name in SPLITS}
    return {
        "task": data.info.name,
        "hash": _sha256([data.labels, rows]),
        "labels": list(data.labels),
        "rows": {name: len(data.splits[name]) for name in SPLITS},
        **({} if data.info.kind == "matrix" else {"majority": shares}),
        "removed": dict(data.removed),
        **({"notes": list(data.notes)} if data.notes else {}),
        **({"scarce": few} if (few := scarce(data)) else {}),
        "source": data.info.source,
        "licence": data.info.licence,
    }


def rows_hash(data: TaskData, split: str) -> str:
    """Names the rows of one split in their order: 64 hex digits, the same for the same rows."""
    return _sha256([data.labels, data.splits[split]])


def _sha256(value: Any) -> str:
    canonical = json.dumps(
        value, ensure_ascii=False, default=lambda image: hashlib.sha256(image).hexdigest()
    )
    return hashlib.sha256(canonical.encode()).hexdigest()


def scarce(data: TaskData) -> dict[str, list[str]]:
    """Classes of fewer than `FEW` rows in a split, the rarest first, as "class: rows"."""
    lines = {}
    for split in SPLITS:
        times = Counter(dict.fromkeys(data.labels, 0))
        times.update(label_of(row) for row in data.splits[split] if data.labels)
        rare = sorted((n, label) for label, n in times.items() if n < FEW)
        if rare:
            more = [f"and {len(rare) - SHOWN} more"] if len(rare) > SHOWN else []
            lines[split] = [*(f"{label}: {n}" for n, label in rare[:SHOWN]), *more]
    return lines


def majority(rows: Sequence[AnyRow]) -> float:
    """The share of the most frequent answer: the accuracy of always giving it."""
    if not rows:
        return float("nan")
    return Counter(map(answer_of, rows)).most_common(1)[0][1] / len(rows)
