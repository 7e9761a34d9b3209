"""Run one trial: backbone, task and adapter, training, evaluation, an atomic result.json.

    python -m studies.engine.trial RUN_DIR      # reads RUN_DIR/trial.json

Knows neither Optuna nor MLflow, so a bare GPU machine needs only torch, transformers and peft.
"""

import argparse
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


def run_trial(trial: Trial, run_dir: Path) -> Result:
    """Run `trial` and write metrics.jsonl and result.json into `run_dir`.

    What goes wrong becomes a failed `Result`; its traceback goes to stderr, which is the trial's
    log.txt when the dispatcher runs this.

    Raises:
        OSError: `run_dir` cannot be written at all.
    """
    run_dir.mkdir(parents=True, exist_ok=True)
    (run_dir / "result.json").unlink(missing_ok=True)  # of an earlier attempt
    started, clock = datetime.now(UTC).isoformat(timespec="seconds"), time.monotonic()
    from studies.engine.environment import environment, set_threads
    from studies.engine.failures import failure_of

    set_threads()
    found: dict[str, Any] = {}
    try:
        _run(trial, run_dir, found)
        found["status"] = "done"
    except Exception as error:
        traceback.print_exc(file=sys.stderr)
        found = {"status": "failed", "failure": failure_of(error), "data": found.get("data", {})}
    finally:
        shutil.rmtree(run_dir / "trainer", ignore_errors=True)
    result = Result(
        key=trial.key,
        environment=environment(),
        started=started,
        seconds=round(time.monotonic() - clock, 3),
        **found,
    )
    write_record(run_dir / "result.json", result)
    return result


def _run(trial: Trial, run_dir: Path, found: dict[str, Any]) -> None:
    """Fill `found` with data, metrics and cost, in this order."""
    import torch
    from transformers import set_seed
    from transformers.utils import logging

    import adapters
    from studies import backbones, tasks
    from studies.engine.after import evaluate_after
    from studies.engine.batches import train_loader
    from studies.engine.environment import peak_memory_bytes
    from studies.engine.failures import NotFinite
    from studies.engine.matching import matched
    from studies.engine.metrics_file import MetricsFile
    from studies.engine.plugins import load_plugins
    from studies.engine.seeds import derive
    from studies.engine.settings import TrainSettings
    from studies.engine.training import train

    logging.set_verbosity_error()  # "newly initialized" is what a head is meant to be
    logging.disable_progress_bar()
    config = trial.config
    load_plugins(trial.plugins, trial.plugin_hashes)
    settings = TrainSettings.read(config["train"])
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

    def measure(*names: str) -> dict[str, float]:
        half = None if dtype is torch.float32 else dtype
        return {
            f"{name}/{metric}": value
            for name in names
            for metric, value in prepared.evaluate(
                model, name, settings.eval_batch_size, half
            ).items()
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
        prepared.train, prepared.collate, settings.batch_size, derive(trial.seed, "order")
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
        )
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
        peak_memory_bytes=peak_memory_bytes(),
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
    """Run the trial in RUN_DIR; 0 where it is done, 1 where it failed."""
    parser = argparse.ArgumentParser(
        prog="python -m studies.engine.trial", description="Run the trial of a run folder."
    )
    parser.add_argument("run_dir", type=Path, help="folder with a trial.json")
    given = parser.parse_args(arguments)
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "0")  # a trial runs on one device
    result = run_trial(read_trial(given.run_dir), given.run_dir)
    return 0 if result.status == "done" else 1


if __name__ == "__main__":
    sys.exit(main())
