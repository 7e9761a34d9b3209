"""The training loop: the bits of transformers' Trainer, and the learning rates it writes down."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.optim.optimizer import register_optimizer_step_pre_hook
from transformers import (
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainingArguments,
    get_scheduler,
    set_seed,
)

import adapters
from adapters.training import hooks
from studies import backbones, tasks
from studies.engine.definition.train import Train, total_steps
from studies.engine.trials.metrics_file import MetricsFile
from studies.engine.trials.preemption import Preemption
from studies.engine.trials.training import loop
from studies.engine.trials.training.batches import train_loader
from studies.engine.trials.training.checkpoint import Identity
from studies.engine.trials.training.schedule import rate_factor
from studies.engine.trials.trial import run_trial

pytestmark = pytest.mark.slow

LIMIT = 0.05  # below most norms of the gradient


class Clip(TrainerCallback):
    """Clips as adapters do, and keeps the losses' gradient norms."""

    def __init__(self) -> None:
        self.norms: list[float] = []

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.norms.append(adapters.clip_gradients(kwargs["model"], LIMIT).item())


def with_trainer(
    model: torch.nn.Module, loader: Any, settings: Train, loss: Any, folder: Path
) -> list[float]:
    """Train with transformers' Trainer; the gradient norms."""
    groups = adapters.parameter_groups(model, settings.learning_rate, settings.weight_decay)
    steps = total_steps(settings, len(loader))
    arguments = TrainingArguments(
        output_dir=str(folder),
        per_device_train_batch_size=settings.batch_size,
        gradient_accumulation_steps=settings.gradient_accumulation,
        max_steps=steps,
        lr_scheduler_type=settings.schedule,
        warmup_steps=round(settings.warmup_ratio * steps),
        max_grad_norm=0.0,
        seed=7,
        use_cpu=True,
        report_to="none",
        disable_tqdm=True,
        save_strategy="no",
    )
    clip, optimizer = Clip(), torch.optim.AdamW(groups, lr=settings.learning_rate)
    trainer = Trainer(
        model=model,
        args=arguments,
        train_dataset=loader.dataset,
        optimizers=(optimizer, None),
        compute_loss_func=lambda given, labels, num_items_in_batch: loss(
            given, labels, num_items_in_batch
        ),
        callbacks=[clip, adapters.StepCallback()],
    )
    trainer.remove_callback(PrinterCallback)
    trainer.get_train_dataloader = lambda: loader
    trainer.train()
    return clip.norms


@pytest.mark.parametrize("schedule", ["linear", pytest.param("cosine", marks=pytest.mark.thorough)])
@pytest.mark.parametrize("method", ["lora", "basis", "adalora"])
def test_a_training_gives_the_bits_of_transformers_trainer(
    method: str, schedule: str, make: Any, tmp_path: Path
) -> None:
    adapter = {"method": method, "r": 4, "alpha": 8, "target_modules": ["query", "value"]}
    if method == "basis":
        adapter |= {"basis": "sinc", "num_basis": 8, "start": "anchored"}
    config = make(task={"train_rows": 100}).config
    settings = Train.read(
        "train",
        # 7 batches an epoch, so the last of its 4 steps has one batch
        {"epochs": 2, "batch_size": 16, "gradient_accumulation": 2, "learning_rate": 0.02,
         "weight_decay": 0.1, "warmup_ratio": 0.25, "schedule": schedule, "max_grad_norm": LIMIT},
    )  # fmt: skip
    data = tasks.load(config["task"], 0)
    set_seed(3)
    plain, tokenizer = backbones.load(config["backbone"], tasks.head(config["task"], data))
    prepared = tasks.prepare(config["task"], data, tokenizer)
    model = adapters.attach(plain, adapter)
    other = copy.deepcopy(model)

    def loader() -> Any:
        return train_loader(prepared.train, prepared.collate, settings.batch_size, seed=5)

    norms = with_trainer(other, loader(), settings, prepared.loss, tmp_path / "trainer")
    metrics = MetricsFile(tmp_path / "metrics.jsonl")
    progress = loop.train(
        model,
        loader(),
        settings,
        dtype=torch.float32,
        dropout_seed=7,
        metrics=metrics,
        on_evaluate=pytest.fail,
        best=None,
        loss=prepared.loss,
        saver=loop.Saver(tmp_path, Identity("key", {}), None, Preemption()),
        micro_batch=settings.batch_size,
        may_capture=True,
        note=pytest.fail,
    )
    lines = [json.loads(line) for line in metrics.text.splitlines()]
    metrics.close()
    assert [line["train/grad_norm"] for line in lines] == norms and max(norms) > LIMIT
    assert len(progress.losses) == 8
    theirs = dict(other.named_parameters())
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, theirs[name]), name


