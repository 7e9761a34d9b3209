"""GLUE on hand-written rows in the hub's columns; its metrics against scikit-learn and scipy."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from studies import tasks
from studies.engine.records import Trial
from studies.engine.trials.trial import run_trial
from studies.tasks.glue import GLUE
from studies.tasks.metrics import correlation_metrics, named_classification_metrics


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hf")


def write(folder: Path, name: str) -> Path:
    """Train and test rows of one subset; the test set's first row is also a training row."""
    folder.mkdir()
    task, words = GLUE[name], ("good", "bad", "odd")

    def rows(split: str, count: int) -> list[dict[str, Any]]:
        classes = len(task.labels) or 5
        return [
            {column: f"{column} {split} {n} {words[n % classes % 3]}" for column in task.columns}
            | {"label": n % classes if task.labels else n % 5 + 0.2, "idx": n}
            for n in range(count)
        ]

    test = rows("test", 12)
    for split, content in {"train": [*rows("train", 40), test[0]], task.test_split: test}.items():
        text = "\n".join(map(json.dumps, content))
        (folder / f"{split}.jsonl").write_text(text, encoding="utf-8")
    return folder


@pytest.mark.parametrize("name", list(GLUE))
def test_every_subset_is_read_and_split(name: str, tmp_path: Path) -> None:
    data = tasks.load({"name": name, "data": str(write(tmp_path / "set", name))})
    assert tasks.describe(data)["rows"] == {"train": 36, "valid": 4, "test": 12}
    assert data.removed["in_test"] == 1
    assert data.labels == GLUE[name].labels
    assert all((row.pair is None) == (len(GLUE[name].columns) == 1) for row in data.splits["test"])


def test_two_files_of_one_split_are_refused(tmp_path: Path) -> None:
    folder = write(tmp_path / "set", "glue_sst2")
    (folder / "old").mkdir()
    (folder / "old" / "train.jsonl").write_bytes((folder / "train.jsonl").read_bytes())
    for read in (tasks.load, tasks.content):
        with pytest.raises(ValueError, match=r"old/train.jsonl .*two files of one split"):
            read({"name": "glue_sst2", "data": str(folder)})


@pytest.mark.parametrize("name", ["glue_mnli", "glue_stsb"])
def test_csv_files_give_the_same_rows(name: str, tmp_path: Path) -> None:
    folder = write(tmp_path / "set", name)
    data = tasks.load({"name": name, "data": str(folder)})
    for file in list(folder.iterdir()):
        records = [json.loads(line) for line in file.read_text().splitlines()]
        with (folder / f"{file.stem.upper()}.CSV").open("w", newline="") as out:
            table = csv.DictWriter(out, list(records[0]))
            table.writeheader()
            table.writerows([*records, {**records[0], "label": -1}])
        file.unlink()
    (folder / "notes.csv").write_text("no rows")
    found = tasks.load({"name": name, "data": str(folder)})
    assert found.splits == data.splits and found.removed["duplicate"] == data.removed["duplicate"]


def test_the_metric_of_each_subset_is_the_benchmarks() -> None:
    first = {name: tasks.check(name).metric for name in GLUE}
    assert first["glue_cola"] == "matthews" and first["glue_stsb"] == "pearson"
    assert first["glue_sst2"] == first["glue_mnli"] == "accuracy"
    assert {"f1", "accuracy"} <= set(tasks.check("glue_mrpc").metrics)


def test_a_strange_label_is_named(tmp_path: Path) -> None:
    folder = write(tmp_path / "set", "glue_rte")
    row = {"sentence1": "a", "sentence2": "b", "label": 7, "idx": 0}
    (folder / "train.jsonl").write_text(json.dumps(row))
    with pytest.raises(ValueError, match="label 7; it must be 0 to 1 or one of entailment"):
        tasks.load({"name": "glue_rte", "data": str(folder)})


@pytest.mark.parametrize("classes", [2, 4])
def test_metrics_equal_those_of_scikit_learn(classes: int) -> None:
    sk = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(classes)
    logits, labels = rng.normal(size=(83, classes)), rng.integers(0, classes, 83)
    predicted = logits.argmax(axis=1)
    got = named_classification_metrics(("matthews", "f1", "accuracy"), logits, labels).metrics
    want = {
        "matthews": sk.matthews_corrcoef(labels, predicted),
        "f1": sk.f1_score(labels == 1, predicted == 1),
        "accuracy": sk.accuracy_score(labels, predicted),
    }
    assert got == pytest.approx(want)


def test_constant_predictions_have_no_correlation() -> None:
    logits, labels = np.tile([1.0, 0.0], (6, 1)), np.array([0, 1, 0, 1, 1, 0])
    got = named_classification_metrics(("matthews", "f1"), logits, labels).metrics
    assert got == {"matthews": 0.0, "f1": 0.0}
    assert correlation_metrics(np.ones(6), labels.astype(float)).metrics["pearson"] == 0.0


def test_correlations_equal_those_of_scipy() -> None:
    stats = pytest.importorskip("scipy.stats")
    rng = np.random.default_rng(1)
    scores = rng.integers(0, 6, 90) / 1.0  # with ties
    outputs = scores + rng.normal(size=90).round(1)
    assert correlation_metrics(outputs, scores).metrics == pytest.approx(
        {
            "pearson": stats.pearsonr(outputs, scores).statistic,
            "spearman": stats.spearmanr(outputs, scores).statistic,
            "loss": np.mean((outputs - scores) ** 2),
        }
    )


@pytest.mark.parametrize("name", ["glue_stsb", "glue_mnli"])
def test_a_trial_runs_to_its_metrics(name: str, tiny_bert: Path, tmp_path: Path) -> None:
    task = {"name": name, "data": str(write(tmp_path / "set", name)), "max_length": 24}
    config = {
        "backbone": {"name": str(tiny_bert)},
        "task": task,
        "adapter": {"method": "lora", "r": 4, "alpha": 8, "target_modules": ["query", "value"]},
        "train": {"batch_size": 6, "gradient_accumulation": 2, "max_steps": 4},
        "split_seed": 0,
    }
    result = run_trial(
        Trial(study="s", profile="p", arm="a", seed=0, config=config), tmp_path / "run"
    )
    assert result.status == "done", result.failure
    assert {f"test/{metric}" for metric in tasks.check(task).metrics} <= set(result.metrics)
