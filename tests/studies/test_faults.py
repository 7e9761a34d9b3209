"""Faults inside a trial: memory, disk and clock; and what a seed decides."""

import errno
import itertools
import json
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from studies import files
from studies.engine.records import Result, Trial, read_result
from studies.engine.trials import environment, metrics_file, seeds, training_run
from studies.engine.trials.training import loop
from studies.engine.trials.training.step import OptimizerStep, Part
from studies.engine.trials.trial import run_trial
from studies.tasks.kinds.text import TextClassification

pytestmark = pytest.mark.slow


def lines(run_dir: Path) -> list[dict[str, float]]:
    text = (run_dir / "metrics.jsonl").read_text()
    return [{k: v for k, v in json.loads(x).items() if k != "seconds"} for x in text.splitlines()]


@pytest.fixture
def trial(make: Any, tiny_bert: Path, tmp_path: Path) -> Trial:
    """Without dropout, whose draws depend on the shape of a batch."""
    folder = tmp_path / "bert"
    folder.mkdir()
    for file in tiny_bert.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    config = json.loads((folder / "config.json").read_text())
    config |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    (folder / "config.json").write_text(json.dumps(config))
    return make(backbone={"name": str(folder)}, task={"train_rows": 100})


def no_more_than(rows: int, monkeypatch: pytest.MonkeyPatch, after: int = 0) -> list[int]:
    """Memory for `rows` rows of training from step `after` on; the sizes that were tried."""
    tried: list[int] = []
    real = OptimizerStep.gradients

    def gradients(self: OptimizerStep, part: Part, items: torch.Tensor) -> Any:
        tried.append(len(part.labels))
        state = self.optimizer.state.values()
        if tried[-1] > rows and max((s["step"].item() for s in state), default=0) >= after:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")
        return real(self, part, items)

    monkeypatch.setattr(OptimizerStep, "gradients", gradients)
    return tried


