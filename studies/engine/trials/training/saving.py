"""Checkpoints of a training under way: when one is taken, and how the training goes on from it.

A resumed training gives the bits of an uninterrupted one (on a CPU, and on a GPU with
`train.deterministic`): the batches that were seen are skipped, everything else is restored.
"""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Protocol

from torch import nn

from studies.engine.trials.environment import device_name, peak_memory_bytes
from studies.engine.trials.metrics_file import MetricsFile
from studies.engine.trials.preemption import Preempted, Preemption
from studies.engine.trials.training import checkpoint, resuming
from studies.engine.trials.training.best import Best
from studies.engine.trials.training.checkpoint import Identity
from studies.engine.trials.training.journal import Journal
from studies.engine.trials.training.progress import TrainingProgress
from studies.engine.trials.training.snapshots import Snapshots
from studies.engine.trials.training.step import OptimizerStep

METRICS = "metrics.jsonl"


class Training(Protocol):
    """What a checkpoint is taken of, between two steps."""

    model: nn.Module
    optimizer_step: OptimizerStep
    progress: TrainingProgress
    metrics: MetricsFile
    journal: Journal
    best: Best | None
    snapshots: Snapshots
    done: int
    """Finished optimizer steps."""


class Saver:
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
        self.resumed = checkpoint.last(run_dir, identity, _say)
        """Where the training goes on."""
        self._run_dir, self._identity = run_dir, identity
        self._seconds = minutes * 60 if minutes else None
        self._last = time.monotonic()
        self._saved = self.resumed.step if self.resumed else 0

    def attach(self, training: Training) -> None:
        """Watch `training`, and make it go on from `checkpoint`, all but its random numbers."""
        self._training = training
        self._buffers = resuming.versions(training.model)
        if (checkpoint := self.resumed) is None:
            return
        step, state = training.optimizer_step, checkpoint.state
        resuming.load_model(training.model, state["model"])
        resuming.load_optimizer(step.optimizer, step.scaler, state["optimizer"])
        step.skipped = state["skipped"]
        if training.best is not None:
            training.best.load(state["best"])
        training.snapshots.load(state["snapshots"])
        training.progress.restore(state["progress"])
        training.metrics.restore((checkpoint.folder / METRICS).read_text(encoding="utf-8"))
        training.done = checkpoint.step
        _say(f"goes on after step {checkpoint.step}, from {checkpoint.folder.name}")

    def restore_random(self) -> None:
        """Put the random numbers of `resumed` back, once."""
        if self.resumed is not None:
            resuming.load_random(self.resumed.state["random"])

    def after_step(self) -> None:
        """Save where it is time to; end where that was asked for."""
        if self.preemption.requested:
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

        Raises:
            NotFinite: one of the last steps gave no number.
        """
        self._training.journal.read()
        if self._training.done != self._saved:
            with self._training.progress.running(on=False):
                self._save()
        self._last = time.monotonic()

    def _save(self) -> None:
        training, step = self._training, self._training.optimizer_step
        progress = training.progress
        progress.peak_memory_bytes = max(progress.peak_memory_bytes, peak_memory_bytes())
        state = {
            "model": resuming.model_tensors(training.model, self._buffers),
            "optimizer": resuming.optimizer_state(step.optimizer, step.scaler),
            "skipped": step.skipped,
            "best": None if training.best is None else training.best.state(),
            "snapshots": training.snapshots.state(),
            "random": resuming.random_state(),
            "progress": asdict(progress),
            "device": device_name(),
        }
        texts = {METRICS: training.metrics.text}
        try:
            checkpoint.save(self._run_dir, self._identity, training.done, state, texts)
        except OSError as error:
            _say(f"none is taken of step {training.done}: {error}. Training goes on; make room")
        else:
            self._saved = training.done


def _say(text: str) -> None:
    sys.stderr.write(f"checkpoint: {text}\n")
