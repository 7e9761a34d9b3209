"""What only a GPU can show: the same bits twice, memory that runs out, trials packed by memory.

pytest -m gpu tests/studies/test_on_gpu.py tests/studies/test_ranks.py
"""

import csv
import json
import os
import random
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from waiting import wait_until

from studies.engine.definition.study import Budget
from studies.engine.records import Result, Trial, read_result, write_record
from studies.engine.running import attempts, packing, slots
from studies.engine.running.local import LocalRunner
from studies.engine.running.protocols import Task
from studies.engine.trials import devices
from studies.engine.trials.preemption import PREEMPTED

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
METHODS = [
    {"method": "lora"},
    {"method": "basis", "basis": "sinc", "num_basis": 16, "start": "anchored"},
    {"method": "basis", "basis": "hat", "num_basis": 16, "start": "anchored", "grid": "learned"},
]


def start(trial: Trial, run_dir: Path) -> subprocess.Popen[bytes]:
    """A process for one trial."""
    if not (run_dir / "trial.json").exists():
        write_record(run_dir / "trial.json", trial)
    command = [sys.executable, "-m", "studies.engine.trials.trial", str(run_dir)]
    return subprocess.Popen(command, env=slots.environment(0, 1))


def losses(run_dir: Path) -> list[float]:
    lines = map(json.loads, (run_dir / "metrics.jsonl").read_text().splitlines())
    return [line["train/loss"] for line in lines if "train/loss" in line]


def finished(trial: Trial, run_dir: Path) -> Result:
    assert start(trial, run_dir).wait() == 0
    result = read_result(run_dir)
    assert result is not None and result.status == "done"
    return result


@pytest.mark.parametrize("adapter", METHODS, ids=lambda a: a.get("basis", a["method"]))
def test_the_same_seed_gives_the_same_bits(make: Any, tmp_path: Path, adapter: dict) -> None:
    trial = make(adapter=adapter, train={"deterministic": True, "epochs": 4})
    once, again = (finished(trial, tmp_path / name) for name in ("once", "again"))
    assert once.metrics == again.metrics
    assert losses(tmp_path / "once") == losses(tmp_path / "again")


@pytest.mark.parametrize("adapter", METHODS, ids=lambda a: a.get("basis", a["method"]))
def test_cut_off_and_resumed_gives_the_same_bits(make: Any, tmp_path: Path, adapter: dict) -> None:
    train = {"deterministic": True, "epochs": 40, "checkpoint_minutes": 60}
    trial = make(adapter=adapter, train=train)
    cut = tmp_path / "cut"
    process = start(trial, cut)
    wait_until(lambda: (cut / "metrics.jsonl").exists() and losses(cut))
    process.send_signal(signal.SIGTERM)
    assert process.wait() == PREEMPTED
    assert list(cut.glob("checkpoint-*/manifest.json")) and not (cut / "result.json").exists()
    resumed, whole = finished(trial, cut), finished(trial, tmp_path / "whole")
    assert resumed.metrics == whole.metrics
    assert losses(cut) == losses(tmp_path / "whole")


CAPPED = """
import pathlib, sys, torch
from studies.engine.records import read_trial
from studies.engine.trials.trial import run_trial
run_dir, most = pathlib.Path(sys.argv[1]), int(sys.argv[2])
torch.cuda.set_per_process_memory_fraction(most / torch.cuda.mem_get_info()[1])
sys.exit(run_trial(read_trial(run_dir), run_dir).status != "done")
"""


@pytest.mark.parametrize("adapter", METHODS[:2], ids=lambda a: a.get("basis", a["method"]))
def test_memory_that_runs_out_is_met_with_smaller_batches(
    make: Any, without_dropout: Path, tmp_path: Path, adapter: dict
) -> None:
    words, draw = ("bright", "awful", "film", "plot", "scene", "was", "the", "of"), random.Random(0)
    with (tmp_path / "long.csv").open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["text", "label"])
        for _ in range(5000):
            text = " ".join(draw.choices(words, k=60))
            rows.writerow([text, "good" if text.count("bright") > text.count("awful") else "bad"])
    task = {"name": str(tmp_path / "long.csv"), "max_length": 64, "train_rows": 4096}
    train = {"batch_size": 2048, "eval_batch_size": 16, "epochs": 3}
    # so much that the workspace of cuBLAS, 32 MiB whatever the batch, is little beside it
    trial = make(backbone={"name": str(without_dropout)}, task=task, train=train, adapter=adapter)
    roomy = finished(trial, tmp_path / "roomy")
    assert roomy.cost is not None and roomy.micro_batch is None
    write_record(tmp_path / "tight" / "trial.json", trial)
    most = str(int(0.6 * roomy.cost.peak_memory_bytes))
    command = [sys.executable, "-c", CAPPED, str(tmp_path / "tight"), most]
    assert subprocess.run(command, env=os.environ | slots.environment(0, 1)).returncode == 0
    tight = read_result(tmp_path / "tight")
    assert tight is not None and tight.micro_batch is not None and tight.micro_batch < 2048
    assert any("retried with" in note for note in tight.notes)
    assert losses(tmp_path / "tight") == pytest.approx(losses(tmp_path / "roomy"), rel=1e-2)
    assert tight.metrics["test/accuracy"] == pytest.approx(roomy.metrics["test/accuracy"], abs=0.05)


def test_trials_are_packed_by_what_the_largest_needs(make: Any, tmp_path: Path) -> None:
    said: list[str] = []
    trials = [make(adapter={"r": r}).model_copy(update={"arm": f"r={r}"}) for r in (2, 8)]
    count = packing.measured_slots(trials, tmp_path, said.append)
    peak = packing.Peak.model_validate_json((tmp_path / "peak.json").read_text())
    assert peak.arm == "r=8" and packing.CONTEXT_BYTES < peak.peak_bytes < 4 * 2**30, said
    assert devices.gpus() <= count <= max(devices.cores(), devices.gpus())
    assert f"{count} at once" in said[0]


def test_a_worker_trains_one_trial_after_the_other_with_the_bits_of_each_alone(
    make: Any, tmp_path: Path
) -> None:
    trials = [
        make(seed, adapter=adapter, train={"deterministic": True, "epochs": 4})
        for seed, adapter in enumerate(METHODS)
    ]
    alone = [finished(trial, tmp_path / f"alone-{trial.key}").metrics for trial in trials]
    runner, processes = LocalRunner(1, tmp_path / "workers"), set()
    try:
        for trial, expected in zip([*trials, *trials], [*alone, *alone], strict=True):
            task = Task(trial, tmp_path / trial.key, "test/accuracy", Budget())
            attempts.prepare(task)
            runner.start(task)
            process = runner._workers[0]._process
            wait_until(runner.poll)
            processes.add(process.pid)  # not there before it is forked
            found = read_result(task.run_dir)
            log = (task.run_dir / "log.txt").read_text()
            assert found is not None and found.metrics == expected, log
            assert "replaced" not in log
    finally:
        runner.close()
    assert len(processes) == 1
