"""One training run, step by step: data, model, training, evaluation, what is evaluated after."""

import gc
import json
import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import Any, TypeVar

import torch
from transformers import PreTrainedModel, set_seed
from transformers.utils import logging

import adapters
from adapters.spectrum import phi_sizes
from studies import backbones, tasks
from studies.engine.definition import saved_phi
from studies.engine.definition.contents import check_contents
from studies.engine.definition.plugins import load_plugins
from studies.engine.definition.sections import After
from studies.engine.definition.train import Train, total_steps
from studies.engine.records import BestStep, Cost, Trial
from studies.engine.trials import keeping, prepared_rows, seeds
from studies.engine.trials.after import Subject, evaluate_after
from studies.engine.trials.attaching import attached, matched
from studies.engine.trials.environment import code_versions, device_name, peak_memory_bytes
from studies.engine.trials.failures import NotFinite, is_out_of_memory
from studies.engine.trials.metrics_file import MetricsFile, read_metrics
from studies.engine.trials.predictions import SPLIT, write_predictions
from studies.engine.trials.preemption import Preemption
from studies.engine.trials.prepared_rows import Objective, as_test
from studies.engine.trials.ranks import ranks
from studies.engine.trials.training import cuda_graph, loop
from studies.engine.trials.training.batches import TimedLoader, few_lengths, train_loader
from studies.engine.trials.training.best import Best
from studies.engine.trials.training.captured import NOT_CAPTURED
from studies.engine.trials.training.captured_forward import NOT_REPLAYED, captured_forward
from studies.engine.trials.training.checkpoint import Identity
from studies.engine.trials.training.progress import TrainingProgress
from studies.engine.trials.training.snapshots import Snapshots
from studies.tasks.encoding import spare_workers
from studies.tasks.metrics import Measured, Rows

T = TypeVar("T")


@dataclass
class Findings:
    """What a trial found so far; a trial that fails keeps what says why."""

    data: dict[str, Any] = field(default_factory=dict)
    backbone: dict[str, Any] = field(default_factory=dict)
    chosen: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    cost: Cost | None = None
    kept: BestStep | None = None
    micro_batch: int | None = None
    notes: tuple[str, ...] = ()

    def note(self, text: str) -> None:
        """Keep and say what a reader of the numbers should know, on one line."""
        line = " ".join(text.split())
        line = line if len(line) <= 300 else line[:297] + "..."
        if line not in self.notes:  # a trial may be begun several times
            self.notes = (*self.notes, line)
            sys.stderr.write(f"{line}\n")

    def has_note(self, beginning: str) -> bool:
        """Whether a note begins so."""
        return any(note.startswith(beginning) for note in self.notes)

    def fields(self, *, whole: bool) -> dict[str, Any]:
        """Fields of a `Result`: all of a whole trial, of a failed one those that are no numbers."""
        certain = ("data", "backbone", "micro_batch", "notes")
        return {k: v for k, v in vars(self).items() if whole or k in certain}


