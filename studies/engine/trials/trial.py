"""Run one trial: backbone, task and adapter, training, evaluation, an atomic result.json.

    python -m studies.engine.trials.trial RUN_DIR      # reads RUN_DIR/trial.json

Knows neither Optuna nor MLflow, so a bare GPU machine needs only torch, transformers and peft.
"""

import argparse
import contextlib
import json
import math
import os
import shutil
import sys
import time
import traceback
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

from studies.engine.records import Cost, Result, Trial, read_trial, write_record
from studies.engine.slots import deterministic_variables
from studies.engine.trials.preemption import PREEMPTED, Preempted, Preemption, preemptible
from studies.engine.trials.ranks import joined, leave, ranks


def run_trial(trial: Trial, run_dir: Path, preemption: Preemption | None = None) -> Result:
    """Run `trial` and write metrics.jsonl and result.json into `run_dir`.

    Goes on from a checkpoint where `run_dir` has one that is of this trial and of this code. What
    goes wrong becomes a failed `Result`; its traceback goes to stderr, which is the trial's log.txt
    when the dispatcher runs this.

    Raises:
        OSError: `run_dir` cannot be written at all.
        Preempted: `preemption` was asked; what could be saved is saved, and there is no result.
    """
    run_dir.mkdir(parents=True, exist_ok=True)
    (run_dir / "result.json").unlink(missing_ok=True)  # of an earlier attempt
    started, clock = datetime.now(UTC).isoformat(timespec="seconds"), time.monotonic()
    from studies.engine.trials import checkpoint
    from studies.engine.trials.environment import environment, set_threads
    from studies.engine.trials.failures import failure_of

    set_threads()
    found: dict[str, Any] = {}
    preemption = preemption or Preemption()
    try:
        _run_as_it_fits(trial, run_dir, found, preemption)
        found["status"] = "done"
    except Exception as error:
        traceback.print_exc(file=sys.stderr)
        kept = {name: found[name] for name in ("data", "micro_batch", "notes") if name in found}
        found = {"status": "failed", "failure": failure_of(error), **kept}
    finally:
        shutil.rmtree(run_dir / "trainer", ignore_errors=True)
    with preemption.whole():
        result = Result(
            key=trial.key,
            environment=environment(),
            started=started,
            seconds=round(time.monotonic() - clock, 3),
            **found,
        )
        write_record(run_dir / "result.json", result)
        if result.status == "done" or (result.failure and result.failure.kind == "not_finite"):
            checkpoint.remove(run_dir)  # another failure may be repaired: the next goes on
    return result


def _run_as_it_fits(
    trial: Trial, run_dir: Path, found: dict[str, Any], preemption: Preemption
) -> None:
    """`_run` with the largest micro-batch that fits: train.batch_size, else a half, a quarter, ...

    The rows of an optimizer step, their order and the scale of the loss stay the same.
    """
    from studies.engine.definition.train import Train
    from studies.engine.trials.environment import determinism, reset_peak_memory
    from studies.engine.trials.failures import DoesNotFit

    settings = Train.read("train", trial.config["train"])
    rows = settings.batch_size
    while True:
        with determinism(settings.deterministic):
            try:
                return _run(trial, run_dir, found, preemption, rows)
            except DoesNotFit as error:
                if rows == 1 or ranks().count > 1:  # the others would be a step ahead
                    raise
                reason = str(error)
        # out of the handler: the error's frames held the model
        rows = found["micro_batch"] = rows // 2
        _note(found, f"retried with {rows} at once: {reason}")  # torch's reason may be cut
        _free_memory()
        reset_peak_memory()


def _note(found: dict[str, Any], text: str) -> None:
    line = " ".join(text.split())
    found["notes"] = (*found.get("notes", ()), line if len(line) <= 300 else line[:297] + "...")
    sys.stderr.write(f"{line}\n")


