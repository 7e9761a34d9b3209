"""Captured steps, with graphs that do their work again where a GPU would replay it."""

import contextlib
import csv
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from again import Again
from torch import Tensor

from adapters.basis.fitting.batch import PhiBatch
from adapters.training.capture import CapturedProxies
from studies.engine.definition.train import Train
from studies.engine.records import Result, Trial
from studies.engine.trials.preemption import Preempted, Preemption
from studies.engine.trials.training import captured, cuda_graph, loop
from studies.engine.trials.training.step import OptimizerStep, Part
from studies.engine.trials.trial import run_trial

pytestmark = pytest.mark.slow

TRAIN = {"epochs": 4, "batch_size": 16, "eval_every": 5}
BASIS = {"method": "basis", "basis": "sinc", "num_basis": 8, "start": "anchored"}
NOT_CAPTURED = "steps are not captured in CUDA graphs: "


@pytest.fixture(autouse=True)
def short_warm_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(captured, "WARM_UP", 3)


def uncaptured(trial: Trial) -> Trial:
    found = trial.model_copy(deep=True)
    found.config["train"]["capture"] = "off"
    return found


def lines(run_dir: Path) -> list[dict[str, float]]:
    text = (run_dir / "metrics.jsonl").read_text()
    return [{k: v for k, v in json.loads(x).items() if k != "seconds"} for x in text.splitlines()]


def both(trial: Trial, folder: Path) -> tuple[Result, Result]:
    """Captured and not; the same numbers at every step."""
    found = run_trial(trial, folder / "auto"), run_trial(uncaptured(trial), folder / "off")
    assert [result.status for result in found] == ["done", "done"], found[0].failure
    assert found[0].metrics == found[1].metrics
    assert lines(folder / "auto") == lines(folder / "off")
    return found


@pytest.mark.parametrize("batches", [1, 2])
@pytest.mark.parametrize("adapter", [{"dropout": 0.2}, BASIS], ids=["lora", "basis"])
def test_replayed_steps_give_the_numbers_of_steps_that_are_not(
    adapter: dict, batches: int, make: Any, tmp_path: Path, on_a_gpu: type[Again]
) -> None:
    train = {**TRAIN, "gradient_accumulation": batches}
    trial = make(adapter=adapter, task={"train_rows": 100}, train=train)
    result, _ = both(trial, tmp_path)
    assert result.notes == ()
    replays = [graph.replays for graph in on_a_gpu.made]
    # 28 batches of 2 lengths, and 4 of fewer rows; for several batches, updates have a graph too
    assert len(replays) <= 2 + 2 + (batches - 1) and min(replays) >= 1
    assert sum(replays) >= 14


