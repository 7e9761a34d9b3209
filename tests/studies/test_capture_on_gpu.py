"""What only a GPU can show of captured steps: the same numbers, and captures that fail for real.

pytest -m gpu tests/studies/test_capture_on_gpu.py
"""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from waiting import wait_until

from studies.engine.records import Result, Trial, read_result, write_record
from studies.engine.running import slots
from studies.engine.trials.devices import deterministic_variables
from studies.engine.trials.preemption import PREEMPTED

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
LORA = {"method": "lora", "dropout": 0.2}
SINC = {"method": "basis", "basis": "sinc", "num_basis": 16, "start": "anchored"}
RANGE = {**SINC, "input_scale": "range"}
HAT = {**SINC, "basis": "hat", "grid": "learned", "input_scale": "rms",
       "input_scale_options": {"value": 1.0, "momentum": 0.9}}  # fmt: skip
PENALTIES = {"roughness": 1e-4, "stable_rank": 1e-3, "amplitude_l1": 1e-2, "orthogonality": 1e-3}
TRAIN = {"epochs": 6, "eval_every": 20}  # 48 steps, every 8th with fewer rows
NOT_CAPTURED = "steps are not captured in CUDA graphs: "

COUNTED = """
import pathlib, sys, torch
from studies.engine.records import read_trial
from studies.engine.trials.preemption import PREEMPTED, Preempted, preemptible
from studies.engine.trials.training import captured, captured_forward, cuda_graph, step
from studies.engine.trials.trial import run_trial
folder, counts = pathlib.Path(sys.argv[1]), {"capture": 0, "replay": 0}
captured_forward.PLAINLY = 10**9  # only steps are counted
for name in counts:
    def counted(self, *given, name=name, real=getattr(cuda_graph.CudaGraph, name)):
        counts[name] += 1
        return real(self, *given)
    setattr(cuda_graph.CudaGraph, name, counted)
exec(sys.argv[2])
try:
    with preemptible() as preemption:
        result = run_trial(read_trial(folder), folder, preemption)
except Preempted:
    sys.exit(PREEMPTED)
(folder / "counts").write_text(" ".join(map(str, counts.values())))
sys.exit(result.status != "done")
"""
"""Runs a trial in a process that counts captures and replays, after a given line."""


def start(trial: Trial, run_dir: Path, line: str = "") -> subprocess.Popen[bytes]:
    """A process for one trial."""
    if not (run_dir / "trial.json").exists():
        write_record(run_dir / "trial.json", trial)
    variables = deterministic_variables(trial.config["train"])
    env = os.environ | slots.environment(0, 1) | variables
    return subprocess.Popen([sys.executable, "-c", COUNTED, str(run_dir), line], env=env)


def finished(trial: Trial, run_dir: Path, line: str = "") -> tuple[Result, int, int]:
    """The result, and how many captures and replays there were."""
    assert start(trial, run_dir, line).wait() == 0
    result = read_result(run_dir)
    assert result is not None
    captures, replays = (run_dir / "counts").read_text().split()
    return result, int(captures), int(replays)


def off(trial: Trial) -> Trial:
    found = trial.model_copy(deep=True)
    found.config["train"]["capture"] = "off"
    return found


def losses(run_dir: Path) -> list[float]:
    lines = map(json.loads, (run_dir / "metrics.jsonl").read_text().splitlines())
    return [line["train/loss"] for line in lines if "train/loss" in line]


@pytest.mark.parametrize("batches", [1, 2])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_captured_and_not_give_the_same_bits_where_they_are_to_repeat(
    make: Any, tmp_path: Path, dtype: str, batches: int
) -> None:
    train = {**TRAIN, "deterministic": True, "gradient_accumulation": batches}
    task = {"train_rows": 120}  # the last batch of an epoch has half of the rows
    trial = make(adapter=LORA, backbone={"dtype": dtype}, task=task, train=train)
    result, captures, replays = finished(trial, tmp_path / "auto")
    plain, *none = finished(off(trial), tmp_path / "off")
    assert result.notes == plain.notes == () and none == [0, 0]
    assert captures <= 8 and replays > 24
    assert losses(tmp_path / "auto") == losses(tmp_path / "off")
    assert result.metrics == plain.metrics


