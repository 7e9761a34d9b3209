"""Whole trials of a tiny model: what they write, what repeats, and how they fail."""

import errno
import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from python_path import environment
from torch.optim.optimizer import register_optimizer_step_pre_hook

import adapters
from studies.engine.records import Result, read_result, write_record
from studies.engine.trials.failures import LONGEST, NotFinite, failure_of
from studies.engine.trials.trial import run_trial

pytestmark = pytest.mark.slow

ADAPTERS: dict[str, dict[str, Any]] = {
    "lora": {"method": "lora"},
    "basis": {"method": "basis", "basis": "sinc", "num_basis": 8, "start": "anchored"},
    "head_only": {"method": "head_only"},
    "full": {"method": "full"},
}


def lines(run_dir: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("method", list(ADAPTERS))
def test_a_trial_writes_metrics_cost_data_and_environment(
    method: str, make: Any, tmp_path: Path
) -> None:
    trial = make(adapter=ADAPTERS[method], train={"eval_every": 3})
    result = run_trial(trial, tmp_path)
    assert result.status == "done", result.failure
    assert read_result(tmp_path) == result and result.key == trial.key
    assert sorted(path.name for path in tmp_path.iterdir()) == ["metrics.jsonl", "result.json"]
    names = {
        f"{split}/{m}" for split in ("valid", "test") for m in ("accuracy", "macro_f1", "loss")
    }
    assert names | {"train/loss"} <= set(result.metrics)
    assert all(math.isfinite(value) for value in result.metrics.values())
    assert {"python", "torch", "transformers", "peft", "device"} <= set(result.environment)
    assert result.data["rows"] == {"train": 128, "valid": 60, "test": 90}
    cost = result.cost
    assert cost is not None and cost.step_seconds > 0 and cost.tokens_per_second
    assert cost.data_share is not None and 0 < cost.data_share < 1
    assert cost.peak_memory_bytes > 10**7 and cost.adapter_parameters <= cost.trainable_parameters
    assert (cost.phi_parameters > 0) == (method == "basis")
    written = lines(tmp_path)
    steps = [line["step"] for line in written if "train/loss" in line]
    assert steps == list(range(1, 9))
    assert all({"train/learning_rate", "train/grad_norm"} <= set(written[i]) for i in (0, 1))
    assert [line["step"] for line in written if "valid/accuracy" in line] == [3, 6, 8]
    assert ["test/accuracy" in line for line in written].count(True) == 1
    if method == "basis":
        assert "phi/non_affine_share" in result.metrics


def test_a_trial_learns(make: Any, tmp_path: Path) -> None:
    trial = make(adapter={"method": "full"}, train={"epochs": 6, "learning_rate": 5e-3})
    result = run_trial(trial, tmp_path)
    assert result.metrics["test/accuracy"] > result.data["majority"]["test"] + 0.3
    losses = [line["train/loss"] for line in lines(tmp_path) if "train/loss" in line]
    assert losses[-1] < losses[0] / 2


def test_the_same_trial_gives_the_same_numbers_and_another_seed_others(
    make: Any, tmp_path: Path
) -> None:
    first, again, other = (
        run_trial(make(seed=seed, adapter=ADAPTERS["basis"]), tmp_path / name)
        for seed, name in ((0, "first"), (0, "again"), (1, "other"))
    )
    assert first.metrics == again.metrics
    assert first.metrics["train/loss"] != other.metrics["train/loss"]
    assert first.data == other.data  # a trial's seed never changes its rows
    split = run_trial(make(split_seed=1), tmp_path / "split")
    assert split.data["hash"] != first.data["hash"]


def test_a_diverging_trial_stops_at_once_and_names_the_step(make: Any, tmp_path: Path) -> None:
    result = run_trial(make(train={"learning_rate": 1e30, "warmup_ratio": 0.0}), tmp_path)
    assert result.status == "failed" and result.failure is not None
    assert result.failure.kind == "not_finite"
    assert result.failure.message == "the training loss is nan at step 2"
    assert len(lines(tmp_path)) == 1
    assert read_result(tmp_path) == result


def test_a_trial_that_raises_records_one_line(
    make: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = run_trial(make(adapter={"target_modules": ["no_such_module"]}), tmp_path)
    assert result.status == "failed" and result.failure is not None
    assert result.failure.kind == "exception"
    assert "matches no layer" in result.failure.message
    assert "\n" not in result.failure.message and "Traceback" not in result.failure.message
    assert "Traceback" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["result.json"]


def test_an_earlier_result_does_not_survive_a_new_attempt(
    make: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trial = make()
    write_record(tmp_path / "result.json", Result(key=trial.key, status="done"))

    def killed(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(adapters, "attach", killed)
    with pytest.raises(KeyboardInterrupt):
        run_trial(trial, tmp_path)
    assert read_result(tmp_path) is None


def without_dropout(tiny_bert: Path, folder: Path) -> dict[str, str]:
    folder.mkdir()
    for file in tiny_bert.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    config = json.loads((folder / "config.json").read_text())
    config |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    (folder / "config.json").write_text(json.dumps(config))
    return {"name": str(folder)}


def test_accumulated_batches_make_the_gradient_of_one_batch(
    make: Any, tiny_bert: Path, tmp_path: Path
) -> None:
    backbone = without_dropout(tiny_bert, tmp_path / "bert")
    # all rows in one optimizer step, whatever their order; of even classes the gradient is about 0
    task = {"train_rows": 16, "stratify": False}
    found = []
    for size, batches in ((16, 1), (8, 2), (4, 4)):
        train = {"batch_size": size, "gradient_accumulation": batches, "max_grad_norm": 0.1}
        folder = tmp_path / f"{size}"
        run_trial(make(backbone=backbone, task=task, train=train), folder)
        (first, *_) = lines(folder)
        found.append((first["train/loss"], first["train/grad_norm"]))
    for other in found[1:]:
        assert other == pytest.approx(found[0], rel=1e-4)
    assert found[0][1] > 0.2  # so that clipping at 0.1 had something to do


def test_gradients_are_clipped_once_a_step_as_the_adapters_say(
    make: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clips: list[float] = []
    stepped: list[float] = []
    real = adapters.clip_gradients

    def spy(trained: adapters.Trained, max_norm: float) -> torch.Tensor:
        clips.append(max_norm)
        return real(trained, max_norm)

    def before_step(optimizer: torch.optim.Optimizer, *arguments: object) -> None:
        grads = [p.grad for group in optimizer.param_groups for p in group["params"]]
        stepped.append(torch.linalg.vector_norm(torch.stack([g.norm() for g in grads])).item())

    monkeypatch.setattr(adapters, "clip_gradients", spy)
    hook = register_optimizer_step_pre_hook(before_step)
    try:
        train = {"batch_size": 8, "gradient_accumulation": 2, "max_grad_norm": 0.01}
        result = run_trial(make(train=train), tmp_path)
    finally:
        hook.remove()
    assert result.status == "done", result.failure
    assert clips == [0.01] * 8 and len(stepped) == 8
    assert stepped == pytest.approx([0.01] * 8, rel=1e-3)


def test_max_steps_and_checkpointing_and_bfloat16(make: Any, tmp_path: Path) -> None:
    backbone = {"dtype": "bfloat16", "gradient_checkpointing": True, "attention": "eager"}
    trial = make(backbone=backbone, adapter=ADAPTERS["basis"], train={"max_steps": 3})
    result = run_trial(trial, tmp_path)
    assert result.status == "done", result.failure
    assert [line["step"] for line in lines(tmp_path) if "train/loss" in line] == [1, 2, 3]


def test_a_misspelt_setting_is_refused(make: Any, tmp_path: Path) -> None:
    result = run_trial(make(train={"learning_rat": 1}), tmp_path)
    assert result.failure is not None
    assert "Did you mean 'learning_rate'?" in result.failure.message


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (NotFinite("the training loss is nan at step 3"), "not_finite"),
        (torch.OutOfMemoryError("CUDA out of memory."), "out_of_memory"),
        (MemoryError(), "out_of_memory"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), "out_of_memory"),
        (OSError(errno.ENOSPC, "No space left on device"), "disk_full"),
        (RuntimeError("I/O error: No space left on device (os error 28)"), "disk_full"),
        (ValueError("two\nlines " + "x" * 5000), "exception"),
    ],
)
def test_failures_are_told_apart(error: Exception, kind: str) -> None:
    failure = failure_of(error)
    assert failure.kind == kind
    assert failure.message and "\n" not in failure.message and len(failure.message) < LONGEST + 200


def test_the_command_needs_neither_optuna_nor_mlflow_and_tells_its_exit_code(
    make: Any, tmp_path: Path
) -> None:
    write_record(tmp_path / "done/trial.json", make())
    write_record(tmp_path / "failed/trial.json", make(task={"name": "no-such.csv"}))
    code = "import sys; sys.modules.update(optuna=None, mlflow=None); "
    code += "from studies.engine.trials.trial import main; print(main(['done']), main(['failed']))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment(),
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    # beside these codes: nothing but warnings and tracebacks belongs in a trial's log
    assert done.stdout == "0 1\n" and "Traceback" in done.stderr, done.stderr
    result = read_result(tmp_path / "done")
    assert result is not None and result.status == "done"
    result = read_result(tmp_path / "failed")
    assert result is not None and result.failure is not None
    assert "no such file no-such.csv" in result.failure.message
