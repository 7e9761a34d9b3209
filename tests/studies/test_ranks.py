"""One trial in several processes: the numbers of one process, one result, and no orphan."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from python_path import PYTHON_PATH, environment
from waiting import wait_until

from studies.engine.command import cli
from studies.engine.definition.schema import load_study
from studies.engine.definition.study import Budget
from studies.engine.errors import StudyError
from studies.engine.records import read_result, write_record
from studies.engine.running import local, slots
from studies.engine.running.protocols import Task
from studies.engine.trials import devices, ranks
from studies.engine.trials.trial import run_trial

ROOT = Path(ranks.__file__).resolve().parents[3]


a_gpu_each = pytest.mark.skipif(
    torch.cuda.device_count() == 1, reason="NCCL needs a GPU for each of two processes"
)


def launched(count: int, run_dir: Path, **options: Any) -> subprocess.CompletedProcess[str]:
    env = environment(OMP_NUM_THREADS="1")
    trial = [sys.executable, "-m", "studies.engine.trials.trial", str(run_dir)]
    script = (
        "import sys; from studies.engine.trials.ranks import launch; "
        f"sys.exit(launch({count}, {trial}))"
    )
    command = [sys.executable, "-c", script]
    return subprocess.run(command, env=env, capture_output=True, text=True, **options)


@pytest.mark.slow
@a_gpu_each
def test_two_processes_train_as_one(make: Any, without_dropout: Path, tmp_path: Path) -> None:
    trial = make(
        backbone={"name": str(without_dropout)},
        adapter={"method": "basis", "basis": "sinc", "num_basis": 8, "start": "anchored"},
        # every other batch has one row
        train={"batch_size": 127, "epochs": 3, "eval_every": 3, "keep": "best"},
    )
    config = trial.config | {"select_on": "valid/loss"}
    trial = trial.model_copy(update={"config": config, "keep": ("adapter",)})
    for name in ("one", "two"):
        write_record(tmp_path / name / "trial.json", trial)
    if torch.cuda.is_available():
        # of several GPUs it sees one, as from a dispatcher: Trainer would take them all
        command = [sys.executable, "-m", "studies.engine.trials.trial", str(tmp_path / "one")]
        subprocess.run(command, env=slots.environment(0, 1), check=True)
    else:
        run_trial(trial, tmp_path / "one")
    alone = read_result(tmp_path / "one")
    done = launched(2, tmp_path / "two")
    together = read_result(tmp_path / "two")
    assert done.returncode == 0 and together.status == "done", done.stderr
    assert together.metrics == pytest.approx(alone.metrics, rel=1e-4, abs=1e-6)
    assert together.metrics["train/loss"] != 0
    assert together.kept.step == alone.kept.step and together.kept.trained == 6
    curves = [(tmp_path / name / "metrics.jsonl").read_text() for name in ("one", "two")]
    losses = [
        [
            values["train/loss"]
            for line in curve.splitlines()
            if "train/loss" in (values := json.loads(line))
        ]
        for curve in curves
    ]
    assert len(losses[0]) == 6 and losses[0] == pytest.approx(losses[1], rel=1e-4)
    assert together.environment["processes"] == 2 and "processes" not in alone.environment
    left = sorted(path.name for path in (tmp_path / "two").iterdir())
    assert left == ["adapter", "metrics.jsonl", "result.json", "trial.json"]


@pytest.mark.thorough
@a_gpu_each
def test_a_loss_that_is_not_finite_ends_all_with_one_result(make: Any, tmp_path: Path) -> None:
    trial = make(train={"learning_rate": 1e30, "warmup_ratio": 0.0})
    write_record(tmp_path / "trial.json", trial)
    assert launched(2, tmp_path).returncode == 1
    failure = read_result(tmp_path).failure
    assert (failure.kind, failure.message) == ("not_finite", "the training loss is nan at step 2")


def lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


SLEEPER = """
import os, pathlib, sys, time
pathlib.Path(sys.argv[1], os.environ["BASIS_ZOO_RANK"]).write_text(str(os.getpid()))
if sys.argv[2] == os.environ["BASIS_ZOO_RANK"]:
    sys.exit(9)
