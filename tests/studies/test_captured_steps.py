"""When steps are captured and replayed, and when what they gave is read."""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from again import Again
from torch import Tensor

from adapters.training.capture import CapturedProxies
from studies.engine.definition.train import Train
from studies.engine.trials.failures import DoesNotFit, NotFinite
from studies.engine.trials.metrics_file import MetricsFile
from studies.engine.trials.ranks import Ranks
from studies.engine.trials.training import captured
from studies.engine.trials.training.captured import CapturedSteps
from studies.engine.trials.training.journal import Journal
from studies.engine.trials.training.progress import TrainingProgress
from studies.engine.trials.training.step import OptimizerStep, Part, Work
from studies.engine.trials.trial import run_trial


@pytest.fixture(autouse=True)
def short_warm_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(captured, "WARM_UP", 3)


def test_a_loss_that_is_not_finite_is_named_by_its_step_though_it_is_read_later(
    tmp_path: Path,
) -> None:
    progress, metrics = TrainingProgress(), MetricsFile(tmp_path / "metrics.jsonl")
    journal = Journal(progress, metrics, steps=10, at_once=4, overflows=False)
    nan = float("nan")
    for step, loss in enumerate([3.0, 2.0, nan], start=1):
        journal.add(step, torch.tensor([loss, 1.0], dtype=torch.float64), 0.1 * step, 0.0)
        assert metrics.text == "" and progress.losses == []
    with pytest.raises(NotFinite, match="the training loss is nan at step 3"):
        journal.add(4, torch.tensor([nan, nan], dtype=torch.float64), 0.4, 0.0)
    assert progress.losses == [3.0, 2.0] and len(progress.step_seconds) == 2
    lines = map(json.loads, metrics.text.splitlines())
    assert [line["train/learning_rate"] for line in lines] == [0.1, 0.2]
    journal.add(5, torch.tensor([1.0, float("inf")], dtype=torch.float64), 0.5, 0.0)
    with pytest.raises(NotFinite, match="the gradient norm is inf at step 5"):
        journal.read()
    metrics.close()


def test_what_a_step_gives_more_goes_to_its_check(tmp_path: Path) -> None:
    told: list[Any] = []
    metrics = MetricsFile(tmp_path / "metrics.jsonl")
    journal = Journal(TrainingProgress(), metrics, steps=3, at_once=3, overflows=False)
    journal.add(1, torch.tensor([3.0, 1.0]), 0.1, 0.0)
    journal.add(2, torch.tensor([2.0, 1.0, 7.0, 8.0]), 0.1, 0.0, lambda *each: told.append(each))
    journal.add(3, torch.tensor([1.0, 1.0]), 0.1, 0.0)
    assert told == [(2, [7.0, 8.0])]
    metrics.close()


class Linear(torch.nn.Linear):
    """A model with a mask."""

    def forward(self, x: Tensor, attention_mask: Tensor) -> Tensor:
        return super().forward(x * attention_mask)


def steps(
    on_a_gpu: type[Again], note: Callable[[str], None] = pytest.fail
) -> tuple[CapturedSteps, Callable[..., Work]]:
    model = Linear(3, 1)
    step = OptimizerStep(
        model,
        Train.read("train", {}),
        lambda output, labels, items: (output[:, 0] - labels).square().sum() / items,
        micro_batch=8,
        dtype=torch.float32,
        ranks=Ranks(),
        device=torch.device("cpu"),
    )

    def work(rows: int, mask: float = 0.0) -> Work:
        values = torch.ones(rows, 3)
        values[0, 0] = mask
        batch = {"x": torch.rand(rows, 3), "attention_mask": values, "labels": torch.ones(rows)}
        return step.work([batch])

    return CapturedSteps(model, step, lambda: on_a_gpu, several=False, note=note), work


def test_a_shape_is_captured_when_it_comes_again_and_not_before_the_warm_up(
    on_a_gpu: type[Again],
) -> None:
    steps_, work = steps(on_a_gpu)
    for rows, replayed in ((4, 0), (4, 0), (5, 0), (4, 1), (6, 1), (5, 2), (4, 3), (6, 4)):
        steps_.run(work(rows))
        assert sum(graph.replays for graph in on_a_gpu.made) == replayed
    assert len(on_a_gpu.made) == 3