def test_the_parts_of_a_batch_are_replayed_together(
    make: Any, tmp_path: Path, on_a_gpu: type[Again], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = OptimizerStep.gradients

    def gradients(self: OptimizerStep, part: Part, items: Tensor) -> Tensor:
        if len(part.labels) > 4:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(self, part, items)

    monkeypatch.setattr(OptimizerStep, "gradients", gradients)
    result, _ = both(make(train=TRAIN), tmp_path)
    assert result.micro_batch == 4 and sum(graph.replays for graph in on_a_gpu.made) > 10


def test_batches_have_few_shapes_and_the_numbers_of_those_that_are_padded_less(
    make: Any, without_dropout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trial = make(backbone={"name": str(without_dropout)}, train={**TRAIN, "max_steps": 12})
    plain = run_trial(trial, tmp_path / "plain")
    shapes: list[tuple[int, ...]] = []
    real = OptimizerStep.gradients

    def gradients(self: OptimizerStep, part: Part, items: Tensor) -> Tensor:
        shapes.append(tuple(part.inputs["input_ids"].shape))
        return real(self, part, items)

    monkeypatch.setattr(OptimizerStep, "gradients", gradients)
    monkeypatch.setattr(cuda_graph, "on_one_gpu", lambda: True)
    few = run_trial(trial, tmp_path / "few")
    assert {length for _, length in shapes} <= {8, 12} and len(shapes) == 12
    assert few.metrics == pytest.approx(plain.metrics, rel=1e-3)
    for got, want in zip(lines(tmp_path / "few"), lines(tmp_path / "plain"), strict=True):
        assert got == pytest.approx(want, rel=1e-3)


@pytest.mark.parametrize("choices", [{}, {"choices": ["one", "two"]}], ids=["words", "choices"])
def test_lessons_of_a_language_model_are_replayed_to_the_same_numbers(
    choices: dict, tiny_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: Any
) -> None:
    draw = random.Random(0)
    with (tmp_path / "lessons.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("question", "answer", "one", "two"))
        for _ in range(150):
            question = " ".join(draw.choices(("why", "cat", "sat", "the"), k=draw.randint(2, 9)))
            writer.writerow((question, draw.choice(("yes", "no no")), "yes", "no no"))
    task = {"name": str(tmp_path / "lessons.csv"), "template": "Q: {question}\nA:"}
    task |= {"label": "answer", "train_rows": 64, "valid_rows": 8, "test_rows": 8}
    config = {
        "backbone": {"name": str(tiny_llama)},
        "task": {**task, **choices, "max_length": 96},
        "adapter": {"method": "lora", "r": 4, "target_modules": ["q_proj", "v_proj"]},
        "train": {"epochs": 6, "batch_size": 8, "learning_rate": 0.01},
        "split_seed": 0,
    }
    trial = Trial(study="s", profile="p", arm="a", seed=0, config=config)
    plain = run_trial(trial, tmp_path / "plain")
    graphs = request.getfixturevalue("on_a_gpu")
    result, _ = both(trial, tmp_path)
    assert result.notes == () and sum(graph.replays for graph in graphs.made) > 20
    assert result.metrics == pytest.approx(plain.metrics, rel=1e-2)
    for got, want in zip(lines(tmp_path / "auto"), lines(tmp_path / "plain"), strict=True):
        assert got == pytest.approx(want, rel=1e-2, abs=1e-4)


def refused() -> None:
    raise RuntimeError("operation not permitted when stream is capturing")


def too_large() -> None:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")


def draws() -> None:
    torch.rand(3)


@pytest.mark.parametrize(
    ("fails", "why"),
    [
        (refused, "RuntimeError: operation not permitted when stream is capturing"),
        (too_large, "out of memory: CUDA out of memory. Tried to allocate 20.00 GiB"),
        (draws, "its passes draw random numbers on the host"),
    ],
)
def test_where_a_capture_fails_the_training_goes_on_without(
    fails: Callable[[], None], why: str, make: Any, tmp_path: Path, on_a_gpu: type[Again]
) -> None:
    on_a_gpu.fails = staticmethod(fails)
    trial = make(adapter={"dropout": 0.2}, train=TRAIN)
    result, off = both(trial, tmp_path)
    assert result.notes == (NOT_CAPTURED + why,) and off.notes == ()
    tries = 2 if fails is refused else 1  # it may do after another warm-up
    assert len(on_a_gpu.made) == tries and on_a_gpu.made[0].replays == 0
    assert result.micro_batch is None


@pytest.mark.parametrize(
    ("sections", "why"),
    [
        ({"adapter": {"method": "adalora"}}, "decides something between two steps"),
        ({"adapter": {"method": "dylora"}}, "decides something between two steps, or before each"),
        ({"backbone": {"gradient_checkpointing": True}}, "gradient checkpointing keeps"),
        ({"adapter": BASIS, "train": {**TRAIN, "deterministic": True}}, "to be deterministic"),
    ],
    ids=["adalora", "dylora", "checkpointing", "deterministic"],
)
def test_what_cannot_be_captured_is_not_and_is_said_once(
    sections: dict, why: str, make: Any, tmp_path: Path, on_a_gpu: type[Again], capsys: Any
) -> None:
    result, _ = both(make(**{"train": TRAIN, **sections}), tmp_path)
    assert len(result.notes) == 1 and result.notes[0].startswith(NOT_CAPTURED + "")
    assert why in result.notes[0]
    assert capsys.readouterr().err.count(NOT_CAPTURED) == 1 and not on_a_gpu.made


def asked_in_step(last: int, preemption: Preemption) -> Callable[..., None]:
    """`TrainingLoop.take` that is asked to end in step `last`."""
    real = loop.TrainingLoop.take

    def take(self: loop.TrainingLoop, batches: Any) -> None:
        if self.done == last - 1:
            preemption.ask()
        real(self, batches)

    return take


def test_a_training_cut_off_between_replays_goes_on_to_the_same_bits(
    make: Any, tmp_path: Path, on_a_gpu: type[Again], monkeypatch: pytest.MonkeyPatch
) -> None:
    trial = make(adapter={"dropout": 0.2}, task={"train_rows": 100}, train=TRAIN)
    whole = run_trial(trial, tmp_path / "whole")
    for last in (9, 18):
        with monkeypatch.context() as patch, pytest.raises(Preempted):
            patch.setattr(
                loop.TrainingLoop, "take", asked_in_step(last, preemption := Preemption())
            )
            run_trial(trial, tmp_path / "cut", preemption)
    assert run_trial(trial, tmp_path / "cut").metrics == whole.metrics
    assert lines(tmp_path / "cut") == lines(tmp_path / "whole")


class Proxies(CapturedProxies):
    """Proxies whose verdicts are given, one for each replay."""

    verdicts: list[str]

    def judge(self, report: Any) -> Any:
        return self.verdicts.pop(0) if self.verdicts else "good"


@pytest.fixture
def verdicts(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setattr(captured.CapturedProxies, "of", staticmethod(lambda model: Proxies(())))
    monkeypatch.setattr(Proxies, "verdicts", [], raising=False)
    return Proxies.verdicts


def test_steps_are_captured_anew_where_their_proxies_no_longer_do(
    make: Any, tmp_path: Path, on_a_gpu: type[Again], verdicts: list[str]
) -> None:
    verdicts += ["good", "near", "good", "good", "past", "good"]
    result, _ = both(make(train={**TRAIN, "epochs": 6}), tmp_path)
    replays = [graph.replays for graph in on_a_gpu.made]
    shapes = 2
    assert len(replays) <= 3 * shapes and sum(replays) < 48 - 3 * captured.WARM_UP
    assert len(replays) >= 3
    [note] = result.notes
    assert note.startswith("the proxies of phi were past their tolerance in 1 replayed steps")


def test_proxies_that_change_all_the_time_are_not_captured(
    make: Any, tmp_path: Path, on_a_gpu: type[Again], verdicts: list[str], monkeypatch: Any
) -> None:
    verdicts += ["near"] * 200
    monkeypatch.setattr(captured, "MOST_RENEWALS", 3)
    result, _ = both(make(train={**TRAIN, "epochs": 8}), tmp_path)
    assert result.notes == (NOT_CAPTURED + "the proxies of phi had to be changed 4 times",)


@pytest.fixture
def as_captured(monkeypatch: pytest.MonkeyPatch) -> Callable[[], Any]:
    """A context in which phi is fitted as inside a capture; elsewhere as in steps on a GPU."""
    inside = False

    @contextlib.contextmanager
    def context() -> Any:
        nonlocal inside
        inside = True
        yield
        inside = False

    made = PhiBatch.__init__

    def init(self: PhiBatch, *arguments: Any) -> None:
        made(self, *arguments)
        self.lagging = ("cpu",)

    monkeypatch.setattr(PhiBatch, "__init__", init)
    monkeypatch.setattr("adapters.basis.fitting.batch.is_captured", lambda: inside)
    monkeypatch.setattr("basis_zoo.proxy.fit.is_captured", lambda tensor: inside)
    return context


@pytest.mark.parametrize(
    ("family", "batches"),
    [
        ("sinc", 1),
        ("hat", 2),
        pytest.param("sinc", 2, marks=pytest.mark.thorough),
        pytest.param("hat", 1, marks=pytest.mark.thorough),
    ],
)
def test_proxies_follow_a_range_that_grows_while_steps_are_replayed(
    family: str,
    batches: int,
    make: Any,
    without_dropout: Path,
    tmp_path: Path,
    on_a_gpu: type[Again],
    as_captured: Callable[[], Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def capture_(self: Any, work: Callable[[], Tensor]) -> Tensor:
        """Do it, and leave the first replay out."""
        self._work, self._done = work, True
        with as_captured():
            self._values = work().clone()
        return self._values

    def replay(self: Any) -> None:
        self.replays += 1
        if not self._done:
            with as_captured():
                self._values.copy_(self._work())
        self._done = False

    monkeypatch.setattr(on_a_gpu, "capture", capture_)
    monkeypatch.setattr(on_a_gpu, "replay", replay)
    verdicts: list[str] = []
    judge = CapturedProxies.judge

    def judged(self: CapturedProxies, report: Any) -> Any:
        assert len(self.fits) == 1 and len(report) == len(self.fits[0][1].report)
        verdicts.append(judge(self, report))
        return verdicts[-1]

    monkeypatch.setattr(CapturedProxies, "judge", judged)
    trial = make(
        backbone={"name": str(without_dropout)},
        adapter={**BASIS, "basis": family},
        train={"epochs": 10, "gradient_accumulation": batches, "learning_rate": 0.02},
    )
    result = run_trial(trial, tmp_path / "auto")
    plain = run_trial(uncaptured(trial), tmp_path / "off")
    assert result.status == plain.status == "done", result.failure
    assert not any(note.startswith(NOT_CAPTURED) for note in result.notes)
    assert verdicts.count("good") > 10
    assert {"near", "past"} & {*verdicts} or (family, batches) != ("sinc", 1)
    for got, want in zip(lines(tmp_path / "auto"), lines(tmp_path / "off"), strict=True):
        assert got == pytest.approx(want, rel=1e-3, abs=1e-5)


def test_whether_steps_are_captured_is_in_the_key_where_they_are_not(make: Any) -> None:
    trial = make()
    auto = trial.model_copy(deep=True)
    auto.config["train"]["capture"] = "auto"
    assert trial.key == auto.key != uncaptured(trial).key
    assert Train.read("train", yaml.safe_load("capture: off")).capture == "off"
    with pytest.raises(ValueError, match="expected one of auto, off, got 'on'"):
        Train.read("train", {"capture": "on"})


@pytest.mark.parametrize("batches", [1, 2])
def test_a_capture_that_fails_once_is_tried_again_after_a_warm_up(
    batches: int, make: Any, tmp_path: Path, on_a_gpu: type[Again]
) -> None:
    def fails() -> None:
        if len(on_a_gpu.made) == 2:
            raise RuntimeError("a kernel is loaded")

    on_a_gpu.fails = staticmethod(fails)
    trial = make(
        adapter={"dropout": 0.2}, train={**TRAIN, "epochs": 8, "gradient_accumulation": batches}
    )
    result, _ = both(trial, tmp_path)
    assert result.notes == ()
    replays = [graph.replays for graph in on_a_gpu.made]
    assert replays[0] > 0 and replays[1] == 0 and sum(replays[2:]) > 10


def test_what_could_not_be_captured_is_not_tried_again_with_smaller_batches(
    make: Any, tmp_path: Path, on_a_gpu: type[Again], monkeypatch: pytest.MonkeyPatch
) -> None:
    on_a_gpu.fails = staticmethod(too_large)
    real = OptimizerStep.gradients

    def gradients(self: OptimizerStep, part: Part, items: Tensor) -> Tensor:
        if len(part.labels) > 8 and on_a_gpu.made:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(self, part, items)

    monkeypatch.setattr(OptimizerStep, "gradients", gradients)
    result = run_trial(make(train=TRAIN), tmp_path)
    assert result.status == "done" and result.micro_batch == 8 and len(on_a_gpu.made) == 1
    assert [note.split(":")[0] for note in result.notes] == [
        NOT_CAPTURED.removesuffix(": "),
        "retried with 8 at once",
    ]
