"""A user's own file: what counts as the same row, and nothing lost or changed without a word."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pandas._libs.parsers import STR_NA_VALUES
from transformers import AutoTokenizer

from studies import tasks
from studies.engine.command.cli import main
from studies.engine.definition.yaml_source import read_yaml
from studies.tasks.rows import Exchange, Item, Row, words_of
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


def labelled(tmp_path: Path, changes: dict[int, str], **keys: Any) -> tasks.TaskData:
    """40 rows of two classes, of which some have another label."""
    labels = [changes.get(n, "neg" if n % 2 else "pos") for n in range(40)]
    lines = ["text,label", *(f"sentence {n},{label}" for n, label in enumerate(labels))]
    return tasks.load({"name": write(tmp_path / "rows.csv", lines), **keys})


def test_space_is_no_part_of_a_label(tmp_path: Path) -> None:
    assert labelled(tmp_path, {3: " neg", 4: "pos\t"}).labels == ("neg", "pos")


def test_a_missing_label_is_refused_or_dropped(tmp_path: Path) -> None:
    changes = {0: "", 5: "  ", 7: "NaN", 9: "null"}
    with pytest.raises(ValueError, match=r"'label' in rows 1, 6, 8, 10\. .*`task\.missing: drop`"):
        labelled(tmp_path, changes)
    data = labelled(tmp_path, changes, missing="drop")
    assert data.removed["missing"] == 4 and len(every(data)) == 36
    kept = labelled(tmp_path, {7: "null", 9: "null"}, labels=["neg", "pos", "null"])
    assert kept.labels == ("neg", "pos", "null")


@pytest.mark.parametrize("mark", sorted(STR_NA_VALUES - {""}))
def test_what_pandas_reads_as_missing_is_no_class_unless_it_is_listed(
    mark: str, tmp_path: Path
) -> None:
    changes = {5: mark, 7: mark}
    listed = f"'label' in rows 6, 8.*if '{re.escape(mark)}' is a class, list all classes in `task"
    with pytest.raises(ValueError, match=listed):
        labelled(tmp_path, changes)
    assert labelled(tmp_path, changes, missing="drop").removed["missing"] == 2
    assert mark in labelled(tmp_path, changes, labels=["neg", "pos", mark]).labels
    assert "none" in labelled(tmp_path, {5: "none", 7: "none"}).labels


@pytest.mark.parametrize("nothing", ["null", "NaN", '""'])
@pytest.mark.parametrize("column", ["text", "label"])
def test_nothing_in_json_is_missing(column: str, nothing: str, tmp_path: Path) -> None:
    lines = [f'{{"text": "word {n}", "label": "{"ab"[n % 2]}"}}' for n in range(40)]
    record = {"text": '"odd"', "label": '"a"'} | {column: nothing}
    lines[9] = f'{{"text": {record["text"]}, "label": {record["label"]}}}'
    name = write(tmp_path / "rows.jsonl", lines)
    if column == "text" and nothing == '""':
        assert tasks.load(name).removed["empty"] == 1
    else:
        with pytest.raises(ValueError, match=f"lacks a value for '{column}' in row 10"):
            tasks.load(name)


@pytest.mark.parametrize("other", ["POS", "Neg"])
def test_spellings_of_one_class_are_refused(other: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=rf"and '{other}' \(2 rows\).*task\.labels: \[\w+, \w+\]"):
        labelled(tmp_path, {6: other, 8: other})


@pytest.mark.parametrize("kind", ["{}\ufeff", "\u200b{} ", " \u2060{}\u200f"])
def test_what_is_not_seen_around_a_label_is_no_part_of_it(kind: str, tmp_path: Path) -> None:
    assert labelled(tmp_path, {3: kind.format("neg")}).labels == ("neg", "pos")
    with pytest.raises(ValueError, match="'label' in row 4"):
        labelled(tmp_path, {3: kind.format("")})


def test_a_label_with_something_unseen_inside_is_another_spelling(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"'neg' .19 rows. and 'n\\u200beg' .1 rows."):
        labelled(tmp_path, {3: "n\u200beg"})
    assert labelled(tmp_path, {3: "n\u200beg"}, labels=["neg", "pos"]).labels == ("neg", "pos")
    england, scotland = (
        "\U0001f3f4" + "".join(chr(0xE0000 + ord(c)) for c in name) + "\U000e007f"
        for name in ("gbeng", "gbsct")
    )  # they differ in characters that are not seen
    flags = {0: england, 2: scotland}
    assert len(labelled(tmp_path, flags).labels) == 4


@pytest.mark.parametrize(
    "names",
    [
        ("a, b", "no"),
        ("#a", 'it\'s: "so"'),
        ("é\u200bé", "[x"),
        ("x\ny", "1e5", "007", "12", "0o17"),
        ("on", "e", "😀\u200b😀", "two words"),
    ],
)
def test_the_list_of_labels_that_is_proposed_is_yaml(names: Any, tmp_path: Path) -> None:
    rows = [{"text": f"word {n}", "label": names[n % len(names)]} for n in range(60)]
    rows[0]["label"] = names[0].upper()
    rows[1]["label"] = names[1].upper()
    name = write(tmp_path / "rows.jsonl", [json.dumps(row) for row in rows])
    with pytest.raises(ValueError, match=r"task\.labels") as refused:
        tasks.load(name)
    found = re.search(r"`task\.(labels: .*)` takes", str(refused.value))
    assert found is not None and found[1].isprintable()
    (tmp_path / "study.yaml").write_text(found[1], encoding="utf-8")
    labels = read_yaml(tmp_path / "study.yaml")["labels"]
    assert sorted(labels) == sorted(names)
    assert set(tasks.load({"name": name, "labels": labels}).labels) == set(names)


def test_integers_of_any_length_are_told_apart(tmp_path: Path) -> None:
    labels = [2**53, 2**53 + 1, "1_0", "10"]
    rows = [{"text": f"word {n}", "label": labels[n % 4]} for n in range(40)]
    data = tasks.load(write(tmp_path / "rows.jsonl", [json.dumps(row) for row in rows]))
    assert set(data.labels) == set(map(str, labels))


def test_numbers_and_truth_values_of_one_class_are_refused(tmp_path: Path) -> None:
    lines = [
        f'{{"text": "word {n}", "label": {["0", "1", "1.0", "true"][n % 4]}}}' for n in range(40)
    ]
    name = write(tmp_path / "rows.jsonl", lines)
    with pytest.raises(ValueError, match=r"'1' \(10 rows\) and '1.0' \(10 rows\) and 'True'"):
        tasks.load(name)
    data = tasks.load({"name": name, "labels": [0, 1]})
    assert data.labels == ("0", "1") and sum(row.label == "1" for row in every(data)) == 30


def test_a_list_of_labels_settles_spelling_and_order(tmp_path: Path) -> None:
    data = labelled(tmp_path, {6: "POS"}, labels=["pos", "neg"])
    assert data.labels == ("pos", "neg") and len(every(data)) == 40
    three = labelled(tmp_path, {6: "POS", 8: "POS"}, labels=["neg", "pos", "POS"])
    assert sum(row.label == "POS" for row in every(three)) == 2
    with pytest.raises(ValueError, match=r"row 7: label 'posh' is none of `task.labels`: neg, pos"):
        labelled(tmp_path, {6: "posh"}, labels=["neg", "pos"])
    with pytest.raises(ValueError, match=r"has no row of `task.labels` other"):
        labelled(tmp_path, {}, labels=["neg", "pos", "other"])
    with pytest.raises(ValueError, match=r"task\.labels: expected a list of two or more"):
        labelled(tmp_path, {}, labels=["neg"])


@pytest.mark.parametrize("column", ["text", "label"])
@pytest.mark.parametrize(("value", "what"), [(["a", "b"], "a list"), ({"a": 1}, "an object")])
def test_lists_and_objects_are_no_texts(column: str, value: Any, what: str, tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [{"text": f"word {n}", "label": "ab"[n % 2]} for n in range(40)]
    rows[4][column] = value
    name = write(tmp_path / "rows.jsonl", [json.dumps(row) for row in rows])
    with pytest.raises(ValueError, match=f"row 5: column '{column}' holds {what}"):
        tasks.load(name)
    with pytest.raises(ValueError, match=f"row 5: column '{column}' holds {what}"):
        tasks.load({"name": name, "template": "{text}"})


def shares(data: tasks.TaskData, label: str) -> list[float]:
    return [sum(row.label == label for row in rows) / len(rows) for rows in data.splits.values()]


def test_splits_have_the_classes_in_like_shares(tmp_path: Path) -> None:
    lines = ["text,label", *(f"word {n},{'abbb'[n % 4] if n % 20 else 'c'}" for n in range(400))]
    spec = {"name": write(tmp_path / "rows.csv", lines)}
    for seed in range(5):
        data = tasks.load(spec, seed)
        for label, share in (("a", 0.2), ("b", 0.75), ("c", 0.05)):
            assert shares(data, label) == pytest.approx([share] * 3, abs=1 / 40 + 1e-9)
    few = tasks.load({**spec, "train_rows": 100, "valid_rows": 40, "test_rows": 80})
    assert (few.splits["valid"], few.splits["test"]) == (
        tasks.load(spec).splits["valid"],
        tasks.load(spec).splits["test"],
    )
    assert shares(few, "b") == pytest.approx([0.75] * 3, abs=0.026)
    plain = [tasks.load({**spec, "stratify": False}, seed) for seed in range(5)]
    assert any(abs(share - 0.2) > 0.06 for data in plain for share in shares(data, "a"))


def test_a_stratified_split_is_another_one_for_another_seed(tmp_path: Path) -> None:
    lines = ["text,label", *(f"word {n},{'ab'[n % 2]}" for n in range(100))]
    spec = {"name": write(tmp_path / "rows.csv", lines)}
    first, again, other = (tasks.load(spec, seed) for seed in (0, 0, 1))
    assert first == again and first.splits != other.splits
    order = [row.label for row in first.splits["train"]]
    assert order != [order[0], order[1]] * (len(order) // 2)  # drawn, not one after the other


def test_classes_of_few_rows_are_told(tmp_path: Path) -> None:
    lines = ["text,label", *(f"word {n},{'ab'[n % 2]}" for n in range(300)), "odd,c", "even,c"]
    described = tasks.describe(tasks.load(write(tmp_path / "rows.csv", lines)))
    assert described["scarce"] == {"train": ["c: 1"], "valid": ["c: 1"], "test": ["c: 0"]}


def test_a_class_that_no_arm_can_learn_is_told(tmp_path: Path) -> None:
    parts = {"train": "ab", "valid": "ab", "test": "abc"}
    for name, classes in parts.items():
        lines = [f"{name} {n},{classes[n % len(classes)]}" for n in range(60)]
        (tmp_path / "own").mkdir(exist_ok=True)
        write(tmp_path / "own" / f"{name}.csv", ["text,label", *lines])
    told = tasks.findings(tasks.describe(tasks.load(str(tmp_path / "own"))))
    assert any("train has no row of a class, so no arm can learn it (c)" in line for line in told)
    assert any("valid has few rows of a class (c: 0)" in line for line in told)


STUDY = """\
name: own
question: Does it train on a file of mine?
task: {{name: ./rows.csv, train_rows: 60, valid_rows: 10, test_rows: 20{more}}}
backbone: {{name: {backbone}}}
train: {{max_steps: 2, warmup_ratio: 0}}
adapter: {{method: lora, r: 2, target_modules: [query]}}
arms: [{{name: lora}}]
baseline: lora
objective: {{metric: test/accuracy}}
seeds: [0]
"""


@pytest.fixture
def own(tmp_path: Path, tiny_bert: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Writes the study and its file; gives what runs a command on it."""
    monkeypatch.chdir(tmp_path)

    def command(lines: list[str], *arguments: str, more: str = "") -> int:
        write(Path("rows.csv"), lines)
        Path("own.yaml").write_text(STUDY.format(backbone=tiny_bert, more=more))
        return main(["own.yaml", *arguments])

    return command