@pytest.mark.parametrize("batches", [1, 2])
@pytest.mark.parametrize("adapter", [LORA, SINC, RANGE, HAT], ids=["lora", "sinc", "range", "hat"])
def test_captured_and_not_give_the_same_numbers_to_rounding(
    make: Any, tmp_path: Path, without_dropout: Path, adapter: dict, batches: int
) -> None:
    trial = make(
        adapter={**adapter, "r": 4},
        backbone={"name": str(without_dropout)},
        train={**TRAIN, "learning_rate": 2e-3, "gradient_accumulation": batches},
    )
    result, captures, replays = finished(trial, tmp_path / "auto")
    plain, *_ = finished(off(trial), tmp_path / "off")
    assert not any(note.startswith(NOT_CAPTURED) for note in result.notes), result.notes
    assert captures >= 1 and replays > 16
    assert losses(tmp_path / "auto") == pytest.approx(losses(tmp_path / "off"), rel=2e-3)
    assert result.metrics["valid/loss"] == pytest.approx(plain.metrics["valid/loss"], rel=5e-3)


@pytest.mark.parametrize("batches", [1, 2])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_penalties_and_schedules_are_the_same_in_replayed_steps(
    make: Any, tmp_path: Path, without_dropout: Path, dtype: str, batches: int
) -> None:
    trial = make(
        adapter={**SINC, "r": 4, "input_scale": 2.0},
        backbone={"name": str(without_dropout), "dtype": dtype},
        train={**TRAIN, "learning_rate": 2e-3, "gradient_accumulation": batches,
               "penalties": PENALTIES, "phi_rate": 2.0, "phi_from": 0.25, "phi_until": 0.75,
               "bandwidth_to": 1.5, "input_scale_to": 2.0},
    )  # fmt: skip
    result, captures, replays = finished(trial, tmp_path / "auto")
    plain, *_ = finished(off(trial), tmp_path / "off")
    assert not any(note.startswith(NOT_CAPTURED) for note in result.notes), result.notes
    assert captures >= 1 and replays > 16
    rough = 2e-3 if dtype == "float32" else 2e-2
    assert losses(tmp_path / "auto") == pytest.approx(losses(tmp_path / "off"), rel=rough)
    for name in PENALTIES:
        mine, other = (curve(tmp_path / d, f"train/penalty/{name}") for d in ("auto", "off"))
        assert len(mine) >= 24 and mine == pytest.approx(other, rel=5 * rough), name
    assert result.metrics["valid/loss"] == pytest.approx(plain.metrics["valid/loss"], rel=3 * rough)


@pytest.mark.parametrize("adapter", [LORA, SINC, HAT], ids=["lora", "sinc", "hat"])
def test_evaluation_is_replayed_with_the_numbers_of_its_step(
    make: Any, tmp_path: Path, without_dropout: Path, adapter: dict
) -> None:
    trial = make(
        adapter=adapter,
        backbone={"name": str(without_dropout)},
        train={**TRAIN, "learning_rate": 2e-3, "eval_batch_size": 4},
    )
    line = "captured_forward.PLAINLY = 1; captured.MOST_GRAPHS = 0"
    result, captures, replays = finished(trial, tmp_path / "auto", line)
    plain, *_ = finished(off(trial), tmp_path / "off")
    assert result.notes == plain.notes and captures >= 4 and replays > captures
    for name in ("valid/loss", "test/loss"):
        assert result.metrics[name] == pytest.approx(plain.metrics[name], rel=5e-3)
    assert curve(tmp_path / "auto") == pytest.approx(curve(tmp_path / "off"), rel=5e-3)


def curve(run_dir: Path, name: str = "valid/loss") -> list[float]:
    """The values of a metric, by step."""
    lines = map(json.loads, (run_dir / "metrics.jsonl").read_text().splitlines())
    return [line[name] for line in lines if name in line]


def test_steps_that_are_captured_anew_give_the_same_numbers(
    make: Any, tmp_path: Path, without_dropout: Path
) -> None:
    trial = make(
        adapter=SINC,  # whose proxies are never exact
        backbone={"name": str(without_dropout)},
        train={**TRAIN, "epochs": 12, "learning_rate": 2e-3},
    )
    # every error is near the tolerance, so all that is read asks for new captures
    line = "from adapters.training import capture; capture.RENEW_AT = 1e-12"
    line += "; captured.MOST_RENEWALS = 99"
    _, captures, replays = finished(trial, tmp_path / "anew", line)
    finished(off(trial), tmp_path / "off")
    assert captures >= 4 and replays > 16
    assert losses(tmp_path / "anew") == pytest.approx(losses(tmp_path / "off"), rel=5e-3)