def _free_memory() -> None:
    """Give back what nobody holds any more."""
    import gc

    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _run(
    trial: Trial, run_dir: Path, found: dict[str, Any], preemption: Preemption, micro_batch: int
) -> None:
    """Fill `found` with data, metrics and cost, in this order."""
    import torch
    from transformers import set_seed
    from transformers.utils import logging

    import adapters
    from studies import backbones, tasks
    from studies.engine.definition.plugins import load_plugins
    from studies.engine.definition.train import Train
    from studies.engine.trials.after import evaluate_after
    from studies.engine.trials.batches import train_loader
    from studies.engine.trials.checkpoint import Identity
    from studies.engine.trials.environment import code_versions, device_name, peak_memory_bytes
    from studies.engine.trials.failures import NotFinite, is_out_of_memory
    from studies.engine.trials.matching import matched
    from studies.engine.trials.metrics_file import MetricsFile
    from studies.engine.trials.saving import Saver
    from studies.engine.trials.seeds import derive
    from studies.engine.trials.training import train
    from studies.tasks.encoding import spare_workers

    logging.set_verbosity_error()  # "newly initialized" is what a head is meant to be
    logging.disable_progress_bar()
    config = trial.config
    load_plugins(trial.plugins, trial.plugin_hashes)
    settings = Train.read("train", config["train"])
    backbone = backbones.check(config["backbone"])
    data = _rows(json.dumps(config["task"], sort_keys=True), config.get("split_seed", 0))
    found["data"] = tasks.describe(data)

    set_seed(derive(trial.seed, "init"))
    model, processor = backbones.load(config["backbone"], tasks.head(config["task"], data))
    if backbone.gradient_checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    adapter = dict(config["adapter"])
    if "match" in config:
        adapter, found["chosen"] = matched(model, adapter, config["match"])
    model = adapters.attach(model, adapter)
    for parameter in model.parameters():
        if parameter.requires_grad and parameter.dtype in (torch.bfloat16, torch.float16):
            parameter.data = parameter.data.float()  # small updates vanish in half precision
    dtype = getattr(torch, backbone.dtype)
    prepared = tasks.prepare(config["task"], data, processor)
    metrics = MetricsFile(run_dir / "metrics.jsonl")

    identity = Identity(trial.key, code_versions())
    saver = Saver(run_dir, identity, settings.checkpoint_minutes, preemption)
    if saver.found is not None and saver.found.state["device"] != device_name():
        there = saver.found.state["device"]
        _note(found, f"the first {saver.found.step} steps were trained on another device: {there}")

    half = None if dtype is torch.float32 else dtype
    eval_rows = settings.eval_batch_size

    def evaluate(name: str) -> dict[str, float]:
        nonlocal eval_rows
        while True:
            try:
                return prepared.evaluate(model, name, eval_rows, half)
            except Exception as error:
                if not is_out_of_memory(error) or eval_rows == 1:
                    raise
            eval_rows //= 2  # out of the handler: the error's frames held the batch
            _note(found, f"evaluated with {eval_rows} rows at once, more need too much memory")
            _free_memory()

    def measure(*names: str) -> dict[str, float]:
        return {
            f"{name}/{metric}": value for name in names for metric, value in evaluate(name).items()
        }

    def score(step: int, *names: str) -> dict[str, float]:
        values = measure(*names)
        bad = [f"{name} is {value}" for name, value in values.items() if not math.isfinite(value)]
        if bad:
            raise NotFinite(f"{', '.join(bad)} after step {step}")
        values |= adapters.monitor(model)
        metrics.write(step, values)
        return values

    loader = train_loader(
        prepared.train,
        prepared.collate,
        settings.batch_size,
        derive(trial.seed, "order"),
        spare_workers() if prepared.slow_batches else 0,
    )
    try:
        progress = train(
            model,
            loader,
            settings,
            dtype=dtype,
            dropout_seed=derive(trial.seed, "dropout"),
            folder=run_dir / "trainer",
            metrics=metrics,
            on_evaluate=lambda step: score(step, "valid"),
            loss=prepared.loss,
            saver=saver,
            micro_batch=micro_batch,
        )
        with saver.saved_when_preempted():
            last = score(len(progress.losses), "valid", "test")
    finally:
        metrics.close()
    counts = adapters.count_parameters(model)
    found["metrics"] = {
        "train/loss": progress.final_loss,
        **{name: value for name, value in last.items() if math.isfinite(value)},
    }
    found["cost"] = Cost(
        trainable_parameters=counts["trainable"],
        adapter_parameters=counts["adapter"],
        phi_parameters=counts["phi"],
        total_parameters=counts["total"],
        train_seconds=round(progress.seconds, 3),
        step_seconds=progress.median_step_seconds,
        peak_memory_bytes=max(progress.peak_memory_bytes, peak_memory_bytes()),
        tokens_per_second=round(progress.tokens / progress.seconds, 1),
        data_share=round(loader.seconds / progress.seconds, 5),
    )
    if "after" in config:
        found["metrics"] |= evaluate_after(
            model, config["after"], adapter, last, measure, trial.seed, run_dir
        )


@lru_cache(maxsize=4)
def _rows(task: str, split_seed: int) -> Any:
    """The rows of a task given as JSON; read once for the trials of one process."""
    from studies import tasks

    return tasks.load(json.loads(task), split_seed)


def main(arguments: list[str] | None = None) -> int:
    """Run the trial in RUN_DIR; 0 where it is done, 1 where it failed, 75 where SIGTERM came."""
    parser = argparse.ArgumentParser(
        prog="python -m studies.engine.trials.trial", description="Run the trial of a run folder."
    )
    parser.add_argument("run_dir", type=Path, help="folder with a trial.json")
    given = parser.parse_args(arguments)
    several = ranks().count > 1  # they cannot agree on a step to end after: SIGTERM ends them
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "0")  # a trial runs on one device
    try:
        with contextlib.nullcontext(Preemption()) if several else preemptible() as preemption:
            trial = read_trial(given.run_dir)
            for name, value in deterministic_variables(trial.config.get("train", {})).items():
                os.environ.setdefault(name, value)
            with joined(given.run_dir) as folder:
                result = run_trial(trial, folder, preemption)
    except Preempted:
        return PREEMPTED
    code = 0 if result.status == "done" else 1
    if several:
        leave(code)
    return code


if __name__ == "__main__":
    sys.exit(main())