time.sleep(120)
pathlib.Path(sys.argv[1], os.environ["BASIS_ZOO_RANK"] + "-slept").touch()
"""


def test_one_process_that_fails_ends_the_others(tmp_path: Path) -> None:
    assert ranks.launch(3, [sys.executable, "-c", SLEEPER, str(tmp_path), "1"]) == 9
    assert not list(tmp_path.glob("*-slept"))
    pids = [path.read_text() for path in tmp_path.iterdir()]
    assert not any(lives(int(pid)) for pid in pids if pid)  # one may have ended before it wrote


def test_no_process_outlives_the_launcher(tmp_path: Path) -> None:
    script = (
        "import sys; from studies.engine.trials.ranks import launch; "
        f"launch(2, [sys.executable, '-c', {SLEEPER!r}, {str(tmp_path)!r}, 'none'])"
    )
    launcher = subprocess.Popen([sys.executable, "-c", script], cwd=ROOT)
    wait_until(lambda: len([path for path in tmp_path.iterdir() if path.read_text()]) == 2)
    pids = [int(path.read_text()) for path in tmp_path.iterdir()]
    assert all(map(lives, pids))
    launcher.send_signal(signal.SIGKILL)
    launcher.wait()
    wait_until(lambda: not any(map(lives, pids)))


DIVERGED = """
import pathlib, sys, torch
from studies.engine.trials.ranks import joined, leave, ranks
try:
    with joined(pathlib.Path(sys.argv[1])):
        model = torch.nn.Linear(2, 2, device="cuda" if torch.cuda.is_available() else "cpu")
        torch.nn.init.constant_(model.weight, 1.0)
        torch.nn.init.constant_(model.bias, float(ranks().rank))
        ranks().check_equal(model)
except RuntimeError as error:
    print(error, file=sys.stderr)
    leave(1)
"""


@pytest.mark.slow
@a_gpu_each
def test_parameters_that_differ_are_refused(tmp_path: Path, monkeypatch, capfd) -> None:
    monkeypatch.setenv("PYTHONPATH", PYTHON_PATH)
    assert ranks.launch(2, [sys.executable, "-c", DIVERGED, str(tmp_path)]) == 1
    assert "Set budget.gpus_per_trial: 1" in capfd.readouterr().err


def test_a_slot_gets_its_gpus_and_a_process_one_of_them(monkeypatch) -> None:
    monkeypatch.setattr(devices, "gpus", lambda: 4)
    monkeypatch.setattr(devices, "cores", lambda: 16)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert slots.default_slots(2) == 2 and slots.default_slots(8) == 1
    given = [slots.environment(slot, 2, 2) for slot in range(2)]
    assert [each["CUDA_VISIBLE_DEVICES"] for each in given] == ["0,1", "2,3"]
    monkeypatch.setattr(os, "environ", given[1])
    own = [ranks._environment(rank, 2, "file") for rank in range(2)]
    assert [each["CUDA_VISIBLE_DEVICES"] for each in own] == ["2", "3"]
    assert {each["OMP_NUM_THREADS"] for each in own} == {"4"}


def test_the_budget_says_how_many(monkeypatch) -> None:
    assert Budget().gpus_per_trial == 1
    with pytest.raises(ValueError, match="greater than or equal to 1"):
        Budget(gpus_per_trial=0)


def test_a_study_starts_its_trials_in_as_many_processes(monkeypatch, tmp_path: Path) -> None:
    path = tmp_path / "s.yaml"
    path.write_text(STUDY)
    study = load_study(path)
    monkeypatch.setattr(devices, "gpus", lambda: 2)
    with pytest.raises(StudyError, match=r"s\.yaml:6: budget\.gpus_per_trial: .* 2 GPUs, got 3"):
        cli.local_runner(None, tmp_path, study, print, [], 2)
    monkeypatch.setattr(devices, "gpus", lambda: 4)
    made = []
    monkeypatch.setattr(local, "LocalRunner", lambda *arguments: made.append(arguments))
    cli.local_runner(None, tmp_path, study, print, [], 2)
    assert made == [(1, tmp_path / "s" / "embedded" / "workers", 3)]


@pytest.mark.thorough
@a_gpu_each
def test_a_worker_trains_a_trial_in_several_processes(make: Any, tmp_path: Path) -> None:
    runner = local.LocalRunner(1, tmp_path / "workers", 2)
    try:
        trial, run_dir = make(), tmp_path / "run"
        write_record(run_dir / "trial.json", trial)
        runner.start(Task(trial, run_dir, "test/accuracy", Budget()))
        wait_until(runner.poll)
        assert read_result(run_dir).environment["processes"] == 2
    finally:
        runner.close()


STUDY = """\
name: s
question: Which?
adapter: {method: lora}
sweep: {adapter.r: [2, 4]}
baseline: "r=2"
budget: {gpus_per_trial: 3}
objective: {metric: test/accuracy}
"""