@pytest.mark.parametrize(
    ("epochs", "batches", "steps"),
    [(2.2, 50, 110), (1.1, 70, 77), (2.3, 50, 115), (0.001, 50, 1), (1e-05, 9, 1), (2, 7, 14)],
)
def test_epochs_are_counted_as_they_are_written(epochs: float, batches: int, steps: int) -> None:
    settings = Train.read("train", {"epochs": epochs})
    assert total_steps(settings, batches) == steps
    accumulated = Train.read("train", {"epochs": epochs, "gradient_accumulation": 2})
    assert total_steps(accumulated, 2 * batches) == steps


@pytest.mark.parametrize("warmup", [0.0, 0.1, 0.5])
@pytest.mark.parametrize("schedule", ["constant", "linear", "cosine"])
def test_learning_rates_are_those_of_transformers(schedule: str, warmup: float) -> None:
    settings = Train.read("train", {"schedule": schedule, "warmup_ratio": warmup, "epochs": 3.3})
    steps = total_steps(settings, 13)
    assert steps == 43
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=0.0123)
    name = "constant_with_warmup" if schedule == "constant" else schedule
    scheduler = get_scheduler(name, optimizer, round(warmup * steps), steps)
    for before in range(steps + 1):
        assert 0.0123 * rate_factor(settings, before, steps) == scheduler.get_last_lr()[0]
        optimizer.step()
        scheduler.step()


def test_the_learning_rate_that_is_written_is_the_one_the_step_used(
    make: Any, tmp_path: Path
) -> None:
    used: list[float] = []

    def before_step(optimizer: torch.optim.Optimizer, *arguments: object) -> None:
        used.append(optimizer.param_groups[0]["lr"])

    hook = register_optimizer_step_pre_hook(before_step)
    try:
        run_trial(make(train={"warmup_ratio": 0.25}), tmp_path)
    finally:
        hook.remove()
    lines = map(json.loads, (tmp_path / "metrics.jsonl").read_text().splitlines())
    written = [line["train/learning_rate"] for line in lines if "train/loss" in line]
    assert written == used and len(used) == 8
    assert written[0] == 0 and written[2] == 0.02 and written[-1] > 0


def test_with_float16_gradients_are_clipped_and_written_without_the_loss_scale(
    make: Any, without_dropout: Path, tmp_path: Path
) -> None:
    norms = []
    for dtype in ("float32", "float16"):
        backbone = {"name": str(without_dropout), "dtype": dtype, "attention": "eager"}
        result = run_trial(make(backbone=backbone, train={"max_steps": 1}), tmp_path / dtype)
        assert result.status == "done", result.failure
        norms.append(json.loads((tmp_path / dtype / "metrics.jsonl").open().readline()))
    assert norms[1]["train/grad_norm"] == pytest.approx(norms[0]["train/grad_norm"], rel=2e-2)


@pytest.mark.parametrize(
    ("adapter", "acts"),
    [
        ({"method": "lora"}, False),
        ({"method": "lora_plus"}, False),
        ({"method": "basis", "basis": "sinc"}, False),
        ({"method": "adalora"}, True),
        ({"method": "dylora"}, True),
        ({"method": "head_only"}, False),
    ],
    ids=lambda case: case["method"] if isinstance(case, dict) else "",
)
def test_methods_that_act_on_the_host_are_known(adapter: dict, acts: bool, tiny_bert: Path) -> None:
    model, _ = backbones.load(str(tiny_bert), backbones.Head("text_classes", ("bad", "good")))
    adapted = adapters.attach(model, {"target_modules": ["query"], **adapter})
    assert hooks.acts_on_the_host(adapted) is acts
