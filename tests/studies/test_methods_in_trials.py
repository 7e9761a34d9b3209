"""Every registered method as the arm of a real trial, alone and in a worker after others."""

import hashlib
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from python_path import environment
from waiting import wait_until

import adapters
from studies.engine.definition.study import Budget
from studies.engine.records import Result, Trial, read_result
from studies.engine.running import attempts
from studies.engine.running.local import LocalRunner
from studies.engine.running.protocols import Task
from studies.engine.trials.trial import run_trial

OPTIONS = {"aurora": {"alpha": 8}, "vera": {"r": 16}, "fourierft": {"n_frequency": 64}}
METHODS = adapters.list_methods()


@pytest.fixture(scope="module")
def trials(tiny_bert: Path, tiny_csv: Path) -> dict[str, Trial]:
    """A trial of each method, and one whose loss becomes infinite."""
    found = {}
    for method in (*METHODS, "diverges"):
        own = "lora" if method == "diverges" else method
        common = {"method": own, "r": 4, "alpha": 8, "target_modules": ["query", "value"]}
        rate = 1e30 if method == "diverges" else 0.01
        config = {
            "backbone": {"name": str(tiny_bert)},
            "task": {"name": str(tiny_csv), "train_rows": 64, "valid_rows": 40, "test_rows": 40},
            "adapter": {**common, **OPTIONS.get(own, {})},
            "train": {"max_steps": 10, "batch_size": 16, "epochs": 5.0, "learning_rate": rate},
            "split_seed": 0,
        }
        found[method] = Trial(study="s", profile="p", arm=method, seed=0, config=config)
    return found


@pytest.fixture(scope="module")
def alone(trials: dict[str, Trial], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Result]:
    """What each trial finds here, one after the other by name."""
    folder = tmp_path_factory.mktemp("alone")
    return {name: run_trial(trial, folder / name) for name, trial in trials.items()}


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_a_trial_of_every_method_is_done(method: str, alone: dict[str, Result]) -> None:
    result = alone[method]
    assert result.status == "done", result.failure
    assert result.metrics["test/accuracy"] >= 0
    adapted = adapters.get_method(method).config is not None or method in ("bitfit", "full")
    assert (result.cost.trainable_parameters > 66) == adapted
    assert 0 < result.cost.processor_seconds <= result.seconds * 8
    assert result.backbone["sha256"]["model.safetensors"]


def in_a_worker(order: list[Trial], folder: Path) -> tuple[dict[str, Result], set[int]]:
    """What the trials find in one slot, in this order; and the processes that there were."""
    runner, results, processes = LocalRunner(1, folder), {}, set()
    try:
        for trial in order:
            task = Task(trial, folder / trial.arm, "test/accuracy", Budget())
            attempts.prepare(task)
            runner.start(task)
            process = runner._workers[0]._process
            wait_until(runner.poll)
            processes.add(process.pid)  # not there before it is forked
            results[trial.arm] = read_result(task.run_dir)
    finally:
        runner.close()
    return results, processes


@pytest.mark.slow
def test_a_worker_gives_the_same_bits_whatever_ran_before(
    trials: dict[str, Trial], alone: dict[str, Result], tmp_path: Path
) -> None:
    order = list(trials.values())
    random.Random(0).shuffle(order)
    found, processes = in_a_worker(order, tmp_path)
    assert {n: r.metrics for n, r in found.items()} == {n: r.metrics for n, r in alone.items()}
    assert found["diverges"].failure == alone["diverges"].failure
    assert len(processes) == 1, "a worker was replaced: some trial left something behind"


MEDDLING = {
    "torch's default dtype": "torch.set_default_dtype(torch.float64)",
    "torch's anomaly detection": "torch.autograd.set_detect_anomaly(True)",
    "torch's grad mode": "torch.set_grad_enabled(False)",
    "torch's threads": "torch.set_num_threads(3)",
    "torch's determinism": "torch.use_deterministic_algorithms(True)",
    "torch's precision": "torch.set_float32_matmul_precision('medium')",
    "the environment": "os.environ['SEEN'] = '1'",
    "the working directory": "os.chdir('/')",
    "captures of CUDA graphs that failed": "CudaGraph.failures += 1",
    "threads": "threading.Thread(target=threading.Event().wait).start()",
    "child processes": "subprocess.Popen(['cat'], stdin=subprocess.PIPE)",
}


@pytest.mark.slow
def test_what_a_plug_in_may_leave_behind_is_seen() -> None:
    script = (
        "import os, subprocess, sys, threading, torch\n"
        "from studies.engine.trials.process_state import differences, process_state\n"
        "from studies.engine.trials.training.cuda_graph import CudaGraph\n"
        f"for name, line in {MEDDLING!r}.items():\n"
        "    before = process_state()\n    exec(line)\n"
        "    print(name, differences(before, process_state()) == [name], flush=True)\n"
        "os._exit(0)\n"  # the thread would keep it
    )
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment(), input="", capture_output=True, text=True
    )
    assert done.stdout.splitlines() == [f"{name} True" for name in MEDDLING], done.stderr


@pytest.mark.slow
def test_a_plug_in_of_one_study_does_not_reach_another(
    trials: dict[str, Trial], alone: dict[str, Result], tmp_path: Path
) -> None:
    plugin = tmp_path / "plugin.py"
    plugin.write_text(
        "import os\nfrom peft import LoraConfig\n"
        "os.environ['SEEN'] = '1'\n"
        "made = LoraConfig.__post_init__\n"
        "def changed(self):\n    self.lora_alpha = 99\n    made(self)\n"
        "LoraConfig.__post_init__ = changed\n"
    )
    patched = _plugged(trials["lora"], plugin).model_copy(update={"arm": "patched"})
    found, processes = in_a_worker([patched, trials["lora"]], tmp_path / "runs")
    assert found["lora"].metrics == alone["lora"].metrics != found["patched"].metrics
    assert len(processes) == 2
    log = (tmp_path / "runs" / "patched" / "log.txt").read_text()
    assert "this worker is replaced, the trial changed: the environment" in log


@pytest.mark.slow
def test_a_plug_in_that_ends_its_process_fails_by_its_exit_code(
    trials: dict[str, Trial], tmp_path: Path
) -> None:
    plugin = tmp_path / "plugin.py"
    plugin.write_text("import os\nprint('the end', flush=True)\nos._exit(3)\n")
    trial = _plugged(trials["lora"], plugin)
    runner = LocalRunner(1, tmp_path / "workers")
    try:
        task = Task(trial, tmp_path / "run", "test/accuracy", Budget())
        attempts.prepare(task)
        runner.start(task)
        ended: list[Any] = []
        wait_until(lambda: ended.extend(runner.poll()) or ended)
    finally:
        runner.close()
    [(_, exit_)] = ended
    result = attempts.judged(task, 1, exit_, None, "", 0.0)
    assert result.failure.message == "ended with exit code 3 and no result: the end"


def _plugged(trial: Trial, plugin: Path) -> Trial:
    digest = hashlib.sha256(plugin.read_bytes()).hexdigest()
    return trial.model_copy(update={"plugins": (str(plugin),), "plugin_hashes": (digest,)})