@pytest.mark.parametrize("after", [0, 3])
def test_a_trial_that_does_not_fit_is_trained_in_parts_of_its_batches(
    after: int, trial: Trial, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = run_trial(trial, tmp_path / "whole")
    assert whole.micro_batch is None and whole.notes == ()
    tried = no_more_than(5, monkeypatch, after)
    result = run_trial(trial, tmp_path / "parts")
    assert result.status == "done", result.failure
    assert result.micro_batch == 4
    starts = [note.split(": ")[:2] for note in result.notes]
    assert starts == [
        ["retried with 8 at once", "16 rows at once"],
        ["retried with 4 at once", "8 rows at once"],
    ]
    assert max(tried[-25:]) == 4  # the last epoch: 100 rows
    assert result.metrics == pytest.approx(whole.metrics, rel=1e-3)
    for got, want in zip(lines(tmp_path / "parts"), lines(tmp_path / "whole"), strict=True):
        assert got == pytest.approx(want, rel=2e-3)  # each step had the same rows


def test_a_trial_that_does_not_fit_at_all_fails_with_a_remedy(
    trial: Trial, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = no_more_than(0, monkeypatch)
    small = trial.model_copy(deep=True)
    small.config["train"]["batch_size"] = 3
    result = run_trial(small, tmp_path / "run")
    assert tried == [3, 1]
    assert result.failure is not None and result.failure.kind == "out_of_memory"
    assert "Lower task.max_length" in result.failure.message


@pytest.mark.parametrize(("rows", "sizes"), [(5, [6, 3]), (2, [6, 3, 1]), (0, [6, 3, 1])])
def test_no_size_is_tried_that_no_batch_has(
    rows: int, sizes: list[int], trial: Trial, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = no_more_than(rows, monkeypatch)
    small = trial.model_copy(deep=True)
    small.config["train"]["batch_size"] = 1000
    small.config["task"]["train_rows"] = 6
    result = run_trial(small, tmp_path / "run")
    assert tried[: len(sizes)] == sizes and (result.status == "done") == (rows > 0)
    assert len(tried) == len(sizes) or rows
    assert result.micro_batch == sizes[-1] and len(result.notes) == len(sizes) - 1


def test_an_evaluation_that_does_not_fit_is_done_in_smaller_batches(
    trial: Trial, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = run_trial(trial, tmp_path / "whole")
    tried: list[int] = []
    real = TextClassification.measure

    def measure(self: Any, model: Any, split: str, batch_size: int, *rest: Any) -> Any:
        tried.append(batch_size)
        if batch_size > 20:
            raise RuntimeError("[enforce fail] DefaultCPUAllocator: not enough memory")
        return real(self, model, split, batch_size, *rest)

    monkeypatch.setattr(TextClassification, "measure", measure)
    result = run_trial(trial, tmp_path / "run")
    assert tried == [64, 32, 16, 16]  # once found, it stays
    assert result.micro_batch is None and len(result.notes) == 2
    assert result.metrics == pytest.approx(whole.metrics, rel=1e-5)


def test_a_disk_that_fills_up_while_metrics_are_written_is_named(
    trial: Trial, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Full(metrics_file.MetricsFile):
        def __init__(self, path: Path) -> None:
            super().__init__(Path("/dev/full"))  # every write: no space left on device

    monkeypatch.setattr(training_run, "MetricsFile", Full)
    result = run_trial(trial, tmp_path / "run")
    assert result.failure is not None and result.failure.kind == "disk_full"
    assert "Free space below --runs, then --retry-failed" in result.failure.message
    assert read_result(tmp_path / "run") == result


def test_a_result_that_cannot_be_written_is_no_result(
    trial: Trial, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(OSError, match="No space left on device"):
        run_trial(trial, tmp_path / "run")
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["metrics.jsonl"]


@pytest.mark.parametrize("jump", [-1e6, 1e6])
def test_a_clock_that_jumps_changes_no_duration(
    jump: float, trial: Trial, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = run_trial(trial, tmp_path / "whole")
    real, calls = time.time, itertools.count()
    monkeypatch.setattr(time, "time", lambda: real() + jump * next(calls))
    result = run_trial(trial, tmp_path / "run")
    assert result.metrics == whole.metrics
    assert result.cost is not None and 0 < result.cost.step_seconds < 600
    assert 0 < result.cost.train_seconds < result.seconds < 600
    times = [json.loads(x)["seconds"] for x in (tmp_path / "run/metrics.jsonl").open()]
    assert times == sorted(times) and 0 <= times[0] and times[-1] < 600


class Reached(Exception):
    """The training would begin now."""


@pytest.fixture
def decided(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """What a trial would begin with, where the seed for one purpose is another."""
    found: dict[str, Any] = {}

    def train(model: torch.nn.Module, loader: Any, settings: Any, **rest: Any) -> None:
        trained = [p.detach().double().sum().item() for p in model.parameters() if p.requires_grad]
        found.update(init=trained, order=list(loader.batch_sampler), dropout=rest["dropout_seed"])
        raise Reached

    def decide(trial: Trial, other: str = "") -> dict[str, Any]:
        def derive(seed: int, purpose: str) -> int:
            return real(seed + (purpose == other), purpose)

        with monkeypatch.context() as patch:
            patch.setattr(seeds, "derive", derive)
            patch.setattr(loop, "train", train)
            result = run_trial(trial, tmp_path / "run")
        assert result.failure is not None and "Reached" in result.failure.message
        return {**found, "split": result.data["hash"]}

    real = seeds.derive
    return decide


@pytest.mark.parametrize("purpose", ["init", "order", "dropout", "split"])
def test_each_source_of_randomness_has_its_own_seed(purpose: str, make: Any, decided: Any) -> None:
    base = decided(make())
    other = decided(make(split_seed=1)) if purpose == "split" else decided(make(), purpose)
    differ = {name for name in base if base[name] != other[name]}
    if purpose == "split":
        differ -= {"order"}  # other rows have other lengths, by which they are grouped
    assert differ == {purpose}
    assert decided(make()) == base


def test_the_deterministic_option_is_in_force_in_the_trial_alone(
    trial: Trial,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> None:
    seen: list[tuple[bool, ...]] = []
    real = OptimizerStep.run

    def run(self: Any, *arguments: Any) -> Any:
        seen.append(flags())
        return real(self, *arguments)

    def flags() -> tuple[bool, ...]:
        kernels, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
        on = torch.are_deterministic_algorithms_enabled()
        return on, kernels.deterministic, kernels.allow_tf32, matmul.allow_tf32

    monkeypatch.setattr(OptimizerStep, "run", run)
    kept = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = True
    request.addfinalizer(lambda: setattr(torch.backends.cuda.matmul, "allow_tf32", kept))
    before = flags()
    exact = trial.model_copy(deep=True)
    exact.config["train"]["deterministic"] = True
    assert run_trial(exact, tmp_path / "run").status == "done"
    assert set(seen) == {(True, True, False, False)}
    assert flags() == before and before[3]
    with pytest.raises(ZeroDivisionError), environment.determinism(True):
        raise ZeroDivisionError
    assert flags() == before


def test_only_what_decides_a_result_is_in_its_key(trial: Trial) -> None:
    def key(**train: Any) -> str:
        config = trial.config | {"train": trial.config["train"] | train}
        return trial.model_copy(update={"config": config}).key

    assert key() == key(checkpoint_minutes=1.0) == key(deterministic=False)
    assert len({key(), key(deterministic=True), key(epochs=2)}) == 3


def test_a_report_says_what_trials_went_through(fabricate: Any) -> None:
    fabricate.add("lora", [0.7, 0.71, 0.72])
    fabricate.add("large", [0.8, 0.81, 0.82])
    pairs: list[tuple[Trial, Result]] = []
    for trial, result in fabricate.pairs:
        if trial.seed > 0:
            notes = tuple(
                f"retried with {rows} at once: {2 * rows} rows at once: CUDA out of memory. Tried"
                for rows in (16, 8)
            )
            result = result.model_copy(update={"micro_batch": 8, "notes": notes})
        pairs.append((trial, result))
    report = fabricate.report(pairs)
    told = "retried with 8 at once: 16 rows at once: CUDA out of memory\n"
    text = report.markdown.read_text()
    assert f"`lora` seeds 1, 2; `large` seeds 1, 2: {told}" in text and "with 16" not in text
