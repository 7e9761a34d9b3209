"""The training loop: batches to optimizer steps, evaluations and checkpoints between them."""

import contextlib
import itertools
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers import set_seed

from adapters.training import hooks
from adapters.training.phi_schedule import PhiSchedule, fold_input_scales
from studies.engine.definition.train import Train, steps_in_epoch, total_steps
from studies.engine.trials.environment import device_name, peak_memory_bytes
from studies.engine.trials.metrics_file import MetricsFile
from studies.engine.trials.preemption import Preempted, Preemption
from studies.engine.trials.ranks import ranks
from studies.engine.trials.training import checkpoint, cuda_graph, resuming
from studies.engine.trials.training.batches import LengthGrouped
from studies.engine.trials.training.best import Best
from studies.engine.trials.training.captured import CapturedSteps, captured_steps
from studies.engine.trials.training.checkpoint import Identity
from studies.engine.trials.training.journal import Journal
from studies.engine.trials.training.progress import TrainingProgress
from studies.engine.trials.training.schedule import phi_is_trained, rate_factor
from studies.engine.trials.training.snapshots import Snapshots
from studies.engine.trials.training.step import Loss, OptimizerStep

METRICS = "metrics.jsonl"
READ_AT_ONCE = 8
"""Steps on a GPU whose numbers are read together."""


class Saver:
    """Saves every `minutes` (None: never) and, whatever they are, when the trial is asked to end.

    A resumed training gives the bits of an uninterrupted one (on a CPU, and on a GPU with
    `train.deterministic`): batches that were seen are skipped, everything else is restored. Of the
    checkpoints in `run_dir`, only one of `identity` is used.
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

    def attach(self, training: "TrainingLoop") -> None:
        """Watch `training`, and make it go on from `resumed`, all but its random numbers."""
        self._training = training
        self._buffers = resuming.versions(training.model)
        if (resumed := self.resumed) is None:
            return
        step, state = training.optimizer_step, resumed.state
        resuming.load_model(training.model, state["model"])
        resuming.load_optimizer(step.optimizer, step.scaler, state["optimizer"])
        step.skipped = state["skipped"]
        if training.best is not None:
            training.best.load(state["best"])
        training.snapshots.load(state["snapshots"])
        training.progress.restore(state["progress"])
        training.metrics.restore((resumed.folder / METRICS).read_text(encoding="utf-8"))
        training.done = resumed.step
        _say(f"goes on after step {resumed.step}, from {resumed.folder.name}")

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


def train(
    model: nn.Module,
    loader: DataLoader[Any],
    settings: Train,
    *,
    dtype: torch.dtype,
    dropout_seed: int,
    metrics: MetricsFile,
    on_evaluate: Callable[[int], Mapping[str, float]],
    best: Best | None,
    loss: Loss,
    saver: Saver,
    micro_batch: int,
    may_capture: bool,
    note: Callable[[str], None],
    snapshots: Snapshots | None = None,
) -> TrainingProgress:
    """Train `model` in place; `loss`, `dtype` and `micro_batch` are as `OptimizerStep` says.

    `on_evaluate` is called with the step every `settings.eval_every` steps; `best` gets what it
    finds, and may end the training. `may_capture` is false where it has failed before. `note` gets
    what a reader of the numbers should know.

    Raises:
        NotFinite: a loss or gradient is NaN or infinite.
        DoesNotFit: `micro_batch` rows need more memory than there is.
        Preempted: the trial was asked to end; a checkpoint was taken.
    """
    device = _prepare(model)
    set_seed(dropout_seed)
    step = OptimizerStep(
        model,
        settings,
        loss,
        micro_batch=micro_batch,
        dtype=dtype,
        ranks=ranks(),
        device=device,
        few_shapes=cuda_graph.on_one_gpu(),
    )
    captured = None
    if may_capture and settings.capture == "auto":
        several = settings.gradient_accumulation > 1
        captured = captured_steps(model, step, several, note)
    loop = TrainingLoop(model, loader, settings, step, captured, metrics, on_evaluate, best, saver,
                        snapshots or Snapshots())  # fmt: skip
    with (
        loop.progress.running(),
        saver.saved_when_preempted(),
        saver.preemption.whole(),
        contextlib.nullcontext() if captured is None else cuda_graph.own_stream(),
    ):
        loop.run()
    if captured is not None:
        captured.finish()
    ranks().check_equal(model)
    return loop.progress


def _prepare(model: nn.Module) -> torch.device:
    """Where `model` now is, ready to be trained: the GPU if there is one."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if any(t.device.type != device.type for t in (*model.parameters(), *model.buffers())):
        model.to(device)
    config: Any = getattr(model, "config", None)
    if config is not None:
        config.use_cache = False  # keys and values are of no use in training
    model.train()
    return device


