"""`keep: predictions`: scores by test row are the metrics, come home, and are read with checks."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from refused import refusal

from studies import tasks
from studies.engine.command.importing import import_results
from studies.engine.definition.schema import load_study
from studies.engine.errors import StudyError
from studies.engine.planning.plan import plan
from studies.engine.records import PREDICTIONS, Result, Trial
from studies.engine.trials.predictions import read_predictions, write_predictions
from studies.engine.trials.trial import run_trial
from studies.tasks.kinds.multiple_choice import MultipleChoice
from studies.tasks.rows import Item
from studies.tasks.spec import TaskSpec
from studies.tasks.task import TaskData, TaskInfo


def kept(by_row: dict[str, list[list[float]]], **result: Any) -> tuple[Result, dict[str, Any]]:
    """A result that fits `by_row`, or else says `result`."""
    arrays = {name: tuple(np.array(part) for part in parts) for name, parts in by_row.items()}
    metrics = {f"test/{m}": float(np.mean([p.mean() for p in a])) for m, a in arrays.items()}
    about = {"key": "k", "status": "done", "metrics": metrics, "data": {"rows": {"test": 4}}}
    return Result(**about | result), arrays


@pytest.mark.parametrize("keep", ["last", "best"])
def test_a_trial_keeps_what_its_test_metrics_are_made_of(
    keep: str, make: Any, tmp_path: Path
) -> None:
    plain = make(train={"keep": keep, "eval_every": 3})
    plain = plain.model_copy(update={"config": plain.config | {"select_on": "valid/loss"}})
    trial = plain.model_copy(update={"keep": ("predictions",)})
    assert trial.key == plain.key == plain.model_copy(update={"keep": ("adapter",)}).key
    result = run_trial(trial, tmp_path / "run")
    found = read_predictions(tmp_path / "run", result)
    assert found is not None and set(found.scores) == {"test/accuracy", "test/loss"}
    for name, (rows,) in found.scores.items():
        assert len(rows) == 90 and rows.mean() == pytest.approx(result.metrics[name], rel=1e-6)
    data = tasks.load(trial.config["task"], 0)
    assert found.rows == tasks.rows_hash(data, "test") != tasks.rows_hash(data, "valid")
    assert (tmp_path / "run" / PREDICTIONS).stat().st_size < 2000
    again = run_trial(plain, tmp_path / "plain")
    assert again.metrics == result.metrics and not (tmp_path / "plain" / PREDICTIONS).exists()


def test_rows_come_in_the_order_of_their_split(make: Any, tmp_path: Path) -> None:
    """One row at a time gives each row's own score, whatever order batches had."""
    from studies import backbones

    trial = make()
    data = tasks.load(trial.config["task"], 0)
    head = tasks.head(trial.config["task"], data)
    model, processor = backbones.load(trial.config["backbone"], head)
    prepared = tasks.prepare(trial.config["task"], data, processor)
    (scores,) = prepared.measure(model, "test", 32).by_row["loss"]
    for place in (0, 7, 89):
        one = {**data.splits, "test": data.splits["test"][place : place + 1]}
        alone = tasks.prepare(
            trial.config["task"], TaskData(data.info, data.labels, one), processor
        )
        assert alone.evaluate(model, "test", 1)["loss"] == pytest.approx(scores[place], rel=1e-4)


def test_the_accuracy_of_a_suite_is_the_mean_of_its_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    options = (("q", " a"), ("q", " b"))
    items = tuple(Item(options, gold, part=part) for gold, part in ((0, "x"), (0, "y"), (1, "y")))
    made = MultipleChoice.__new__(MultipleChoice)
    made._spec = TaskSpec(name="t")
    made._info = TaskInfo("t", "multiple_choice", {"accuracy": "maximize"}, "", "")
    made._splits = {"test": items}
    sums = [[-1.0, -2.0], [-1.0, -2.0], [-1.0, -2.0]]
    monkeypatch.setattr(MultipleChoice, "_likelihoods", lambda *given: sums)
    import torch

    found = made.measure(torch.nn.Linear(1, 1), "test", 1)
    parts = {name: [part.tolist() for part in rows] for name, rows in found.by_row.items()}
    assert parts["accuracy"] == [[True], [True, False]] and parts["accuracy_y"] == [[True, False]]
    assert found.metrics["accuracy"] == 0.75 and parts["loss"] == [[1.0, 1.0, 2.0]]
    assert set(found.metrics) == set(found.by_row)


def test_what_was_written_is_read(tmp_path: Path) -> None:
    result, arrays = kept({"accuracy": [[1, 0], [1]], "loss": [[0.5, 0.25, 4]]})
    assert read_predictions(tmp_path, result) is None
    write_predictions(tmp_path, "k", "h", arrays)
    found = read_predictions(tmp_path, result)
    assert found is not None and found.rows == "h"
    assert [part.tolist() for part in found.scores["test/accuracy"]] == [[1, 0], [1]]
    assert [path.name for path in tmp_path.iterdir()] == [PREDICTIONS]
    nothing = Result(key="k", status="done", metrics={"test/loss": 1.0})
    write_predictions(tmp_path, "k", "h", {})
    assert read_predictions(tmp_path, nothing).scores == {}


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-30])