class TrainingRun:
    """A trial with one size of micro-batch."""

    def __init__(
        self,
        trial: Trial,
        run_dir: Path,
        settings: Train,
        findings: Findings,
        preemption: Preemption,
    ) -> None:
        self._trial, self._run_dir, self._settings = trial, run_dir, settings
        self._findings, self._preemption = findings, preemption
        self._config = trial.config
        self._eval_rows = settings.eval_batch_size
        self._processor_seconds = 0.0
        self._by_row: dict[str, Mapping[str, Rows]] = {}
        """Of each split as it was measured last."""
        after = self._config.get("after")
        self._after = None if after is None else After.model_validate(after)
        self._snapshots = Snapshots(self._after.steps if self._after is not None else ())

    def run(self, micro_batch: int) -> None:
        """Train, `micro_batch` rows at a time, and evaluate; the findings are filled in order.

        Raises:
            DoesNotFit: `micro_batch` rows need more memory than there is.
            NotFinite: a loss, a gradient or a metric is NaN or infinite.
            Preempted: the trial was asked to end; a checkpoint was taken.
        """
        logging.set_verbosity_error()  # "newly initialized" is what a head is meant to be
        logging.disable_progress_bar()
        load_plugins(self._trial.plugins, self._trial.plugin_hashes)
        check_contents(self._trial)
        findings = self._findings
        task = json.dumps(self._config["task"], sort_keys=True)
        drawn = tasks.check(self._config["task"]).drawn
        split_seed = self._trial.seed if drawn else self._config.get("split_seed", 0)
        content = self._trial.contents.get("task")
        data = prepared_rows.rows(task, split_seed, content)
        findings.data = tasks.describe(data)
        findings.backbone = backbones.identity(self._config["backbone"])
        self._model, processor, adapter, findings.chosen = self._adapted(data)
        reader = json.dumps(findings.backbone, sort_keys=True)
        self._prepared, cut = prepared_rows.ready(
            prepared_rows.Request(task, split_seed, content, reader, processor)
        )
        if cut:
            findings.data["truncated"] = cut
        sizes = phi_sizes(self._model)
        with self._counted():
            progress, loader, last = self._train(micro_batch)
        if late := self._snapshots.missing:
            findings.note(
                f"after.spectra.steps: the training had {len(progress.losses)} steps, so there is "
                f"nothing after {', '.join(map(str, late))}"
            )
        finite = {name: value for name, value in last.items() if math.isfinite(value)}
        metrics = {"train/loss": progress.final_loss, **finite}
        if ranks().rank == 0:
            self._keep(adapter, data)
        if self._after is not None:
            with self._counted():
                subject = Subject(
                    self._model, adapter, last, self._measure,
                    lambda: backbones.load(self._config["backbone"], self._head)[0],
                    self._trial.seed, self._run_dir, self._snapshots, sizes,
                    **self._of_training(data, processor, loader),
                )  # fmt: skip
                metrics |= evaluate_after(self._after, subject)
        findings.metrics, findings.cost = metrics, self._cost(progress, loader)

    def _keep(self, adapter: dict[str, Any], data: tasks.TaskData) -> None:
        """Write down what the trial is to keep of the model that was tested just now."""
        if self._trial.keeps_adapter:
            about = keeping.Trained(trial=self._trial, adapter=adapter, head=asdict(self._head),
                                    backbone=self._findings.backbone)  # fmt: skip
            keeping.save(self._model, about, self._run_dir)
        if "predictions" in self._trial.keep:
            rows = tasks.rows_hash(data, SPLIT)
            write_predictions(self._run_dir, self._trial.key, rows, self._by_row[SPLIT])

    def _of_training(
        self, data: tasks.TaskData, processor: Any, loader: TimedLoader
    ) -> dict[str, Any]:
        """What evaluations after training want to know of it, by the fields of `Subject`."""
        task, split_seed = self._config["task"], self._config.get("split_seed", 0)
        ways = tasks.check(task).metrics
        metric = self._config.get("select_on", "")
        lines = read_metrics(self._run_dir / "metrics.jsonl")

        def on_training_rows() -> dict[str, float]:
            rows = tasks.prepare(task, as_test(data, split_seed), processor)
            return self._fitting(lambda *how: rows.evaluate(self._model, "test", *how))

        @cache
        def objective(count: int) -> Objective:
            return Objective(self._prepared, count, seeds.derive(split_seed, "objective"))

        return {
            "directions": ways,
            "on_training_rows": on_training_rows,
            "objective": lambda n: self._fitting(lambda *how: objective(n)(self._model, *how)),
            "curve": [(int(line["step"]), line[metric]) for line in lines if metric in line],
            "higher": ways.get(metric.removeprefix("valid/")) == "maximize",
            "steps": total_steps(self._settings, len(loader)),
        }

    def _adapted(
        self, data: tasks.TaskData
    ) -> tuple[torch.nn.Module, Any, dict[str, Any], dict[str, Any]]:
        """The model with its adapter, its tokenizer or processor, the adapter's options, and the
        size that was chosen for it."""
        set_seed(seeds.derive(self._trial.seed, "init"))
        self._head = tasks.head(self._config["task"], data)
        model, processor = backbones.load(self._config["backbone"], self._head)
        self._dtype = _prepare_dtype(model, self._config["backbone"])
        adapter, chosen = dict(self._config["adapter"]), dict[str, Any]()
        if "match" in self._config:
            adapter, chosen = matched(model, adapter, self._config["match"])
        adapted = attached(model, adapter)
        if self._settings.load_phi is not None:
            adapters.load_phi(adapted, saved_phi.folder(self._settings.load_phi))
        return adapted, processor, adapter, chosen

    def _train(self, micro_batch: int) -> tuple[TrainingProgress, TimedLoader, dict[str, float]]:
        """Train and evaluate: how it went, and the last metrics."""
        prepared, settings, seed = self._prepared, self._settings, self._trial.seed
        self._metrics = MetricsFile(self._run_dir / "metrics.jsonl")
        saver, best, few_shapes = self._saver(), self._best(), cuda_graph.on_one_gpu()
        loader = train_loader(
            prepared.train,
            prepared.collate,
            settings.batch_size,
            seeds.derive(seed, "order"),
            spare_workers() if prepared.slow_batches else 0,
            few_lengths(prepared.train.lengths) if few_shapes else (),
        )
        try:
            progress = loop.train(
                self._model,
                loader,
                settings,
                dtype=self._dtype,
                dropout_seed=seeds.derive(seed, "dropout"),
                metrics=self._metrics,
                on_evaluate=lambda step: self._score(step, "valid"),
                best=best,
                loss=prepared.fixed_loss if few_shapes else prepared.loss,
                saver=saver,
                micro_batch=micro_batch,
                may_capture=not self._findings.has_note(NOT_CAPTURED),
                note=self._findings.note,
                snapshots=self._snapshots,
            )
            with saver.saved_when_preempted():
                last = self._measured(progress, best)
        finally:
            self._metrics.close()
        return progress, loader, last

    def _saver(self) -> loop.Saver:
        """What takes checkpoints, and says where to go on."""
        identity = Identity(self._trial.key, code_versions())
        minutes = self._settings.checkpoint_minutes
        saver = loop.Saver(self._run_dir, identity, minutes, self._preemption)
        if saver.resumed is not None and saver.resumed.state["device"] != device_name():
            there = saver.resumed.state["device"]
            self._findings.note(
                f"the first {saver.resumed.step} steps were trained on another device: {there}"
            )
        return saver

    def _best(self) -> Best | None:
        """What keeps the best evaluation's parameters; None where the last step's are kept."""
        settings = self._settings
        if settings.keep == "last":
            return None
        metric = self._config["select_on"]
        better = tasks.check(self._config["task"]).metrics[metric.removeprefix("valid/")]
        return Best(metric, higher=better == "maximize", patience=settings.patience)

    def _measured(self, progress: TrainingProgress, best: Best | None) -> dict[str, float]:
        """The metrics of the parameters that are kept, which the model has from here on."""
        step = len(progress.losses)
        if best is None:
            return self._score(step, "valid", "test")
        if not progress.evaluated:
            self._findings.note(
                f"train.keep: best had one evaluation to choose from: train.eval_every "
                f"{self._settings.eval_every} is not below the {step} steps of the training"
            )
        if progress.evaluated < step:
            metrics = self._score(step, "valid")
            with self._preemption.whole():
                best.offer(self._model, step, metrics)
                progress.evaluated = step
        elif best.gives_up:
            self._findings.note(
                f"training ended after step {step}: the last {self._settings.patience} evaluations "
                f"had no better {best.metric}"
            )
        with self._preemption.whole():
            best.restore(self._model)
        self._preemption.check()
        self._findings.kept = best.record(step)
        return best.values | self._finite(self._findings.kept.step, "test")

    def _score(self, step: int, *splits: str) -> dict[str, float]:
        """The metrics of `splits` after `step`, written down; all must be finite."""
        values = self._finite(step, *splits) | adapters.monitor(self._model)
        self._metrics.write(step, values)
        return values

    def _finite(self, step: int, *splits: str) -> dict[str, float]:
        """The metrics of `splits` with the parameters after `step`; all must be finite."""
        values = self._measure(*splits)
        bad = [f"{name} is {value}" for name, value in values.items() if not math.isfinite(value)]
        if bad:
            raise NotFinite(f"{', '.join(bad)} after step {step}")
        return values

    def _measure(self, *splits: str) -> dict[str, float]:
        """The metrics of `splits`, called `split/metric`."""
        metrics: dict[str, float] = {}
        for split in splits:
            measured = self._fitting(partial(self._evaluate, split))
            self._by_row[split] = measured.by_row
            metrics |= {f"{split}/{name}": value for name, value in measured.metrics.items()}
        return metrics

    def _evaluate(self, split: str, rows: int, half: torch.dtype | None) -> Measured:
        """Evaluate the model, replayed from CUDA graphs where that can be."""
        wanted = self._settings.capture == "auto" and self._prepared.evaluates_plainly
        replayed = wanted and not self._findings.has_note(NOT_REPLAYED)
        forward = captured_forward(self._model, self._findings.note)
        with forward if replayed else nullcontext(self._model) as model:
            return self._prepared.measure(model, split, rows, half)

    def _fitting(self, evaluation: Callable[[int, torch.dtype | None], T]) -> T:
        """What `evaluation` finds with as many rows at once as fit; it gets the type of mixed
        precision too."""
        half = None if self._dtype is torch.float32 else self._dtype
        while True:
            try:
                return evaluation(self._eval_rows, half)
            except Exception as error:
                if not is_out_of_memory(error) or self._eval_rows == 1:
                    raise
            self._eval_rows //= 2  # out of the handler: the error's frames held the batch
            self._findings.note(
                f"evaluated with {self._eval_rows} rows at once, more need too much memory"
            )
            free_memory()

    def _cost(self, progress: TrainingProgress, loader: TimedLoader) -> Cost:
        counts = adapters.count_parameters(self._model)
        return Cost(
            trainable_parameters=counts["trainable"],
            adapter_parameters=counts["adapter"],
            phi_parameters=counts["phi"],
            total_parameters=counts["total"],
            train_seconds=round(progress.seconds, 3),
            step_seconds=progress.median_step_seconds,
            peak_memory_bytes=max(progress.peak_memory_bytes, peak_memory_bytes()),
            tokens_per_second=round(progress.tokens / progress.seconds, 1),
            data_share=round(loader.seconds / progress.seconds, 5),
            processor_seconds=round(self._processor_seconds, 3),
        )

    @contextmanager
    def _counted(self) -> Iterator[None]:
        """Count the processor time of what runs inside."""
        began = time.process_time()
        try:
            yield
        finally:
            self._processor_seconds += time.process_time() - began


def _prepare_dtype(model: torch.nn.Module, backbone: dict[str, Any]) -> torch.dtype:
    """Turn on what the backbone's entry asks for beyond loading; the dtype of its weights."""
    spec = backbones.check(backbone)
    if spec.gradient_checkpointing:
        assert isinstance(model, PreTrainedModel), "a matrix has no layers to compute again"
        model.gradient_checkpointing_enable({"use_reentrant": False})
    dtype: torch.dtype = getattr(torch, spec.dtype)
    return dtype


def free_memory() -> None:
    """Give back what nobody holds any more."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
