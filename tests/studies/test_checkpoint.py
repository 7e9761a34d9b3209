"""Checkpoints: a trial that was cut off goes on to the numbers of one that was not."""

import errno
import itertools
import json
import os
import signal
import threading
from pathlib import Path
from typing import Any

import fake_trials
import numpy as np
import pytest
import torch
from damage import flip
from safetensors.torch import load_file
from waiting import wait_until

from studies.engine.command import dispatch
from studies.engine.planning import runs
from studies.engine.records import Trial, write_record
from studies.engine.running.events import Interrupted
from studies.engine.running.local import LocalRunner
from studies.engine.trials import devices
from studies.engine.trials import trial as engine_trial
from studies.engine.trials.preemption import PREEMPTED, Preempted, preemptible
from studies.engine.trials.spectra_file import name_of
from studies.engine.trials.training import checkpoint, loop, resuming
from studies.engine.trials.training.checkpoint import CheckpointError, Identity
from studies.engine.trials.training.loop import TrainingLoop
from studies.engine.trials.trial import run_trial

pytestmark = pytest.mark.slow

LEARNED_GRID = {
    "method": "basis",
    "basis": "sinc",
    "num_basis": 6,
    "grid": "learned",
    "start": "anchored",
    "input_scale": "rms",
    "input_scale_options": {"value": 1.0, "momentum": 0.9},
}
METHODS: dict[str, dict[str, Any]] = {
    "lora": {"method": "lora", "dropout": 0.2},
    "basis": LEARNED_GRID,
    "adalora": {"method": "adalora"},
    "elalora": {"method": "elalora", "interval": 1, "initial_steps": 1, "final_steps": 2},
    "dylora": {"method": "dylora"},
}
# 100 rows: 7 batches an epoch, so the last of its 4 optimizer steps has one batch instead of two
TRAIN = {"epochs": 2, "gradient_accumulation": 2, "eval_every": 3, "warmup_ratio": 0.25}
IDENTITY = Identity("key", {"torch": "2"})


def lines(run_dir: Path) -> list[dict[str, float]]:
    """metrics.jsonl without the times."""
    text = (run_dir / "metrics.jsonl").read_text()
    return [{k: v for k, v in json.loads(x).items() if k != "seconds"} for x in text.splitlines()]


@pytest.fixture
def trial(make: Any) -> Trial:
    return make(adapter=METHODS["lora"], task={"train_rows": 100}, train=TRAIN)


def names(run_dir: Path) -> list[str]:
    return sorted(path.name for path in run_dir.iterdir())


@pytest.mark.parametrize("method", list(METHODS))
def test_a_trial_cut_off_twice_gives_the_bits_of_one_that_was_not(
    method: str, make: Any, run_until: Any, tmp_path: Path, capsys: Any
) -> None:
    trial = make(adapter=METHODS[method], task={"train_rows": 100}, train=TRAIN)
    whole = run_trial(trial, tmp_path / "whole")
    assert whole.status == "done", whole.failure
    cut = tmp_path / "cut"
    run_until(trial, cut, 3)  # its evaluation is left for later
    run_until(trial, cut, 4)  # the end of an epoch
    result = run_trial(trial, cut)
    assert result.metrics == whole.metrics
    assert lines(cut) == lines(tmp_path / "whole")
    assert [line["step"] for line in lines(cut) if "valid/loss" in line] == [3, 6, 8]
    assert result.cost is not None and result.cost.tokens_per_second
    assert "goes on after step 4" in capsys.readouterr().err
    assert names(cut) == ["metrics.jsonl", "result.json"]  # no checkpoint is left


def test_spectra_of_steps_outlive_what_cuts_a_trial_off(
    make: Any, run_until: Any, tmp_path: Path
) -> None:
    plain = make(adapter=LEARNED_GRID, task={"train_rows": 100}, train=TRAIN)
    after = {"after": {"spectra": {"steps": [1, 3, 6]}}}
    trial = plain.model_copy(update={"config": plain.config | after})
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    metrics = run_trial(trial, whole).metrics
    for last in (3, 4, 7):
        run_until(trial, cut, last)
    held = load_file(cut / "checkpoint-7" / checkpoint.TENSORS)
    steps = {name.split(".")[1] for name in held if name.startswith("snapshots.")}
    assert steps == {"1", "3", "6"}
    assert run_trial(trial, cut).metrics == metrics
    assert lines(cut) == lines(whole)
    assert names(cut) == names(whole)
    for step in (None, 1, 3, 6):
        with np.load(whole / name_of(step)) as one, np.load(cut / name_of(step)) as other:
            assert one.files == other.files
            assert all(np.array_equal(one[name], other[name]) for name in one.files)


