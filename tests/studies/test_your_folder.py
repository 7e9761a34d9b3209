"""A user's folder of splits: read as one set, and what one split does to another is told."""

import json
from pathlib import Path
from typing import Any

import pytest

from studies import backbones, tasks
from studies.tasks.rows import Exchange, Item, Row
from studies.tasks.splits import clean

COLOURS = ["red", "blue", "green"]


def write(file: Path, records: list[dict[str, Any]]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    if ".csv" in file.name.lower():
        lines = [",".join(records[0]), *(",".join(map(str, r.values())) for r in records)]
    else:
        lines = [json.dumps(record) for record in records]
    file.write_text("\n".join(lines), encoding="utf-8")


def rows(name: str, count: int = 40, labels: str = "ab") -> list[dict[str, Any]]:
    return [{"text": f"{name} {n}", "label": labels[n % len(labels)]} for n in range(count)]


def questions(name: str, labels: list[Any], choices: list[Any]) -> list[dict[str, Any]]:
    return [{"q": f"{name} {n}", "c": choices, "gold": label} for n, label in enumerate(labels)]


ASK = {"template": "{q}", "choices": "c", "label": "gold"}


def answers(folder: Path, **keys: Any) -> dict[str, str]:
    data = tasks.load({"name": str(folder), **ASK, **keys})
    items = [item for split in data.splits.values() for item in split]
    return {item.options[0][0]: item.options[item.gold][1].strip() for item in items}


def test_numbers_count_from_one_place_in_all_splits(tmp_path: Path) -> None:
    write(tmp_path / "train.jsonl", questions("train", [1, 2, 3] * 10, COLOURS))
    write(tmp_path / "test.jsonl", questions("test", [1, 2] * 10, COLOURS))  # tells nothing itself
    found = answers(tmp_path)
    assert found["train 0"] == found["test 0"] == "red" and found["test 1"] == "blue"
    write(tmp_path / "test.jsonl", questions("test", [0, 1] * 10, COLOURS))
    with pytest.raises(ValueError, match=r"train\.jsonl, row 3: label '3' is not one of its 3"):
        answers(tmp_path)


def test_labels_are_read_in_one_way_in_all_splits(tmp_path: Path) -> None:
    write(tmp_path / "train.jsonl", questions("train", [0, 1, 2, 3] * 10, [3, 1, 2, 4]))
    write(tmp_path / "test.jsonl", questions("test", [1, 2, 3] * 10, [3, 1, 2, 4]))
    # by itself, test has the texts of choices, and train has numbers
    found = answers(tmp_path)
    assert found["train 0"] == "3" and found["test 0"] == "1"
    write(tmp_path / "train.jsonl", questions("train", ["red", "blue"] * 10, COLOURS))
    write(tmp_path / "test.jsonl", questions("test", ["A", "B"] * 10, COLOURS))
    with pytest.raises(ValueError, match=r"test\.jsonl, row 1: label 'A' is not one .* in rows 2"):
        answers(tmp_path)


def test_a_split_without_a_label_or_a_row_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "train.csv", rows("train"))
    write(tmp_path / "test.csv", [{**row, "label": ""} for row in rows("test")])
    with pytest.raises(ValueError, match=r"test\.csv has no label in any row.*move the file"):
        tasks.load(str(tmp_path))
    write(tmp_path / "test.csv", rows("test")[:1])
    (tmp_path / "test.csv").write_text("text,label\n")
    with pytest.raises(ValueError, match=r"test\.csv has no rows"):
        tasks.load(str(tmp_path))


