"""The parameters of the best evaluation: which are kept, and that they are those again."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from studies.engine.records import BestStep, Trial
from studies.engine.trials.preemption import Preempted, Preemption
from studies.engine.trials.ranks import Ranks
from studies.engine.trials.training.best import Best
from studies.engine.trials.training.loop import TrainingLoop
from studies.engine.trials.training_run import TrainingRun
from studies.engine.trials.trial import run_trial

pytestmark = pytest.mark.slow

ADAPTERS: dict[str, dict[str, Any]] = {
    "lora": {"dropout": 0.2},
    "basis": {
        "basis": "sinc",
        "num_basis": 6,
        "start": "anchored",
        "input_scale": "rms",
        "input_scale_options": {"value": 1.0, "momentum": 0.9},
    },
    "adalora": {"tinit": 5, "tfinal": 2},
    "elalora": {"interval": 1, "initial_steps": 2, "final_steps": 2},
    "dylora": {},
}
# 100 rows: 7 batches an epoch; the rate is the same whatever the number of steps
TRAIN = {"epochs": 2, "eval_every": 2, "warmup_ratio": 0.0, "schedule": "constant", "keep": "best"}


@pytest.fixture
def trial_of(make: Any) -> Any:
    """A trial of a method that keeps the best `select_on`."""

    def build(method: str = "lora", select_on: str = "valid/loss", **train: Any) -> Trial:
        adapter = {"method": method, **ADAPTERS.get(method, {})}
        trial = make(adapter=adapter, task={"train_rows": 100}, train={**TRAIN, **train})
        return trial.model_copy(update={"config": trial.config | {"select_on": select_on}})

    return build


@pytest.fixture
def best_at(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Makes the evaluation after a step the best, whatever it finds."""

    def at(step: int) -> None:
        real = Best.offer

        def offer(self: Best, model: Any, now: int, values: Any) -> None:
            monkeypatch.setattr(Best, "_is_better", lambda self, value: now == step)
            real(self, model, now, values)

        monkeypatch.setattr(Best, "offer", offer)

    return at


def kept_of(best: Best) -> tuple[int, float]:
    kept = best.record(trained=99)
    return kept.step, kept.value


@pytest.mark.parametrize(
    ("higher", "values", "step", "gives_up_at"),
    [
        (True, [0.5, 0.7, 0.7, 0.6, 0.7], 2, 4),  # of equal ones the first
        (False, [0.5, 0.7, 0.4, 0.4, 0.6], 3, 5),
        (True, [0.1, 0.0, 0.2, 0.1, 0.3], 5, None),
    ],
)
def test_the_first_best_is_kept_and_patience_counts_from_it(
    higher: bool, values: list[float], step: int, gives_up_at: int | None
) -> None:
    best = Best("valid/x", higher=higher, patience=2)
    model, gave_up = torch.nn.Linear(1, 1), None
    for now, value in enumerate(values, start=1):
        torch.nn.init.constant_(model.weight, value)
        best.offer(model, now, {"valid/x": value})
        gave_up = gave_up or (now if best.gives_up else None)
    assert kept_of(best) == (step, values[step - 1]) and gave_up == gives_up_at
    before = model.weight.data_ptr()
    best.restore(model)
    assert model.weight.item() == pytest.approx(values[step - 1])
    assert model.weight.data_ptr() == before  # what reads the tensor reads on


@pytest.mark.parametrize("method", ["lora", "basis"])
def test_what_is_kept_is_what_a_shorter_training_ends_with(
    method: str, trial_of: Any, best_at: Any, make: Any, tmp_path: Path
) -> None:
    best_at(6)
    result = run_trial(trial_of(method), tmp_path / "best")
    assert result.status == "done", result.failure
    metrics = result.metrics
    assert result.kept == BestStep(
        step=6, metric="valid/loss", value=metrics["valid/loss"], trained=14
    )
    short = trial_of(method, keep="last", max_steps=6)
    last = run_trial(short, tmp_path / "short")
    assert last.kept is None
    assert {**metrics, "train/loss": 0} == {**last.metrics, "train/loss": 0}


@pytest.mark.parametrize("metric", ["valid/loss", "valid/accuracy"])
def test_the_direction_is_the_metrics_own_and_the_end_counts(
    metric: str, trial_of: Any, tmp_path: Path
) -> None:
    result = run_trial(trial_of(select_on=metric), tmp_path)
    seen = {
        line["step"]: line[metric]
        for line in map(json.loads, (tmp_path / "metrics.jsonl").open())
        if metric in line
    }
    assert list(seen) == [2, 4, 6, 8, 10, 12, 14]
    best = (min if metric == "valid/loss" else max)(seen.values())
    step = next(step for step, value in seen.items() if value == best)
    assert (result.kept.step, result.kept.value) == (step, best)
    assert result.metrics[metric] == best