def some(count: int = 110) -> list[str]:
    return ["text,label", *(f"word {n},{'ab'[n % 2]}" for n in range(count))]


def test_the_plan_tells_what_was_left_out_and_what_is_rare(own: Any, capsys: Any) -> None:
    lines = [*some(), "word 3,b", "Word  5,b", "word 7,a", "odd,c", "even,c"]
    assert own(lines, "--plan") == 0
    told = capsys.readouterr().err
    assert "./rows.csv: rows of train 60, valid 10, test 20" in told
    assert "rows were left out: 2 whose text also has another label, 2 that repeat another" in told
    assert "test has few rows of a class (c: 0)" in told
    assert not Path("runs").exists()


@pytest.mark.parametrize("arguments", [("--plan",), (), ("--export-plan", "plan.json")])
def test_a_task_for_a_decoder_and_an_encoder_do_not_go_together(
    arguments: tuple[str, ...], own: Any, capsys: Any
) -> None:
    assert own(some(), *arguments, more=", template: '{text}', choices: [text, label]") == 2
    told = "".join(capsys.readouterr().err.splitlines())
    assert "own.yaml:4: backbone" in told and "is an encoder (bert), and this task needs" in told
    assert not Path("runs").exists()


@pytest.mark.parametrize("arguments", [("--plan",), (), ("--export-plan", "plan.json")])
def test_every_row_is_checked_before_the_first_trial(
    arguments: tuple[str, ...], own: Any, capsys: Any
) -> None:
    assert own([*some(), "word,"], *arguments) == 2
    assert "own.yaml:3: task: ./rows.csv lacks a value for 'label' in row 111" in "".join(
        capsys.readouterr().err.splitlines()
    )
    assert own(some(40), *arguments) == 2
    assert "the pool has 40 rows" in "".join(capsys.readouterr().err.splitlines())
    assert not list(Path().glob("runs/*/*/trials/*"))


