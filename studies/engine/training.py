"""Training with transformers' Trainer, reporting to nobody but a `MetricsFile`.

The Trainer brings the loop, mixed precision, accumulation and schedules. Ours are the optimizer's
groups, the clipping (phi on its own), the batches, the checks for finite numbers and the clock.
"""

import math
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_callback import TrainerControl, TrainerState
from transformers.utils import ModelOutput

import adapters
from studies.engine.failures import NotFinite
from studies.engine.metrics_file import MetricsFile
from studies.engine.settings import TrainSettings

Loss = Callable[[ModelOutput, Tensor, "Tensor | int | None"], Tensor]
LINES = 200
"""About how many lines of training metrics a trial writes, however long it is."""
WARM_UP_STEPS = 5
"""First steps that the median step time leaves out, where there are more than twice as many."""


@dataclass
class Progress:
    """What a run of the loop leaves behind."""

    losses: list[float] = field(default_factory=list)
    """Mean loss of each optimizer step."""
    step_seconds: list[float] = field(default_factory=list)
    seconds: float = 0.0
    """Wall time of the loop without evaluations."""
    tokens: int = 0

    @property
    def final_loss(self) -> float:
        """Mean loss of the last tenth of the steps."""
        last = self.losses[-max(1, len(self.losses) // 10) :]
        return statistics.fmean(last)

    @property
    def median_step_seconds(self) -> float:
        """Median time of one step, first steps left out."""
        enough = len(self.step_seconds) > 2 * WARM_UP_STEPS
        return statistics.median(self.step_seconds[WARM_UP_STEPS if enough else 0 :])


class AdapterTrainer(Trainer):
    """A Trainer with the adapters' parameter groups, given batches and a check of every loss."""

    def __init__(
        self,
        model: nn.Module,
        args: TrainingArguments,
        loader: DataLoader[Any],
        settings: TrainSettings,
        progress: Progress,
        loss: Loss,
    ) -> None:
        self._loader = loader
        self._settings = settings
        self._progress = progress
        self.step_loss = 0.0
        super().__init__(
            model=model, args=args, train_dataset=loader.dataset, compute_loss_func=loss
        )

    def get_train_dataloader(self) -> DataLoader[Any]:
        """The batches this trainer was given; the Trainer moves each to the device."""
        return self._loader

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """AdamW over `adapters.parameter_groups`: no weight decay on phi."""
        if self.optimizer is None:
            groups = adapters.parameter_groups(
                model or self.model, self._settings.learning_rate, self._settings.weight_decay
            )
            self.optimizer = torch.optim.AdamW(groups, lr=self._settings.learning_rate)
        return self.optimizer

    def training_step(
        self, model: nn.Module, inputs: dict[str, Tensor], num_items_in_batch: Tensor | None = None
    ) -> Tensor:
        """One forward and backward pass.

        Raises:
            NotFinite: the loss is NaN or infinite.
        """
        # a batch of images has no tokens: its rows are counted
        self._progress.tokens += inputs.get("input_ids", inputs["labels"]).numel()
        loss = super().training_step(model, inputs, num_items_in_batch)
        value = loss.item()
        if not math.isfinite(value):
            raise NotFinite(f"the training loss is {value} at step {self.state.global_step + 1}")
        self.step_loss += value  # a share of the step's mean, see `Prepared.loss`
        return loss


class Watch(TrainerCallback):
    """Clips before every optimizer step, keeps the time, writes metrics, asks for evaluations."""

    def __init__(
        self,
        settings: TrainSettings,
        progress: Progress,
        metrics: MetricsFile,
        on_evaluate: Callable[[int], None],
    ) -> None:
        self.trainer: AdapterTrainer | None = None
        self._settings = settings
        self._progress = progress
        self._metrics = metrics
        self._on_evaluate = on_evaluate
        self._every = 1
        self._grad_norm = 0.0
        self._began = 0.0

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Decide how often a line is written."""
        self._every = max(1, state.max_steps // LINES)

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Start the clock of a step."""
        self._began = time.perf_counter()

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Clip the step's whole gradient; the Trainer's own clipping is off."""
        limit = self._settings.max_grad_norm
        norm = adapters.clip_gradients(kwargs["model"], math.inf if limit is None else limit)
        self._grad_norm = norm.item()
        # with float16 an overflow is expected: the scaler skips the step and halves its scale
        if not math.isfinite(self._grad_norm) and not args.fp16:
            raise NotFinite(
                f"the gradient norm is {self._grad_norm} at step {state.global_step + 1}"
            )

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Keep loss and time; write a line and evaluate where it is time to."""
        assert self.trainer is not None
        self._progress.step_seconds.append(time.perf_counter() - self._began)
        self._progress.losses.append(self.trainer.step_loss)
        self.trainer.step_loss = 0.0
        step = state.global_step
        if step % self._every == 0 or step == state.max_steps:
            scheduler = kwargs["lr_scheduler"]
            self._metrics.write(
                step,
                {
                    "train/loss": statistics.fmean(self._progress.losses[-self._every :]),
                    "train/learning_rate": scheduler.get_last_lr()[0],
                    "train/grad_norm": self._grad_norm,
                },
            )
        every = self._settings.eval_every
        if every and step % every == 0 and step < state.max_steps:  # the end is evaluated anyway
            before = time.perf_counter()
            self._on_evaluate(step)
            self._progress.seconds -= time.perf_counter() - before


def train(
    model: nn.Module,
    loader: DataLoader[Any],
    settings: TrainSettings,
    *,
    dtype: torch.dtype,
    dropout_seed: int,
    folder: Path,
    metrics: MetricsFile,
    on_evaluate: Callable[[int], None],
    loss: Loss,
) -> Progress:
    """Train `model` in place; `loss` is that of the task, see `Prepared.loss`.

    `dtype` other than float32 means mixed precision. `folder` is the Trainer's own; it is empty
    afterwards. `on_evaluate` is called with the step every `settings.eval_every` steps.

    Raises:
        NotFinite: a loss or gradient is NaN or infinite.
    """
    progress = Progress()
    watch = Watch(settings, progress, metrics, on_evaluate)
    arguments = _arguments(settings, len(loader), dtype, dropout_seed, folder)
    trainer = AdapterTrainer(model, arguments, loader, settings, progress, loss)
    trainer.add_callback(watch)
    trainer.add_callback(adapters.StepCallback())  # methods that act between steps
    trainer.remove_callback(PrinterCallback)
    watch.trainer = trainer
    began = time.perf_counter()
    trainer.train()
    progress.seconds += time.perf_counter() - began
    return progress


def _arguments(
    settings: TrainSettings,
    batches: int,
    dtype: torch.dtype,
    dropout_seed: int,
    folder: Path,
) -> TrainingArguments:
    steps = math.ceil(settings.epochs * math.ceil(batches / settings.gradient_accumulation))
    if settings.max_steps is not None:
        steps = min(steps, settings.max_steps)
    warmup = round(settings.warmup_ratio * steps)
    constant = settings.schedule == "constant" and warmup > 0
    return TrainingArguments(
        output_dir=str(folder),
        per_device_train_batch_size=settings.batch_size,
        gradient_accumulation_steps=settings.gradient_accumulation,
        max_steps=steps,
        lr_scheduler_type="constant_with_warmup" if constant else settings.schedule,
        warmup_steps=warmup,
        learning_rate=settings.learning_rate,
        max_grad_norm=0.0,  # `Watch` clips
        bf16=dtype is torch.bfloat16,
        fp16=dtype is torch.float16,
        seed=dropout_seed,
        use_cpu=not torch.cuda.is_available(),
        logging_nan_inf_filter=False,
        logging_strategy="no",
        save_strategy="no",
        eval_strategy="no",
        report_to="none",
        disable_tqdm=True,
        remove_unused_columns=False,
    )