def test_after_a_renewal_a_shape_is_captured_when_it_comes_again_after_the_warm_up(
    on_a_gpu: type[Again], monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[int] = []
    monkeypatch.setattr(CapturedProxies, "replayed", lambda self: said.append(1))
    steps_, work = steps(on_a_gpu)
    for _ in range(4):
        _, check = steps_.run(work(4))
    assert check is not None and sum(said) == 1  # adapters are told of each replay
    monkeypatch.setattr(CapturedProxies, "judge", lambda self, report: "near")
    check(4, [])
    for rows, replayed in ((5, 1), (5, 1), (5, 1), (4, 1), (4, 2), (5, 3)):
        steps_.run(work(rows))
        assert sum(graph.replays for graph in on_a_gpu.made) == replayed == sum(said)
    check(4, [])  # of a graph that is no longer used: nothing is renewed again
    steps_.run(work(4))
    assert sum(said) == 4


def test_a_step_that_does_not_fit_beside_graphs_is_done_without_them(
    on_a_gpu: type[Again], monkeypatch: pytest.MonkeyPatch
) -> None:
    notes: list[str] = []
    steps_, work = steps(on_a_gpu, notes.append)
    real = OptimizerStep.gradients

    def gradients(self: OptimizerStep, part: Part, items: Tensor) -> Tensor:
        loss = real(self, part, items)
        if len(part.labels) == 5 and steps_._graphs:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return loss

    monkeypatch.setattr(OptimizerStep, "gradients", gradients)
    for _ in range(5):
        steps_.run(work(4))
    twin, _ = steps(on_a_gpu)
    twin._model.load_state_dict(steps_._model.state_dict())
    twin._step.optimizer.load_state_dict(copy.deepcopy(steps_._step.optimizer.state_dict()))
    last = work(5)
    values, _ = steps_.run(last)
    assert torch.equal(values, twin.run(last)[0])
    assert notes == [
        "steps are not captured in CUDA graphs: out of memory: 5 rows at once: CUDA out of memory"
    ]
    for mine, other in zip(steps_._model.parameters(), twin._model.parameters(), strict=True):
        assert torch.equal(mine, other)
    monkeypatch.setattr(OptimizerStep, "gradients", lambda *_: too_large())
    with pytest.raises(DoesNotFit):
        steps_.run(last)


def too_large() -> None:
    raise torch.OutOfMemoryError("CUDA out of memory")


def test_to_be_deterministic_rows_without_padding_are_not_captured(
    on_a_gpu: type[Again], request: pytest.FixtureRequest
) -> None:
    request.addfinalizer(lambda: torch.use_deterministic_algorithms(False))
    torch.use_deterministic_algorithms(True)
    steps_, work = steps(on_a_gpu)
    for mask, replays in ((0.0, 2), (1.0, 2)):
        for _ in range(5):
            steps_.run(work(4, mask))
        assert sum(graph.replays for graph in on_a_gpu.made) == replays


def test_more_shapes_than_there_may_be_graphs_are_not_captured(
    on_a_gpu: type[Again], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(captured, "MOST_GRAPHS", 2)
    steps_, work = steps(on_a_gpu)
    for _ in range(4):
        for rows in (3, 4, 5):
            steps_.run(work(rows))
    assert len(on_a_gpu.made) == 2


@pytest.mark.parametrize("batches", [1, 2])
def test_graphs_are_given_up_for_a_batch_that_fits_without_them(
    make: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    on_a_gpu: Any,
    without_dropout: Path,  # a step that is done again draws anew
    batches: int,
) -> None:
    real, replay = OptimizerStep.gradients, on_a_gpu.replay
    made: list[captured.CapturedSteps] = []
    replaying = []
    init = captured.CapturedSteps.__init__

    def remembered(self: Any, *given: Any, **named: Any) -> None:
        init(self, *given, **named)
        made.append(self)

    def gradients(self: OptimizerStep, *given: Any) -> Any:
        if made and made[-1]._graphs and not replaying:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(self, *given)

    def replayed(self: Any) -> None:
        replaying.append(1)
        try:
            replay(self)
        finally:
            replaying.pop()

    train = {"epochs": 4, "batch_size": 16, "gradient_accumulation": batches}
    backbone = {"name": str(without_dropout)}
    trial = make(backbone=backbone, task={"train_rows": 100}, train=train)
    off = trial.model_copy(deep=True)
    off.config["train"]["capture"] = "off"
    plain = run_trial(off, tmp_path / "off")
    monkeypatch.setattr(captured, "WARM_UP", 1)
    monkeypatch.setattr(on_a_gpu, "replay", replayed)
    monkeypatch.setattr(captured.CapturedSteps, "__init__", remembered)
    monkeypatch.setattr(OptimizerStep, "gradients", gradients)
    result = run_trial(trial, tmp_path / "auto")
    assert result.status == "done" and result.micro_batch is None
    assert any("out of memory" in note for note in result.notes)
    assert result.metrics == pytest.approx(plain.metrics, rel=1e-5)
