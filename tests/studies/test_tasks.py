"""Tasks by name: reading, cleaning, splitting, and the metrics they declare."""

import csv
import gzip
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from studies import tasks
from studies.archives import Archive, ArchiveError
from studies.tasks import packaged
from studies.tasks.metrics import CLASSIFICATION, named_classification_metrics
from studies.tasks.rows import Picture, Row, words_of
from studies.tasks.spec import TaskSpec
from studies.tasks.splits import check_disjoint, clean, split_pool

POOL = [Row(f"sentence number {i}", "ab"[i % 2]) for i in range(100)]
SPEC = TaskSpec(name="pool", train_rows=50, valid_rows=10, test_rows=20)


def spec_of(train: int, valid: int, test: int) -> TaskSpec:
    return TaskSpec(name="pool", train_rows=train, valid_rows=valid, test_rows=test)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("movie_sentence", r"unknown task 'movie_sentence'\. Did you mean 'movie_sentences'\?"),
        ("parity", r"a hub id owner/name, or what a plug-in registers$"),
        ("./no-such.csv", "no such file ./no-such.csv"),
        ("./no-such-folder", "no such file or folder"),
        ({"name": "movie_sentences", "train_row": 5}, r"Did you mean 'train_rows'\?"),
        (
            {"name": "movie_sentences", "test_rows": 0},
            r"^task\.test_rows: expected at least 1, got 0$",
        ),
        (
            {"name": "movie_sentences", "max_length": "32"},
            r"task\.max_length: expected a whole number, got '32'",
        ),
        (
            {"name": "a/b", "text": ["x", "y", "z"]},
            r"task\.text: expected one column or a list of one or two, got",
        ),
        ({"train_rows": 5}, r"task\.name: required, but not given"),
    ],
)
def test_bad_entries_are_refused_by_name(spec: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tasks.check(spec)


@pytest.mark.parametrize("name", [*tasks.list_tasks(), "owner/name", "owner/name:subset"])
def test_every_task_declares_what_a_report_needs(name: str) -> None:
    info = tasks.check(name)
    assert info.name == name and info.kind and info.source and info.licence
    assert info.metric in info.metrics and info.direction == info.metrics[info.metric]
    assert set(info.metrics.values()) <= {"maximize", "minimize"}


def test_cleaning_leaves_one_row_a_text_and_no_contradictions() -> None:
    rows = [
        Row("Good film!", "a"),
        Row("good  FILM!", "a"),
        Row("Odd", "a"),
        Row("odd", "b"),
        Row(" ", "a"),
        Row("Fine", "b"),
    ]
    kept, removed = clean(rows)
    assert kept == [Row("Good film!", "a"), Row("Fine", "b")]
    assert removed == {"empty": 1, "conflicting": 2, "duplicate": 1}


def test_pairs_are_compared_whole() -> None:
    kept, _ = clean([Row("a", "x", "b"), Row("a", "y", "c"), Row("A", "x", "B")])
    assert kept == [Row("a", "x", "b"), Row("a", "y", "c")]


def test_texts_of_punctuation_alone_stay_apart() -> None:
    assert words_of("!!!") != words_of("???")


@pytest.mark.parametrize("texts", [("! ?", "!  ?"), ("\u03b0", "\u03ab\u0301")])
def test_what_is_left_by_words_has_no_two_texts_that_are_a_leak(texts: tuple[str, str]) -> None:
    kept, _ = clean([Row(text, "a") for text in texts], words_of)
    check_disjoint({str(place): [row] for place, row in enumerate(kept)})


def test_the_split_depends_on_its_seed_alone() -> None:
    first, again, other = (split_pool(POOL, SPEC, seed) for seed in (0, 0, 1))
    assert first == again != other
    assert {name: len(rows) for name, rows in first.items()} == {
        "train": 50,
        "valid": 10,
        "test": 20,
    }
    check_disjoint(first)


def test_more_training_rows_leave_valid_and_test_alone() -> None:
    few, many = (split_pool(POOL, spec_of(n, 10, 20), 0) for n in (20, 70))
    assert (few["valid"], few["test"]) == (many["valid"], many["test"])
    assert set(few["train"]) <= set(many["train"])


def test_too_few_rows_is_an_error_with_the_count() -> None:
    with pytest.raises(ValueError, match=r"has 100 rows; ask for fewer .*its profile sets"):
        split_pool(POOL, spec_of(90, 10, 20), 0)


def test_a_text_in_two_splits_is_a_leak() -> None:
    with pytest.raises(ValueError, match="leak: 'same TEXT' is in both train and test"):
        check_disjoint({"train": [Row("Same text", "a")], "test": [Row("same TEXT", "b")]})


def test_description_names_rows_majority_and_a_hash_of_the_rows(tiny_csv: Path) -> None:
    spec = {"name": str(tiny_csv), "train_rows": 100, "valid_rows": 50, "test_rows": 80}
    first = tasks.describe(tasks.load(spec))
    assert first["rows"] == {"train": 100, "valid": 50, "test": 80}
    assert first["labels"] == ["bad", "good"]
    assert all(0.5 <= share < 0.7 for share in first["majority"].values())
    assert tasks.describe(tasks.load(spec))["hash"] == first["hash"]
    assert tasks.describe(tasks.load(spec, split_seed=1))["hash"] != first["hash"]
    json.dumps(first, allow_nan=False)


def test_file_formats_give_the_same_rows(tiny_csv: Path, tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    records = list(csv.DictReader(tiny_csv.open(encoding="utf-8")))
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, records)))
    parquet.write_table(pyarrow.Table.from_pylist(records), tmp_path / "rows.parquet")
    with (tmp_path / "rows.tsv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ["text", "label"], delimiter="\t")
        writer.writeheader()
        writer.writerows(records)
    hashes = {
        tasks.describe(tasks.load(str(path)))["hash"] for path in (tiny_csv, *tmp_path.iterdir())
    }
    assert len(hashes) == 1


def test_text_that_looks_like_nothing_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("text,label\n" + "".join(f"NA {i},0{i % 2}\n" for i in range(40)) + "NA,01\n")
    data = tasks.load({"name": str(path), "test_rows": 41 - 20, "valid_rows": 1, "train_rows": 19})
    assert data.labels == ("00", "01")
    assert Row("NA", "01") in [row for rows in data.splits.values() for row in rows]


def test_a_missing_column_is_refused_before_the_run(tiny_csv: Path) -> None:
    with pytest.raises(ValueError, match=r"no column 'txt'\. Did you mean 'text'\?.*`task\.text`"):
        tasks.check({"name": str(tiny_csv), "text": "txt"})


def test_numbers_are_no_classes(tmp_path: Path) -> None:
    path = tmp_path / "scores.csv"
    path.write_text("text,label\n" + "".join(f"word {i},{i / 7}\n" for i in range(60)))
    with pytest.raises(ValueError, match="so they are no classes"):
        tasks.load(str(path))


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_a_folder_has_splits_of_its_own(
    form: str, tiny_csv: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    rows = list(csv.DictReader(tiny_csv.open(encoding="utf-8")))
    folder = tmp_path / "set"
    folder.mkdir()
    (folder / "README.md").write_text("Sentences.")
    for name, part in {"train": rows[:300], "test": rows[250:]}.items():  # 50 rows are in both
        if form == "parquet":  # beside a card: `datasets` reads it
            datasets.Dataset.from_list(part).to_parquet(folder / f"{name}-00000-of-00001.parquet")
        else:
            lines = ["text,label", *(f"{row['text']},{row['label']}" for row in part)]
            (folder / f"{name}.csv").write_text("\n".join(lines))
    data = tasks.load({"name": str(folder), "test_rows": 120})
    texts = {name: {row.text for row in split} for name, split in data.splits.items()}
    assert len(texts["test"]) == 120 and texts["test"] <= {row["text"] for row in rows[250:]}
    assert not texts["test"] & texts["train"] and len(texts["valid"]) == 25
    assert len(data.splits["train"]) == 225 and data.removed["in_test"] == 50


def test_files_of_a_folder_are_read_as_one_file_is(tmp_path: Path) -> None:
    train = [f"word {n},0{n % 2}" for n in range(60)]
    (tmp_path / "train.csv").write_text("\n".join(["text,label", *train, "NA,01"]))
    (tmp_path / "valid.csv.gz").write_bytes(gzip.compress("text;label\nfine;00".encode("utf-16")))
    data = tasks.load({"name": str(tmp_path), "test_rows": 1})
    assert data.labels == ("00", "01") and data.splits["test"] == (Row("fine", "00"),)
    assert Row("NA", "01") in data.splits["train"] + data.splits["valid"]
    (tmp_path / "train.csv").write_text("\n".join(["text,label", *train, "odd,"]))
    with pytest.raises(ValueError, match=r"train\.csv lacks a value for 'label' in row 61"):
        tasks.load(str(tmp_path))


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_a_test_set_without_labels_is_told(
    form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    folder = tmp_path / "set"
    folder.mkdir()
    for name, labels in (("train", (-1, 0, 1)), ("test", (-1, -1, -1))):
        rows = [{"text": f"{name} {n}", "label": labels[n % 3]} for n in range(60)]
        if form == "parquet":
            datasets.Dataset.from_list(rows).to_parquet(folder / f"{name}-00000-of-00001.parquet")
        else:
            lines = ["text,label", *(f"{row['text']},{row['label']}" for row in rows)]
            (folder / f"{name}.csv").write_text("\n".join(lines))
    if form == "csv":
        with pytest.raises(ValueError, match=r"test\.csv has no label in any row .*empty or -1"):
            tasks.load(str(folder))
        (folder / "test.csv").unlink()
    data = tasks.load(str(folder))
    assert data.labels == ("-1", "0", "1") and sum(map(len, data.splits.values())) == 60
    assert not any("test" in row.text for rows in data.splits.values() for row in rows)
    told = tasks.findings(tasks.describe(data))
    hidden = "the split `test` hides its labels: rows to test on are taken from `train`"
    assert (f"{folder}: {hidden}" in told) == (form == "parquet")


def test_movie_sentences_are_read_as_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = [f"{i}\t{(-1) ** i * 2.5}\tsnippet {i} with\u2028a line mark" for i in range(40)]
    (tmp_path / "movieReviewSnippets_GroundTruth.txt").write_text(
        "\r\n".join([*lines, "41\t0.25\tneither", "42\t-0.5\tedge"]) + "\r\n", newline=""
    )
    monkeypatch.setenv("BASIS_ZOO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(packaged, "fetch", lambda archive: tmp_path)
    spec = {"name": "movie_sentences", "train_rows": 21, "valid_rows": 10, "test_rows": 10}
    data = tasks.load(spec)
    rows = {row.text: row.label for split in data.splits.values() for row in split}
    assert len(rows) == 41 and "neither" not in rows and rows["edge"] == "negative"
    assert rows["snippet 2 with\u2028a line mark"] == "positive"


def test_a_task_that_cannot_be_fetched_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(archive: Archive) -> Path:
        raise ArchiveError(f"{archive.filename} is not in the cache")

    monkeypatch.setenv("BASIS_ZOO_CACHE", str(tmp_path))
    monkeypatch.setattr(packaged, "fetch", refuse)
    with pytest.raises(ArchiveError, match=r"vaderSentiment-0\.5\.zip is not in the cache"):
        tasks.load("movie_sentences")


def test_metrics_agree_with_scikit_learn() -> None:
    sklearn_metrics = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=(57, 4)) * 3, rng.integers(0, 3, 57)
    shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    got = named_classification_metrics(CLASSIFICATION, logits, labels).metrics
    predicted = logits.argmax(axis=1)
    assert got == pytest.approx(
        {
            "accuracy": sklearn_metrics.accuracy_score(labels, predicted),
            "macro_f1": sklearn_metrics.f1_score(labels, predicted, average="macro"),
            "loss": sklearn_metrics.log_loss(labels, shares, labels=range(4)),
        }
    )


def test_list_names_every_task() -> None:
    command = [sys.executable, "-m", "studies.tasks", "list"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert all(name in done.stdout for name in tasks.list_tasks())
    assert "vaderSentiment==0.5" in done.stdout


def test_rows_are_of_the_kind_that_is_asked_for() -> None:
    data = tasks.TaskData(tasks.check("movie_sentences"), ("a", "b"), {"train": tuple(POOL)})
    assert data.rows("train", Row) == tuple(POOL)
    with pytest.raises(TypeError, match="rows are each a Picture; its train has a Row"):
        data.rows("train", Picture)
