"""A user's own file: what counts as the same row, and nothing lost or changed without a word."""

from pathlib import Path
from typing import Any

import pytest

from studies import tasks
from studies.tasks.rows import Item, Row, words_of
from studies.tasks.splits import clean


def write(path: Path, lines: list[str]) -> str:
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return str(path)


def every(data: tasks.TaskData) -> list[Any]:
    return [row for rows in data.splits.values() for row in rows]


@pytest.mark.parametrize(
    ("one", "other"),
    [("C++", "C#"), ("C#", "C"), ("fine :)", "fine :("), ("3 < 5", "3 > 5"), ("x²", "x2")],
)
def test_symbols_tell_rows_apart(one: str, other: str) -> None:
    rows = [Row(one, "a"), Row(other, "b")]
    assert clean(rows) == (rows, {"empty": 0, "conflicting": 0, "duplicate": 0})
    items = [
        Item.of(f"What is {text}?", ["this", "that"], gold)
        for gold, text in enumerate((one, other))
    ]
    assert clean(items)[0] == items
    choices = [Item.of("Which?", [one, other], gold) for gold in (0, 1)]
    assert clean(choices)[1]["conflicting"] == 2


@pytest.mark.parametrize("other", ["GOOD  film ", "good\u00a0film", "good\tfilm"])
def test_case_and_white_space_do_not(other: str) -> None:
    assert len(clean([Row("Good film", "a"), Row(other, "a")])[0]) == 1
    assert len(clean([Row("café", "a"), Row("cafe\u0301", "a")])[0]) == 1


def test_shipped_tasks_are_compared_as_before() -> None:
    rows = [Row("Good film!", "a"), Row("good  FILM", "a"), Row("Odd.", "a"), Row("odd", "b")]
    assert clean(rows, words_of)[0] == rows[:1]
    assert len(clean(rows)[0]) == 4


def test_removed_are_rows_not_texts() -> None:
    rows = [Row("a", "x"), Row("a", "x"), Row("A", "y"), Row("b", "x"), Row("b", "x")]
    assert clean(rows)[1] == {"empty": 0, "conflicting": 3, "duplicate": 1}


def languages() -> list[str]:
    names = ("C++", "C#", "C")
    return ["text,label", *(f"Senior {n} developer {i},{n}" for i in range(20) for n in names)]


def test_no_class_of_symbols_vanishes(tmp_path: Path) -> None:
    data = tasks.load(write(tmp_path / "rows.csv", languages()))
    assert data.labels == ("C", "C#", "C++") and len(every(data)) == 60


def test_a_class_that_vanishes_is_refused(tmp_path: Path) -> None:
    lines = [*languages(), *(f"Senior C++ developer {i},Rust" for i in range(5))]
    lines += [f"Senior C++ developer {i},C++" for i in range(20)]
    name = write(tmp_path / "rows.csv", lines)
    assert set(tasks.load(write(tmp_path / "few.csv", languages()[:50])).labels) == {
        "C",
        "C#",
        "C++",
    }
    with pytest.raises(ValueError, match=r"no row of class 'Rust' \(5 rows\) is left.*correct"):
        tasks.load(name)
