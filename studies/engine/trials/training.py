"""Training with transformers' Trainer, reporting to nobody but a `MetricsFile`.

The Trainer brings the loop, mixed precision, accumulation and schedules. Ours are the optimizer's
groups, the clipping (phi on its own), the batches, the checks for finite numbers and the clock.
"""

import math
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers import PrinterCallback, TrainerCallback, TrainingArguments
from transformers.trainer_callback import TrainerControl, TrainerState
from transformers.utils import ModelOutput

import adapters
from studies.engine.definition.train import Train
from studies.engine.trials.batches import LengthGrouped
from studies.engine.trials.failures import DoesNotFit, NotFinite, is_out_of_memory
from studies.engine.trials.metrics_file import MetricsFile
from studies.engine.trials.preemption import Preemption
from studies.engine.trials.ranks import ranks
from studies.engine.trials.saving import ResumingTrainer, Saver
from studies.engine.trials.training_progress import TrainingProgress
from studies.tasks.kinds.tokens import arguments_of, places_of_labels

Loss = Callable[[ModelOutput, Tensor, "Tensor | int | None"], Tensor]
LINES = 200
"""About how many lines of training metrics a trial writes, however long it is."""


class AdapterTrainer(ResumingTrainer):
    """A Trainer with the adapters' parameter groups, given batches and a check of every loss."""

    def __init__(
        self,
        model: nn.Module,
        args: TrainingArguments,
        loader: DataLoader[Any],
        settings: Train,
        progress: TrainingProgress,
        loss: Loss,
        micro_batch: int,
    ) -> None:
        self._loader = loader
        self._micro_batch = micro_batch
        self._settings = settings
        self._progress = progress
        self.step_loss = 0.0
        self.ranks = ranks()
        self._takes_places = "logits_to_keep" in arguments_of(model)
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
        """Forward and backward passes of one batch, `micro_batch` rows at a time.

        Parts of a batch stay padded as the batch is, and `num_items_in_batch` counts the whole
        step, so that their gradients add up to the batch's.

        Raises:
            NotFinite: the loss is NaN or infinite.
            DoesNotFit: memory is used up.
        """
        # a batch of images has no tokens: its rows are counted
        self._progress.tokens += inputs.get("input_ids", inputs["labels"]).numel()
        if self.ranks.count > 1:
            inputs = self.ranks.share(inputs)
        rows, size = len(inputs["labels"]), self._micro_batch
        losses = []
        for start in range(0, rows, size):
            part: dict[str, Any] = {name: v[start : start + size] for name, v in inputs.items()}
            if self._takes_places and part["labels"].ndim == 2:
                part["logits_to_keep"] = places_of_labels(part["labels"])
            try:
                losses.append(super().training_step(model, part, num_items_in_batch))
            except Exception as error:
                if is_out_of_memory(error):
                    count = min(size, rows)
                    word = "row" if count == 1 else "rows"
                    raise DoesNotFit(f"{count} {word} at once: {error}") from error
                raise
        if not losses:  # fewer rows than processes
            losses.append(torch.zeros((), device=self.args.device))
        loss = losses[0] if len(losses) == 1 else torch.stack(losses).sum()
        self.step_loss += loss.item()  # a share of the step's mean, see `Prepared.loss`
        if self.ranks.count == 1:  # else all stop together, once the shares are added up
            self.check_loss()
        return loss

    def check_loss(self) -> None:
        """Raise `NotFinite` where the loss of the step is NaN or infinite."""
        if not math.isfinite(self.step_loss):
            step = self.state.global_step + 1
            raise NotFinite(f"the training loss is {self.step_loss} at step {step}")


class Watch(TrainerCallback):
    """Clips before every optimizer step, keeps the time, writes metrics, asks for evaluations."""

    def __init__(
        self,
        settings: Train,
        progress: TrainingProgress,
        metrics: MetricsFile,
        on_evaluate: Callable[[int], None],
        preemption: Preemption,
    ) -> None:
        self.trainer: AdapterTrainer | None = None
        self._preemption = preemption
        self._settings = settings
        self._progress = progress
        self._metrics = metrics
        self._on_evaluate = on_evaluate
        self._every = 1
        self._grad_norm = 0.0
        self._began = 0.0

    def on_train_begin(self, args: Any, state: TrainerState, *_: Any, **__: Any) -> None:
        """Decide how often a line is written; evaluate where an earlier attempt was to."""
        self._every = max(1, state.max_steps // LINES)
        self._evaluate(state)

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        """Start the clock of a step."""
        self._began = time.perf_counter()

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Clip the step's whole gradient; the Trainer's own clipping is off."""
        assert self.trainer is not None
        self.trainer.step_loss = self.trainer.ranks.sum(kwargs["model"], self.trainer.step_loss)
        self.trainer.check_loss()
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
        self._evaluate(state)

    def _evaluate(self, state: TrainerState) -> None:
        """Evaluate where it is time to and was not done; the end is evaluated anyway."""
        step, every = state.global_step, self._settings.eval_every
        if every and step % every == 0 and self._progress.evaluated < step < state.max_steps:
            with self._progress.running(on=False), self._preemption.anywhere():
                self._on_evaluate(step)
            self._progress.evaluated = step


def train(
    model: nn.Module,
    loader: DataLoader[Any],
    settings: Train,
    *,
    dtype: torch.dtype,
    dropout_seed: int,
    folder: Path,
    metrics: MetricsFile,
    on_evaluate: Callable[[int], None],
    loss: Loss,
    saver: Saver,
    micro_batch: int,
) -> TrainingProgress:
    """Train `model` in place; `loss` is that of the task, see `Prepared.loss`.

    `dtype` other than float32 means mixed precision. `folder` is the Trainer's own; it is empty
    afterwards. `on_evaluate` is called with the step every `settings.eval_every` steps. `saver`
    takes checkpoints and says where to go on. `micro_batch` is the most rows of one forward pass.

    Raises:
        NotFinite: a loss or gradient is NaN or infinite.
        DoesNotFit: `micro_batch` rows need more memory than there is.
        Preempted: the trial was asked to end; a checkpoint was taken.
    """
    progress = TrainingProgress()
    watch = Watch(settings, progress, metrics, on_evaluate, saver.preemption)
    arguments = _arguments(settings, len(loader), dtype, dropout_seed, folder)
    trainer = AdapterTrainer(model, arguments, loader, settings, progress, loss, micro_batch)
    trainer.add_callback(watch)
    trainer.add_callback(adapters.StepCallback())  # methods that act between steps
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(saver)
    watch.trainer = trainer
    saver.attach(trainer, progress, metrics)
    folder_found = None
    if saver.found is not None:
        folder_found = str(saver.found.folder)
        steps_an_epoch = math.ceil(len(loader) / settings.gradient_accumulation)
        assert isinstance(loader.batch_sampler, LengthGrouped)
        loader.batch_sampler.epoch = saver.found.step // steps_an_epoch
    with progress.running(), saver.saved_when_preempted(), saver.preemption.whole():
        trainer.train(resume_from_checkpoint=folder_found)
    trainer.ranks.check_equal(model)
    return progress


def _arguments(
    settings: Train,
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