def overwritten(path: Path) -> None:
    raw = path.read_bytes()
    path.write_bytes(raw[:60] + b"\xff" * 30 + raw[90:])  # what zlib, not zipfile, stumbles over


def pickled(path: Path) -> None:
    np.savez(path, about=np.array({"key": "k"}, dtype=object))


def miscounted(path: Path) -> None:
    about = {"key": "k", "rows": "h", "lengths": {"accuracy": [5]}}
    np.savez(path, about=np.array(json.dumps(about)), accuracy=np.ones(4, np.float32))


@pytest.mark.parametrize(
    ("damage", "result", "why"),
    [
        (cut, {}, "it is not whole"),
        (overwritten, {}, "it is not whole"),
        (pickled, {}, "it is not whole"),
        (miscounted, {}, r"accuracy has 4 scores for \[5\] rows"),
        (None, {"key": "other"}, "it is of the trial k, and lies beside that of other"),
        (None, {"data": {"rows": {"test": 3}}}, "accuracy has 4 scores, and there are 3 rows"),
        (None, {"metrics": {"test/accuracy": 0.5}}, "its accuracy is 0.75 on average, and test/ac"),
        (
            None,
            {"metrics": {"test/loss": 0.5}},
            "its accuracy is 0.75 on average, and test/accuracy is None",
        ),
    ],
)
def test_a_file_that_does_not_fit_is_refused_by_name(
    damage: Callable[[Path], None] | None, result: dict[str, Any], why: str, tmp_path: Path
) -> None:
    found, arrays = kept({"accuracy": [[1, 0, 1, 1]]}, **result)
    write_predictions(tmp_path, "k", "h", arrays)
    if damage is not None:
        damage(tmp_path / PREDICTIONS)
    with pytest.raises(StudyError, match=rf"predictions\.npz: {why}.*remove this file"):
        read_predictions(tmp_path, found)


STUDY = """\
name: s
question: Which?
backbone: {{name: {bert}}}
task: {{name: {csv}, train_rows: 64, valid_rows: 40, test_rows: 40}}
adapter: {{method: lora, r: 4, alpha: 8, target_modules: [query, value]}}
train: {{max_steps: 2, batch_size: 16}}
arms: [{{name: lora}}, {{name: vera, adapter: {{method: vera, r: 4}}}}]
baseline: lora
objective: {{metric: test/accuracy}}
seeds: [0, 1]
"""


def test_keep_takes_one_or_several(
    tiny_bert: Path, tiny_csv: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    text = STUDY.format(bert=tiny_bert, csv=tiny_csv)
    keys, asked = set(), {}
    for said in ("null", "adapter", "predictions", "[adapter, predictions]", "[]"):
        Path("s.yaml").write_text(f"{text}keep: {said}\n")
        trials = plan(load_study("s.yaml"))
        keys.add(tuple(trial.key for trial in trials))
        asked[said] = trials[0].keep
    assert len(keys) == 1
    assert list(asked.values()) == [
        (), ("adapter",), ("predictions",), ("adapter", "predictions"), (),
    ]  # fmt: skip
    assert Trial.model_validate_json(trials[0].model_dump_json()) == trials[0]
    old = json.loads(trials[0].model_dump_json())
    assert Trial.model_validate(old | {"keep": None}).keep == ()
    assert Trial.model_validate(old | {"keep": "mlflow"}).keep == ("mlflow",)
    for said, why in (
        ("answers", "adapter"),
        ("[mlflow, mlflow]", "each once, got mlflow, mlflow"),
    ):
        Path("s.yaml").write_text(f"{text}keep: {said}\n")
        with pytest.raises(StudyError, match=r"s\.yaml:11: keep") as error:
            load_study("s.yaml")
        assert why in str(error.value)


def test_a_task_without_means_over_rows_is_refused(tmp_path: Path) -> None:
    study = Path(tasks.__file__).parents[1].joinpath("approximation.yaml").read_text()
    said = refusal(tmp_path, study, "question:", "keep: predictions\nquestion:")
    assert "keep: predictions: no metric of matrix_" in said
    assert "is a mean over test rows, so no row has a score: leave it out" in said


@pytest.mark.parametrize("damaged", [False, True])
def test_an_import_brings_predictions_and_refuses_damaged_ones(
    damaged: bool, tmp_path: Path
) -> None:
    trial = Trial(study="s", profile="p", arm="a", seed=0, config={})
    result, arrays = kept({"accuracy": [[1, 0, 1, 1]]}, key=trial.key)
    far = tmp_path / "far" / "x"
    far.mkdir(parents=True)
    (far / "result.json").write_text(result.model_dump_json())
    write_predictions(far, trial.key, "h", arrays)
    if damaged:
        cut(far / PREDICTIONS)
    study = type("Study", (), {"name": "s", "profile": "p"})()
    study.objective_of = lambda task: type("Objective", (), {"metric": "test/accuracy"})
    found = import_results(study, [trial], tmp_path / "far", tmp_path / "runs")
    if damaged:
        [(_, why)] = found.refused
        assert "predictions.npz: it is not whole" in why and not found.taken
        return
    [home] = (tmp_path / "runs").rglob(PREDICTIONS)
    assert found.taken == [trial] and read_predictions(home.parent, result) is not None