def test_cut_off_between_replays_and_resumed_gives_the_same_bits(make: Any, tmp_path: Path) -> None:
    train = {"deterministic": True, "epochs": 60, "checkpoint_minutes": 60}
    trial, cut = make(adapter=LORA, train=train), tmp_path / "cut"
    process = start(trial, cut)
    wait_until(lambda: (cut / "metrics.jsonl").exists() and len(losses(cut)) > 20)
    process.send_signal(signal.SIGTERM)
    assert process.wait() == PREEMPTED
    resumed, _, replays = finished(trial, cut)
    whole, *_ = finished(trial, tmp_path / "whole")
    assert replays > 0 and resumed.notes == ()
    assert resumed.metrics == whole.metrics
    assert losses(cut) == losses(tmp_path / "whole")


FAIL = """
real = step.OptimizerStep.run
def run(self, work):
    if torch.cuda.is_current_stream_capturing():
        {}
    return real(self, work)
step.OptimizerStep.run = run
import atexit
failures = folder / "failures"
atexit.register(lambda: failures.write_text(str(cuda_graph.CudaGraph.failures)))
"""


@pytest.mark.parametrize(
    ("fault", "word"),
    [
        ("real(self, work); work.items.item()", "Error"),  # waits for the device
        ("real(self, work); torch.empty(2**50, device='cuda')", "out of memory"),
        ("real(self, work); torch.rand(1)", "random numbers on the host"),
        ("raise ValueError('of its own')", "ValueError: of its own"),
    ],
)
def test_a_capture_that_fails_leaves_no_trace_in_the_numbers(
    make: Any, tmp_path: Path, fault: str, word: str
) -> None:
    trial = make(adapter=LORA, train={**TRAIN, "deterministic": True})
    result, captures, replays = finished(trial, tmp_path / "failing", FAIL.format(fault))
    plain, *_ = finished(off(trial), tmp_path / "off")
    assert captures in (1, 2) and replays == 0  # some faults are given another chance
    [note] = result.notes
    assert note.startswith(NOT_CAPTURED) and word in note
    # by which the worker knows that it is to be replaced; that of random numbers is whole
    assert int((tmp_path / "failing/failures").read_text()) == captures * ("host" not in word)
    assert losses(tmp_path / "failing") == losses(tmp_path / "off")
    assert result.metrics == plain.metrics


@pytest.mark.parametrize(
    ("sections", "why"),
    [
        ({"adapter": {"method": "adalora"}}, "decides something between two steps"),
        ({"adapter": {"method": "dylora"}}, "or before each"),
        ({"backbone": {"gradient_checkpointing": True}}, "gradient checkpointing"),
        ({"backbone": {"dtype": "float16"}}, "float16"),
        ({"adapter": SINC, "train": {**TRAIN, "deterministic": True}}, "to be deterministic"),
    ],
    ids=["adalora", "dylora", "checkpointing", "float16", "deterministic"],
)
def test_what_cannot_be_captured_trains_without(
    make: Any, tmp_path: Path, sections: dict, why: str
) -> None:
    result, captures, replays = finished(make(**{"train": TRAIN, **sections}), tmp_path)
    assert (captures, replays) == (0, 0)
    assert len(result.notes) == 1 and why in result.notes[0]


def test_a_loss_that_is_not_finite_is_named_by_its_step(make: Any, tmp_path: Path) -> None:
    line = """
real = step.OptimizerStep.set_rate
taken = []
def set_rate(self, factor):
    taken.append(1)
    return real(self, float("inf") if len(taken) == 20 else factor)
step.OptimizerStep.set_rate = set_rate
"""
    trial = make(adapter={"method": "lora"}, train={"epochs": 6})
    assert start(trial, tmp_path, line).wait() == 1
    result = read_result(tmp_path)
    assert result is not None and result.failure is not None
    assert result.failure.message == "the training loss is nan at step 21"
    assert len(losses(tmp_path)) == 20


WORKER = """
import pathlib, sys, torch
from studies.engine.records import read_trial
from studies.engine.trials import worker
from studies.engine.trials.trial import run_trial
worker.import_what_trials_need()
for folder in map(pathlib.Path, sys.argv[1:]):
    assert run_trial(read_trial(folder), folder).status == "done"
    worker._clean_up()
    print(torch.cuda.memory_allocated(), torch.cuda.memory_reserved())
"""


def test_trials_of_one_process_leave_no_memory_behind(make: Any, tmp_path: Path) -> None:
    folders = [tmp_path / str(number) for number in range(4)]
    for folder in folders:
        write_record(folder / "trial.json", make(adapter=SINC, train=TRAIN))
    done = subprocess.run(
        [sys.executable, "-c", WORKER, *map(str, folders)],
        env=os.environ | slots.environment(0, 1), capture_output=True, text=True, check=True,
    )  # fmt: skip
    first, *_, last = [tuple(map(int, line.split())) for line in done.stdout.splitlines()]
    assert last <= first