@dataclass(eq=False)
class TrainingLoop:
    """One training; where the saver has a checkpoint, the rest of one."""

    model: nn.Module
    loader: DataLoader[Any]
    settings: Train
    optimizer_step: OptimizerStep
    captured: CapturedSteps | None
    metrics: MetricsFile
    on_evaluate: Callable[[int], Mapping[str, float]]
    best: Best | None
    saver: Saver
    snapshots: Snapshots
    progress: TrainingProgress = field(default_factory=TrainingProgress)
    done: int = 0
    """Finished optimizer steps."""

    def __post_init__(self) -> None:
        settings, step, batches = self.settings, self.optimizer_step, len(self.loader)
        self._in_epoch = steps_in_epoch(settings, batches)
        self._steps = total_steps(settings, batches)
        waits = step.device.type == "cpu" or hooks.acts_on_the_host(self.model)
        self.journal = Journal(
            self.progress,
            self.metrics,
            self._steps,
            at_once=1 if waits else READ_AT_ONCE,
            overflows=step.scaler is not None,
            penalties=tuple(settings.penalties),
        )
        self._phi = PhiSchedule(
            self.model,
            self._steps,
            bandwidth_to=settings.bandwidth_to,
            input_scale_to=settings.input_scale_to,
        )

    def run(self) -> None:
        """Train to the end."""
        self.saver.attach(self)
        hooks.on_attach(self.model, self._steps)
        self._evaluate()  # where an earlier attempt was to
        epoch = self._batches(self.done // self._in_epoch, self.done % self._in_epoch)
        while self.done < self._steps and not (self.best and self.best.gives_up):
            batches = next(epoch, None)
            if batches is None:
                epoch = self._batches(self.done // self._in_epoch)
                continue
            self.take(batches)
            if self.snapshots.wants(self.done):
                with self.progress.running(on=False):
                    self.snapshots.take(self.model, self.done)
            self._evaluate()
            self.saver.after_step()
        self.journal.read()
        fold_input_scales(self.model)

    def _batches(self, epoch: int, seen: int = 0) -> Iterator[list[Mapping[str, Tensor]]]:
        """The batches of each step of an epoch, but for the first `seen` steps."""
        count, sampler = self.settings.gradient_accumulation, self.loader.batch_sampler
        assert isinstance(sampler, LengthGrouped)
        sampler.epoch, sampler.seen = epoch, seen * count
        goes_on = self.saver.resumed is not None and self.saver.resumed.step == self.done
        if goes_on and not seen:
            self.saver.restore_random()
        batches = iter(self.loader)  # draws a random number, as it did when the epoch began
        if goes_on and seen:
            self.saver.restore_random()
        while group := list(itertools.islice(batches, count)):
            yield group

    def take(self, batches: list[Mapping[str, Tensor]]) -> None:
        """Do one step."""
        began, step = time.perf_counter(), self.optimizer_step
        # a batch of images has no tokens: its rows are counted
        self.progress.tokens += sum(b.get("input_ids", b["labels"]).numel() for b in batches)
        before = self.done - step.skipped
        factor = rate_factor(self.settings, before, self._steps)
        rate = step.set_rate(factor, phi=phi_is_trained(self.settings, before, self._steps))
        self._phi.before_step()
        work, check = step.work(batches), None
        if self.captured is None:
            values = step.run(work.to(step.device))
        else:
            values, check = self.captured.run(work)
        self.done += 1
        self.journal.add(self.done, values, rate, began, check)
        if self.captured is None:
            hooks.after_step(self.model, self.done)
            step.optimizer.zero_grad()

    def _evaluate(self) -> None:
        """Evaluate where it is time to and was not done; the end is evaluated anyway."""
        every, evaluated = self.settings.eval_every, self.progress.evaluated
        if every and self.done % every == 0 and evaluated < self.done < self._steps:
            self.journal.read()
            with self.progress.running(on=False), self.saver.preemption.anywhere():
                metrics = self.on_evaluate(self.done)
            if self.best is not None:
                with self.progress.running(on=False):
                    self.best.offer(self.model, self.done, metrics)
            self.progress.evaluated = self.done
