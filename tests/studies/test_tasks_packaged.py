"""Packaged tasks, read from hand-written files in the archives' formats."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from studies import tasks
from studies.archives import Archive, ArchiveError
from studies.tasks import packaged
from studies.tasks.packaged import PackagedTask
from studies.tasks.rows import Exchange, Item, Picture, Row, words_of
from studies.tasks.rows_cache import cached_rows
from studies.tasks.spec import TaskSpec
from studies.tasks.splits import check_disjoint, clean, split_pool

COUNT = 40


def mc(question: str, right: str, wrong: str) -> dict[str, Any]:
    return {"input": question, "target_scores": {wrong: 0, right: 1, "neither": 0}}


def twins(number: int) -> dict[str, Any]:
    first = f"The box {number} beat the crate since the _ was big. \nAnswer1: Box. \n"
    second = f"Sentence 2: The box {number} beat the crate since the _ was small. \nAnswer2: crate."
    return {"input": "Context Word: x.", "target": [f"Sentence 1: {first}{second}"]}


def cosmos(number: int) -> dict[str, Any]:
    story = f"Context: Story {number // 2} . \nQuestion: What {number} ? \n"
    return {
        "input": f"{story}Correct Answer: Right {number} .",
        "target": [f"Wrong {number} .", f"Worse {number} ."],
    }


def qasc(number: int) -> dict[str, Any]:
    text = f"Fact: fact {number // 2}. \nQuestion: What {number}? \nCorrect Answer: right {number}."
    return {"input": text, "target": ["one.", "two.", "three."]}


def vitamin(number: int) -> dict[str, Any]:
    text = f"Article {number // 4}: Passage {number // 2} .\nClaim: Claim {number} ."
    return {"input": text, "target_scores": {"True": number % 2, "False": 1 - number % 2}}


FILES: dict[str, Callable[[int], dict[str, Any]]] = {
    "subtask029_winogrande_full_object": twins,
    "subtask025_cosmosqa_incorrect_answer_generation": cosmos,
    "subtask042_qasc_incorrect_option_generation": qasc,
    "social_iqa": lambda n: mc(f"Ann {n} sat. Why did Ann do this? ", f"tired {n}", "hungry"),
    "strategyqa": lambda n: {"input": f"Is {n} odd?", "target_scores": {"Yes": n % 2, "No": 0.5}},
    "vitaminc_fact_verification": vitamin,
}


@pytest.fixture
def archives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, and a folder that stands for every archive."""
    folder = tmp_path / "unpacked"
    folder.mkdir()
    for name, make in FILES.items():
        text = json.dumps({"examples": [make(number) for number in range(COUNT)]})
        (folder / f"{name}.json").write_text(text, encoding="utf-8")
    lines = [
        {"input": [{}, {"content": f"headline {n}"}], "ideal": str(n % 2)} for n in range(COUNT)
    ]
    (folder / "sarcasm.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n")
    # every other situation is one of BIG-bench's
    lines = [
        {
            "input": [{"content": f"Ann {n * 2} sat. How is Ann? A: tired; B: sad {n}; C: glad."}],
            "ideal": "C",
        }
        for n in range(COUNT)
    ]
    (folder / "social_iqa.jsonl").write_text("\n".join(map(json.dumps, lines)))
    monkeypatch.setenv("BASIS_ZOO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(packaged, "fetch", lambda archive: folder)
    return folder


LANGUAGE = ["winogrande", "cosmosqa", "qasc", "social_iqa", "strategyqa", "vitaminc", "sarcasm"]


def load(name: str, **rows: int) -> tasks.TaskData:
    asked = {"train_rows": 10, "valid_rows": 4, "test_rows": 6} | rows
    return tasks.load({"name": name, **asked})


@pytest.mark.parametrize("name", LANGUAGE)
def test_rows_are_split_by_group_without_leaks(archives: Path, name: str) -> None:
    data = load(name)
    assert tasks.describe(data)["rows"] == {"train": 10, "valid": 4, "test": 6}
    check_disjoint(data.splits)
    groups = {split: {row.group for row in rows} for split, rows in data.splits.items()}
    if name not in ("strategyqa", "sarcasm"):
        assert None not in set().union(*groups.values())
        assert not groups["train"] & groups["test"] and not groups["valid"] & groups["test"]
    assert load(name) == data


def test_rows_come_from_the_cache_once_they_are_there(
    archives: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(archive: Archive) -> Path:
        raise ArchiveError(archive.filename)

    first = [load(name) for name in LANGUAGE]
    monkeypatch.setattr(packaged, "fetch", refuse)
    assert [load(name) for name in LANGUAGE] == first


def test_winogrande_scores_what_follows_the_blank(archives: Path) -> None:
    item = load("winogrande").splits["train"][0]
    assert isinstance(item, Item)
    contexts, endings = zip(*item.options, strict=True)
    assert len(set(endings)) == 1 and endings[0].startswith(" was ")
    assert [context.split()[-1] for context in contexts] == ["box", "crate"]
    right = "box" if "big" in endings[0] else "crate"
    assert item.gold == ("box", "crate").index(right)
    assert item.lesson[1] == f" {right}{endings[0]}"


def test_qasc_leaves_the_fact_out_and_keeps_the_right_answer(archives: Path) -> None:
    for item in load("qasc").splits["test"]:
        number = item.options[0][0].split("What ")[1].split("?")[0]
        assert "fact" not in item.text.lower()
        assert item.options[item.gold][1] == f" right {number}"
    places = {item.gold for split in load("qasc", train_rows=20).splits.values() for item in split}
    assert len(places) > 2  # shuffled


def test_social_iqa_trains_on_no_situation_of_its_test_set(archives: Path) -> None:
    data = load("social_iqa", train_rows=15, test_rows=COUNT)
    assert all("Why did" in item.text for item in data.splits["test"])
    numbers = {int(item.text.split("Ann ")[1].split()[0]) for item in data.splits["train"]}
    assert min(numbers) >= COUNT and data.splits["train"][0].gold == 2


def test_vitaminc_is_a_pair_of_texts_split_by_article(archives: Path) -> None:
    row = load("vitaminc").splits["train"][0]
    assert isinstance(row, Row) and row.pair is not None
    assert row.text.startswith("Article") and row.pair.startswith("Claim")
    assert row.group == f"article {row.text.split(':')[0].split()[1]}"


def test_a_cut_group_is_dropped_not_shared() -> None:
    rows = [Row(f"text {n}", "ab"[n % 2], group=str(n // 5)) for n in range(50)]
    splits = split_pool(rows, TaskSpec(name="p", valid_rows=3, test_rows=7), 0)
    check_disjoint(splits)
    assert {name: len(part) for name, part in splits.items()} == {
        "train": 35,
        "valid": 3,
        "test": 7,
    }
    with pytest.raises(ValueError, match="in 10 groups that are kept together; ask for fewer"):
        split_pool(rows, TaskSpec(name="p", train_rows=40, valid_rows=3, test_rows=7), 0)


def test_a_group_in_two_splits_is_a_leak() -> None:
    rows = {"train": [Row("one", "a", group="g")], "test": [Row("two", "a", group="g")]}
    with pytest.raises(ValueError, match="leak: 'two' is in both train and test"):
        check_disjoint(rows)


def test_options_in_another_order_are_the_same_item() -> None:
    items = [Item.of("q", ["a", "b"], 0), Item.of("q", ["b", "a"], 1), Item.of("q", ["b", "a"], 0)]
    assert clean(items[:2]) == ([items[0]], {"empty": 0, "conflicting": 0, "duplicate": 1})
    assert clean(items)[1]["conflicting"] == 3


@pytest.mark.parametrize(
    "rows",
    [
        [Row("a\u2028b", "x", "c", "g"), Row("b", "y")],
        [
            Item.of("q", ["a", "b"], 1, group="g", part="p"),
            Item.of("r", ["a"], 0, train=("p", "a")),
        ],
        [Exchange("p", "r")],
        [Picture(b"\x00\xff\n", "cat")],
    ],
    ids=lambda rows: type(rows[0]).__name__,
)
def test_rows_survive_their_file(rows: list[Any], tmp_path: Path) -> None:
    file = tmp_path / "rows" / "x.jsonl.gz"
    assert cached_rows(file, lambda: rows) == rows
    assert cached_rows(file, lambda: pytest.fail("read again")) == rows
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])
    assert cached_rows(file, lambda: rows) == rows
    assert file.read_bytes() == content


def test_rows_in_a_damaged_file_are_read_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, rows = tmp_path / "x.jsonl.gz", [Row("text", "good")]
    cached_rows(file, lambda: rows)
    whole = file.read_bytes()
    for place in range(10, len(whole)):  # before that is gzip's own header: it says nothing of rows
        file.write_bytes(whole[:place] + bytes([whole[place] ^ 255]) + whole[place + 1 :])
        assert cached_rows(file, lambda: rows) == rows
        assert capsys.readouterr().err == f"{file} is damaged; its rows are read again\n", place
        assert file.read_bytes() == whole


@pytest.mark.network
@pytest.mark.parametrize(
    "name", [n for n in tasks.list_tasks() if isinstance(tasks.get_task(n), PackagedTask)]
)
def test_real_rows_are_as_many_as_declared(name: str) -> None:
    task = tasks.get_task(name)
    assert isinstance(task, PackagedTask)
    assert len(clean(task.pool(), words_of)[0]) == task.rows
    tasks.load(name)


@pytest.mark.network
def test_real_rows_are_those_of_the_committed_results() -> None:
    rows = {"train_rows": 480, "valid_rows": 200, "test_rows": 600}
    data = tasks.load({"name": "movie_sentences", **rows})
    report = Path(__file__).parents[2] / "results/methods/embedded/report.md"
    assert f"hash: {tasks.describe(data)['hash']}" in report.read_text(encoding="utf-8")