def test_the_end_may_be_the_best(trial_of: Any, best_at: Any, tmp_path: Path) -> None:
    best_at(14)
    kept = run_trial(trial_of(), tmp_path / "best").kept
    assert (kept.step, kept.trained) == (14, 14)


@pytest.mark.parametrize("method", list(ADAPTERS))
def test_the_kept_model_evaluates_as_it_did(
    method: str, trial_of: Any, best_at: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    best_at(4)
    real, states = TrainingRun._measured, []

    def measured(self: TrainingRun, *arguments: Any) -> dict[str, float]:
        found = real(self, *arguments)
        again = self._measure("valid")
        assert again == {name: found[name] for name in again}
        states.append(getattr(self._model.peft_config["default"], "rank_pattern", None))
        return found

    monkeypatch.setattr(TrainingRun, "_measured", measured)
    result = run_trial(trial_of(method), tmp_path)
    assert result.status == "done", result.failure
    assert result.kept.step == 4 and not states[0]  # AdaLoRA chooses ranks later


@pytest.mark.parametrize("step", [2, pytest.param(6, marks=pytest.mark.thorough)])
@pytest.mark.parametrize("method", list(ADAPTERS))
def test_a_training_cut_off_keeps_what_a_whole_one_keeps(
    method: str, step: int, trial_of: Any, best_at: Any, tmp_path: Path
) -> None:
    best_at(step)
    trial = trial_of(method, patience=4)
    whole = run_trial(trial, tmp_path / "whole")
    assert whole.kept.step == step and whole.kept.trained == step + 8
    cut = tmp_path / "cut"
    for last in (5, 6, whole.kept.trained):
        _run_until(trial, cut, last)
    again = run_trial(trial, cut)
    assert (again.kept, again.metrics) == (whole.kept, whole.metrics)


def _run_until(trial: Trial, run_dir: Path, last: int) -> None:
    preemption, real = Preemption(), TrainingLoop.take
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Preempted):

        def take(self: TrainingLoop, batches: Any) -> None:
            if self.done == last - 1:
                preemption.ask()
            real(self, batches)

        patch.setattr(TrainingLoop, "take", take)
        run_trial(trial, run_dir, preemption)


@pytest.mark.parametrize("when", ["valid", "test"])
def test_a_trial_cut_off_in_its_last_evaluations_keeps_the_same(
    when: str, trial_of: Any, best_at: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    best_at(4)
    trial = trial_of(epochs=1.9)  # 13 steps, the last of which the loop does not evaluate
    whole = run_trial(trial, tmp_path / "whole")
    preemption, real = Preemption(), TrainingRun._measure

    def measure(self: TrainingRun, *splits: str) -> dict[str, float]:
        if splits == (when,) and self._metrics.text.count("\n") >= 13 + 6:
            preemption.ask()
        return real(self, *splits)

    with monkeypatch.context() as patch, pytest.raises(Preempted):
        patch.setattr(TrainingRun, "_measure", measure)
        run_trial(trial, tmp_path / "cut", preemption)
    again = run_trial(trial, tmp_path / "cut")
    assert (again.kept, again.metrics) == (whole.kept, whole.metrics)


def test_patience_ends_a_training_and_says_so(trial_of: Any, best_at: Any, tmp_path: Path) -> None:
    best_at(2)
    result = run_trial(trial_of(patience=3), tmp_path)
    assert (result.kept.step, result.kept.trained) == (2, 8)
    assert result.notes == (
        "training ended after step 8: the last 3 evaluations had no better valid/loss",
    )
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert '"step": 8' in lines[-1] and not any("test/" in line for line in lines)


def test_one_evaluation_is_no_choice_and_that_is_said(trial_of: Any, tmp_path: Path) -> None:
    result = run_trial(trial_of(eval_every=20), tmp_path)
    assert (result.kept.step, result.kept.trained) == (14, 14)
    (note,) = result.notes
    assert note.endswith("train.eval_every 20 is not below the 14 steps of the training")


def test_steps_that_are_replayed_keep_the_same(
    trial_of: Any, best_at: Any, on_a_gpu: Any, tmp_path: Path
) -> None:
    best_at(6)
    trial = trial_of(gradient_accumulation=1)
    captured = run_trial(trial, tmp_path / "captured")
    assert captured.kept.step == 6 and on_a_gpu.made
    off = trial_of(capture="off")
    plain = run_trial(off, tmp_path / "plain")
    assert captured.metrics["valid/loss"] == pytest.approx(plain.metrics["valid/loss"], rel=1e-4)


def test_the_first_processs_value_is_the_one_that_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Ranks, "agreed", lambda self, value: 0.25)
    best = Best("valid/x", higher=True, patience=None)
    best.offer(torch.nn.Linear(1, 1), 1, {"valid/x": 0.25000001, "valid/y": 1.0})
    assert kept_of(best) == (1, 0.25) and best.values == {"valid/x": 0.25, "valid/y": 1.0}