@pytest.mark.parametrize("last", [5, 7])
def test_a_trial_cut_off_in_mid_epoch_or_before_the_last_evaluation_goes_on(
    last: int, make: Any, run_until: Any, tmp_path: Path
) -> None:
    trial = make(task={"train_rows": 100}, train={**TRAIN, "max_steps": 7})
    whole = run_trial(trial, tmp_path / "whole")
    run_until(trial, tmp_path / "cut", last)
    assert names(tmp_path / "cut") == [f"checkpoint-{last}", "metrics.jsonl"]
    assert run_trial(trial, tmp_path / "cut").metrics == whole.metrics
    assert lines(tmp_path / "cut") == lines(tmp_path / "whole")


def test_a_loss_scale_goes_on_too(
    make: Any, run_until: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = torch.amp.GradScaler
    monkeypatch.setattr(torch.amp, "GradScaler", lambda device: real(device, init_scale=2.0**24))
    backbone = {"dtype": "float16", "attention": "eager"}
    trial = make(backbone=backbone, task={"train_rows": 100}, train={**TRAIN, "schedule": "linear"})
    whole = run_trial(trial, tmp_path / "whole")
    rates = [x["train/learning_rate"] for x in lines(tmp_path / "whole") if "train/loss" in x]
    skipped = sum(one == other for one, other in itertools.pairwise(rates))
    assert 0 < skipped < 7 and rates[-1] > 0  # a step that overflows is none for the schedule
    run_until(trial, tmp_path / "cut", 5)
    assert run_trial(trial, tmp_path / "cut").metrics == whole.metrics
    assert lines(tmp_path / "cut") == lines(tmp_path / "whole")


def test_a_trial_killed_after_a_checkpoint_goes_on_and_repeats_no_evaluation(
    trial: Trial, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = run_trial(trial, tmp_path / "whole")
    often = trial.model_copy(deep=True)
    often.config["train"]["checkpoint_minutes"] = 1e-9
    real = TrainingLoop.take

    def take(self: TrainingLoop, batches: Any) -> None:
        if self.done == 3:  # which was evaluated, and saved after that
            raise KeyboardInterrupt
        real(self, batches)

    with monkeypatch.context() as patch:
        patch.setattr(TrainingLoop, "take", take)
        with pytest.raises(KeyboardInterrupt):
            run_trial(often, tmp_path / "killed")
    assert run_trial(trial, tmp_path / "killed").metrics == whole.metrics
    assert lines(tmp_path / "killed") == lines(tmp_path / "whole")


def test_what_changed_is_in_the_checkpoint_and_frozen_weights_are_not(
    make: Any, run_until: Any, tmp_path: Path
) -> None:
    run_until(make(adapter=LEARNED_GRID, train=TRAIN), tmp_path, 2)
    held = load_file(tmp_path / "checkpoint-2" / checkpoint.TENSORS)
    kinds = {name.removeprefix("model.").split(".")[0] for name in held}
    assert kinds == {"parameter", "buffer", "optimizer", "random"}
    assert all("measured" in name for name in held if name.startswith("model.buffer."))
    assert not any("embeddings" in name or "base_layer" in name for name in held)
    assert {path.suffix for path in (tmp_path / "checkpoint-2").iterdir()} == {
        ".json",
        ".jsonl",
        ".safetensors",
    }


def test_checkpoints_are_taken_by_the_clock_and_the_last_two_are_kept(
    trial: Trial, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[tuple[int, list[str]]] = []
    real = loop.Saver.after_step

    def after_step(self: Any) -> None:
        real(self)
        taken.append((self._training.done, [n for n in names(tmp_path) if "checkpoint" in n]))

    monkeypatch.setattr(loop.Saver, "after_step", after_step)
    often = trial.model_copy(deep=True)
    often.config["train"]["checkpoint_minutes"] = 1e-9
    assert often.key == trial.key  # how often is saved decides no result
    run_trial(often, tmp_path)
    assert taken[4] == (5, ["checkpoint-4", "checkpoint-5"])
    for minutes in (0, None, 60.0):
        taken.clear()
        often.config["train"]["checkpoint_minutes"] = minutes
        run_trial(often, tmp_path)
        assert not any(found for _, found in taken)


def test_a_damaged_checkpoint_is_refused_and_the_one_before_is_taken(
    trial: Trial, run_until: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = run_trial(trial, tmp_path / "whole")
    cut = tmp_path / "cut"
    run_until(trial, cut, 2)
    run_until(trial, cut, 5)
    flip(cut / "checkpoint-5" / checkpoint.TENSORS)
    assert run_trial(trial, cut).metrics == whole.metrics
    said = capsys.readouterr().err
    assert "checkpoint-5 is not used: tensors.safetensors is not what was written" in said
    assert "goes on after step 2" in said


def test_with_no_usable_checkpoint_a_trial_begins_anew(
    trial: Trial, run_until: Any, tmp_path: Path
) -> None:
    whole = run_trial(trial, tmp_path / "whole")
    run_until(trial, tmp_path / "cut", 5)
    (tmp_path / "cut" / "checkpoint-5" / checkpoint.STATE).unlink()
    result = run_trial(trial, tmp_path / "cut")
    assert result.metrics == whole.metrics


def test_a_change_of_device_on_the_way_is_noted(
    trial: Trial, run_until: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(loop, "device_name", lambda: "another GPU")
        run_until(trial, tmp_path, 5)
    result = run_trial(trial, tmp_path)
    assert result.notes == ("the first 5 steps were trained on another device: another GPU",)


def test_a_checkpoint_of_another_version_is_refused_and_the_trial_begins_anew(
    trial: Trial, run_until: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    whole = run_trial(trial, tmp_path / "whole")
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "SCHEMA", 1)  # of transformers' Trainer
        run_until(trial, tmp_path / "cut", 5)
    assert run_trial(trial, tmp_path / "cut").metrics == whole.metrics
    assert lines(tmp_path / "cut") == lines(tmp_path / "whole")
    said = capsys.readouterr().err
    assert "checkpoint-5 is not used: it is of version 1, this code's are 3" in said
    assert "goes on" not in said


def test_a_checkpoint_that_was_being_written_is_ignored_and_cleared_away(
    trial: Trial, tmp_path: Path
) -> None:
    half = tmp_path / ".checkpoint-3"
    half.mkdir()
    (half / checkpoint.TENSORS).write_bytes(b"half")
    assert run_trial(trial, tmp_path).status == "done"
    assert names(tmp_path) == ["metrics.jsonl", "result.json"]


def test_a_full_disk_costs_the_checkpoint_not_the_trial(
    trial: Trial, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    whole = run_trial(trial, tmp_path / "whole")

    def full(*arguments: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(checkpoint, "save_file", full)
    often = trial.model_copy(deep=True)
    often.config["train"]["checkpoint_minutes"] = 1e-9
    assert run_trial(often, tmp_path / "full").metrics == whole.metrics
    assert "none is taken of step 1" in capsys.readouterr().err
    assert names(tmp_path / "full") == ["metrics.jsonl", "result.json"]


def test_tensors_of_another_model_are_refused() -> None:
    model = torch.nn.Linear(2, 3)
    tensors = resuming.model_tensors(model, resuming.versions(model))
    resuming.load_model(model, tensors)
    for wrong in (
        {**tensors, "parameter.bias": torch.ones(4)},
        {**tensors, "parameter.more": torch.ones(1)},
        {"parameter.bias": torch.ones(3)},
    ):
        with pytest.raises(CheckpointError, match="another model's"):
            resuming.load_model(model, wrong)


def test_the_command_says_by_its_exit_code_that_it_was_asked_to_end(
    trial: Trial, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def asked(*arguments: Any) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        raise AssertionError("SIGTERM was not heard")

    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(engine_trial, "run_trial", asked)
    write_record(tmp_path / "trial.json", trial)
    assert engine_trial.main([str(tmp_path)]) == PREEMPTED
    assert signal.getsignal(signal.SIGTERM) == before


def test_sigterm_waits_where_a_step_is_under_way() -> None:
    reached = []
    with pytest.raises(Preempted), preemptible() as preemption:
        with preemption.whole():
            os.kill(os.getpid(), signal.SIGTERM)
            reached.append("the end of the step")
            with preemption.anywhere():
                reached.append("an evaluation")
    assert reached == ["the end of the step"]


@pytest.mark.usefixtures("heard_signals")
def test_ctrl_c_and_the_same_command_again_give_the_same_numbers(
    make: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trial = make(task={"train_rows": 200}, train={"epochs": 6, "batch_size": 4})
    whole = run_trial(trial, tmp_path / "whole")
    study = fake_trials.make_study()
    monkeypatch.setattr(devices, "gpus", lambda: 0)
    run_dir = runs.trial_dir(trial, tmp_path / "runs")

    def runner(left: int) -> LocalRunner:
        return LocalRunner(1, tmp_path / "workers")

    def interrupt() -> None:
        metrics = run_dir / "metrics.jsonl"
        wait_until(lambda: metrics.exists() and metrics.read_text())
        os.kill(os.getpid(), signal.SIGINT)

    watcher = threading.Thread(target=interrupt)
    watcher.start()
    with pytest.raises(Interrupted):
        dispatch.run(study, [trial], tmp_path / "runs", runner)
    watcher.join()
    assert runs.result_of(trial, tmp_path / "runs") is None
    assert list(run_dir.glob("checkpoint-*"))
    dispatch.run(study, [trial], tmp_path / "runs", runner)
    result = runs.result_of(trial, tmp_path / "runs")
    assert result is not None and result.metrics == whole.metrics and result.attempt == 2
    assert lines(run_dir) == lines(tmp_path / "whole")
    assert "goes on after step" in (run_dir / "log.txt").read_text()
    assert not list(run_dir.glob("*checkpoint-*"))