@pytest.mark.slow
@pytest.mark.usefixtures("trained_here", "without_figures")
def test_the_report_tells_what_a_split_hides(own: Any, capsys: Any) -> None:
    lines = some()
    lines[1:56:5] = [f"word {n} {'of the long plot ' * 9},a" for n in range(11)]
    assert own([*lines, "odd,a", "ODD,b"], more=", max_length: 16") == 0
    shown, report = capsys.readouterr(), Path("runs/own/embedded/report/report.md").read_text()
    for text in (shown.out, report):
        assert "./rows.csv: rows were left out: 2 whose text also has another label." in text
        assert "./rows.csv: texts are cut to `task.max_length`: " in text
    assert "rows of train 60" in shown.err


def test_the_share_of_cut_texts_is_exact(tiny_bert: Path, tmp_path: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_bert)
    rows = [Row(" ".join(["film"] * words), "a") for words in range(1, 11)]
    info = tasks.check(write(tmp_path / "rows.csv", some()))
    data = tasks.TaskData(info, ("a", "b"), {"train": tuple(rows), "test": tuple(rows[:4])})
    for most, share in ((12, {}), (11, {"train": 0.1}), (5, {"train": 0.7, "test": 0.25})):
        spec = {"name": info.name, "max_length": most}  # two tokens are [CLS] and [SEP]
        assert tasks.truncated(spec, data, tokenizer) == share


