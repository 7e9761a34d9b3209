"""Checkpoints of a training under way: when one is taken, and a Trainer that goes on from it.

A resumed training gives the bits of an uninterrupted one (on a CPU, and on a GPU with
`train.deterministic`): the Trainer skips the batches that were seen, everything else is restored.
"""

import dataclasses
import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from transformers import Trainer, TrainerCallback

from studies.engine.trials import checkpoint, resuming
from studies.engine.trials.checkpoint import Checkpoint, Identity
from studies.engine.trials.environment import device_name, peak_memory_bytes
from studies.engine.trials.metrics_file import MetricsFile
from studies.engine.trials.preemption import Preempted, Preemption
from studies.engine.trials.training_progress import TrainingProgress

METRICS = "metrics.jsonl"


class ResumingTrainer(Trainer):
    """A Trainer that goes on from the checkpoint `found`."""

    found: Checkpoint | None = None

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        assert self.found is not None
        resuming.load_model(self.model, self.found.tensors)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if self.found is not None:
            state = self.found.state["optimizer"]
            resuming.load_optimizer(self.optimizer, self.lr_scheduler, self.found.tensors, state)

    def _load_scaler(self, checkpoint: str | None) -> None:
        if self.found is not None and self.accelerator.scaler is not None:
            self.accelerator.scaler.load_state_dict(self.found.state["optimizer"]["scale"])

    def _load_rng_state(self, checkpoint: str | None) -> None:
        if self.found is not None:
            resuming.load_random(self.found.tensors, self.found.state["random"])

    def _run_epoch(self, *arguments: Any, **options: Any) -> None:
        if self.state.global_step < self.state.max_steps:  # else the evaluation alone was left
            super()._run_epoch(*arguments, **options)


class Saver(TrainerCallback):
    """Saves every `minutes` (None: never) and, whatever they are, when the trial is asked to end.

    Args:
        run_dir: The trial's folder.
        identity: What a checkpoint must be of to be used.
        minutes: Between two checkpoints.
        preemption: Whether the trial was asked to end.
    """

    def __init__(
        self, run_dir: Path, identity: Identity, minutes: float | None, preemption: Preemption
    ) -> None:
        self.preemption = preemption
        self.found = checkpoint.last(run_dir, identity, _say)
        """Where the training goes on."""
        self._run_dir, self._identity = run_dir, identity
        self._seconds = minutes * 60 if minutes else None
        self._last = time.monotonic()
        self._saved = self.found.step if self.found else 0

    def attach(
        self, trainer: ResumingTrainer, progress: TrainingProgress, metrics: MetricsFile
    ) -> None:
        """Make `trainer`, whose model is in place, go on from `found`."""
        self._trainer, self._progress, self._metrics = trainer, progress, metrics
        self._buffers = resuming.versions(trainer.model)
        if self.found is not None:
            trainer.found = self.found
            progress.restore(self.found.state["progress"])
            metrics.restore((self.found.folder / METRICS).read_text(encoding="utf-8"))
            _say(f"goes on after step {self.found.step}, from {self.found.folder.name}")

    def on_step_end(self, *_: Any, **__: Any) -> None:
        """Save where it is time to; end where that was asked for."""
        if self.preemption.asked:
            raise Preempted
        if self._seconds is not None and time.monotonic() - self._last >= self._seconds:
            self.save()

    @contextmanager
    def saved_when_preempted(self) -> Iterator[None]:
        """Save where what runs inside is asked to end."""
        try:
            yield
        except Preempted:
            with self.preemption.whole():
                self.save()
            raise

    def save(self) -> None:
        """Save the training as it is after its last whole step.

        Where the disk does not take it, that is said and the training goes on: its checkpoints so
        far are left as they are.
        """
        if self._trainer.state.global_step != self._saved:
            with self._progress.running(on=False):
                self._save()
        self._last = time.monotonic()

    def _save(self) -> None:
        trainer, step = self._trainer, self._trainer.state.global_step
        optimizer, numbers = resuming.optimizer_state(
            trainer.optimizer, trainer.lr_scheduler, trainer.accelerator.scaler
        )
        generators, random = resuming.random_state()
        tensors = optimizer | generators | resuming.model_tensors(trainer.model, self._buffers)
        self._progress.peak_memory_bytes = max(
            self._progress.peak_memory_bytes, peak_memory_bytes()
        )
        state = {
            "optimizer": numbers,
            "random": random,
            "progress": self._progress.state(),
            "device": device_name(),
        }
        texts = {
            "trainer_state.json": json.dumps(dataclasses.asdict(trainer.state)),
            METRICS: self._metrics.text,
        }
        try:
            checkpoint.save(self._run_dir, self._identity, step, tensors, state, texts)
        except OSError as error:
            _say(f"none is taken of step {step}: {error}. Training goes on; make room")
        else:
            self._saved = step


def _say(text: str) -> None:
    sys.stderr.write(f"checkpoint: {text}\n")