@pytest.mark.parametrize("place", ["data/reviews", "reviews", "./reviews"])
def test_a_folder_that_exists_is_no_hub_id(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write(Path(place) / "train.csv", rows("train"))
    assert tasks.is_local(place) and sum(map(len, tasks.load(place).splits.values())) == 40
    assert tasks.check("owner/name").source.startswith("datasets.load_dataset('owner/name')")
    assert not tasks.is_local("owner/name")


def test_so_it_is_for_a_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models" / "mine").mkdir(parents=True)
    assert backbones.check("models/mine").kind == "hub"
    (tmp_path / "models" / "mine" / "config.json").write_text("{}")
    assert backbones.check("models/mine").kind == "folder"


@pytest.mark.parametrize("name", ["Train.CSV", "TRAIN.csv", "train.Csv"])
@pytest.mark.parametrize("stray", [".DS_Store", "README.md", "notes.txt", ".hidden/train.csv"])
def test_case_and_what_is_no_table_change_nothing(name: str, stray: str, tmp_path: Path) -> None:
    lines = ["text,label", *(f"row {n},{('0', '01')[n % 2]}" for n in range(40))]
    (tmp_path / name).write_text("\n".join(lines))
    (tmp_path / stray).parent.mkdir(exist_ok=True)
    (tmp_path / stray).write_text("a note")
    assert tasks.load(str(tmp_path)).labels == ("0", "01")  # a reader that guesses makes it 1


@pytest.mark.parametrize(
    ("stray", "message"),
    [
        ("old.csv", r"old\.csv is named after no split: .* it has old\.csv, train\.csv\. Rename"),
        ("train_2.jsonl", r"train_2\.jsonl is named after no split"),
        ("more/old.tsv.gz", r"old\.tsv\.gz is named after no split"),
        ("train.jsonl", r"train\.csv is one of two files"),
        ("part.parquet", r"part\.parquet is named after no split"),
    ],
)
def test_a_table_that_is_no_split_is_refused(stray: str, message: str, tmp_path: Path) -> None:
    write(tmp_path / "train.csv", rows("train"))
    write(tmp_path / stray, rows("more"))
    with pytest.raises(ValueError, match=message):
        tasks.load(str(tmp_path))


def test_of_many_tables_a_few_are_named(tmp_path: Path) -> None:
    for n in range(9):
        write(tmp_path / f"part_{n}.csv", rows("part"))
    with pytest.raises(ValueError, match=r"it has part_0\.csv, .*, part_4\.csv and 4 more\."):
        tasks.load(str(tmp_path))


def test_what_is_in_two_splits_is_counted(tmp_path: Path) -> None:
    write(tmp_path / "train.csv", rows("train") + rows("valid")[:3] + rows("test")[:2] * 2)
    write(tmp_path / "valid.csv", rows("valid", 10) + rows("test")[:5])
    write(tmp_path / "test.csv", rows("test", 10))
    data = tasks.load({"name": str(tmp_path), "valid_rows": 1})
    assert {name: len(split) for name, split in data.splits.items()} == {
        "train": 40, "valid": 1, "test": 10,
    }  # fmt: skip
    assert data.removed["in_test"] == 9 and data.removed["in_valid"] == 3
    assert data.removed["duplicate"] == 0
    (told,) = tasks.findings(tasks.describe(data))[:1]
    assert "9 that are also in test, 3 that are also in valid" in told


def test_a_text_with_two_labels_is_left_out_of_all_splits(tmp_path: Path) -> None:
    write(tmp_path / "train.csv", [*rows("train"), {"text": "test 0", "label": "b"}])
    write(tmp_path / "test.csv", rows("test"))
    data = tasks.load(str(tmp_path))
    assert data.removed["conflicting"] == 2 and len(data.splits["test"]) == 39
    write(
        tmp_path / "test.csv",
        [{**row, "label": "ba"[row["label"] == "b"]} for row in rows("train")],
    )
    write(tmp_path / "train.csv", rows("train") + rows("more"))
    with pytest.raises(ValueError, match="no row of the split 'test' is left"):
        tasks.load(str(tmp_path))


def test_too_few_rows_are_told_of_the_split_that_lacks_them(tmp_path: Path) -> None:
    write(tmp_path / "train.csv", rows("train", 9))
    write(tmp_path / "test.csv", rows("test", 5))
    name = str(tmp_path)
    with pytest.raises(ValueError, match="asked for test_rows 20, but the split 'test' has 5 rows"):
        tasks.load({"name": name, "test_rows": 20})
    with pytest.raises(
        ValueError, match=r"for train_rows 9, but .* 'train' has 9 rows, 4 of which"
    ):
        tasks.load({"name": name, "train_rows": 9, "valid_rows": 4})
    with pytest.raises(ValueError, match=r"for train_rows of at least 1, but .* 9 of which are us"):
        tasks.load({"name": name, "valid_rows": 9})
    (tmp_path / "test.csv").unlink()
    with pytest.raises(
        ValueError, match="train_rows at least 1, valid_rows 8 and test_rows 2, but"
    ):
        tasks.load({"name": name, "valid_rows": 8})


@pytest.mark.parametrize("count", [3, 4, 5, 9])
def test_a_small_file_has_a_row_in_every_split(count: int, tmp_path: Path) -> None:
    write(tmp_path / "rows.csv", rows("one", count))
    data = tasks.load(str(tmp_path / "rows.csv"))
    assert all(data.splits.values()) and sum(map(len, data.splits.values())) == count


def test_another_response_is_no_repeat(tmp_path: Path) -> None:
    records = [{"q": f"say {n % 20}", "a": f"word {n % 20} {n // 40}"} for n in range(60)]
    write(tmp_path / "rows.jsonl", records)
    data = tasks.load({"name": str(tmp_path / "rows.jsonl"), "template": "{q}", "label": "a"})
    assert data.removed["duplicate"] == 20 and data.removed["other_response"] == 20
    (told,) = tasks.findings(tasks.describe(data))
    assert "20 with another response to a prompt that is there" in told
    assert clean([Exchange("a", "b"), Exchange("A", "B")])[1]["duplicate"] == 1
    shuffled = [Item.of("q", ["a", "b"], 0), Item.of("q", ["b", "a"], 1), Row("q", "a")]
    assert clean(shuffled)[1]["duplicate"] == 1


@pytest.mark.parametrize("form", ["jsonl", "json"])
def test_a_key_that_the_first_row_lacks_is_a_column(form: str, tmp_path: Path) -> None:
    records = rows("one")
    del records[0]["label"]
    file = tmp_path / f"rows.{form}"
    file.write_text(json.dumps(records) if form == "json" else "\n".join(map(json.dumps, records)))
    with pytest.raises(ValueError, match="lacks a value for 'label' in row 1"):
        tasks.load(str(file))
    assert tasks.load({"name": str(file), "missing": "drop"}).removed["missing"] == 1
    with pytest.raises(ValueError, match=r"no column 'labels'.*one of: text, label"):
        tasks.check({"name": str(file), "label": "labels"})