def test_the_share_of_cut_questions_counts_the_longest_choice(tiny_llama: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_llama)  # a token is a byte
    items = tuple(Item.of("abcd", ["e" * n, "f"], 1) for n in range(1, 11))
    info = replace(tasks.check("qasc"), answers_end=True)
    splits = {"train": items, "valid": (), "test": items}
    data = tasks.TaskData(info, (), splits)
    spec = {"name": "qasc", "max_length": 10}
    assert tasks.truncated(spec, data, tokenizer) == {"test": 0.4}  # "abcd eeeeee" still fits
    assert tasks.truncated({**spec, "max_length": 6}, data, tokenizer)["train"] == 1.0
    exchanges = tuple(Exchange("abcd", "e" * n) for n in range(1, 11))
    data = tasks.TaskData(tasks.check("alpaca"), (), {"train": exchanges})
    assert tasks.truncated({"name": "alpaca", "max_length": 10}, data, tokenizer) == {"train": 0.5}


def test_half_a_character_is_no_text(tmp_path: Path) -> None:
    rows = [json.dumps({"text": f"row {n}", "label": "ab"[n % 2]}) for n in range(40)]
    rows[3] = '{"text": "cut \\ud83d", "label": "a"}'
    file = write(tmp_path / "rows.jsonl", rows)
    with pytest.raises(ValueError, match="row 4: column 'text' holds half of a character"):
        tasks.load({"name": file, "train_rows": 20, "valid_rows": 8, "test_rows": 8})


def test_numbers_that_python_does_not_read_are_names(tmp_path: Path) -> None:
    lines = ["text,label", *(f"row {n},{'²³'[n % 2]}" for n in range(40))]
    file = write(tmp_path / "rows.csv", lines)
    data = tasks.load({"name": file, "train_rows": 20, "valid_rows": 8, "test_rows": 8})
    assert {row.label for row in every(data)} == {"²", "³"}


def test_two_files_for_one_split_are_refused(tmp_path: Path) -> None:
    for name in ("train", "dev", "val"):
        write(tmp_path / f"{name}.csv", ["text,label", *(f"{name} {n},{n % 2}" for n in range(40))])
    with pytest.raises(ValueError, match=r"more than one split 'validation' .dev, train, val"):
        tasks.load({"name": str(tmp_path)})


def test_the_file_of_a_folder_that_lacks_a_column_is_named(tmp_path: Path) -> None:
    write(tmp_path / "train.csv", ["text,label", *(f"train {n},{n % 2}" for n in range(40))])
    write(tmp_path / "test.csv", ["text", *(f"test {n}" for n in range(40))])
    with pytest.raises(ValueError, match=r"test\.csv has no column 'label'"):
        tasks.load({"name": str(tmp_path)})
