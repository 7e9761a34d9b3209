"""Evaluations of a trained model beyond its own: pruned, phi made affine, ranks, loss around it.

Each leaves the model as it found it.
"""

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from adapters.export import (
    affine_in_force,
    allocate,
    build,
    in_force,
    layer_updates,
    source_parameters,
)
from adapters.spectrum import rank_statistics, size_statistics
from studies.engine.definition import checks
from studies.engine.definition.sections import (
    SURFACE,
    SURFACE_FACTS,
    After,
    Landscape,
    LossSurface,
    Para,
    gap_name,
    landscape_name,
    para_name,
    spectra_name,
    steps_to_name,
    train_name,
)
from studies.engine.trials.landscape import filter_normalised, moved, surface
from studies.engine.trials.seeds import derive
from studies.engine.trials.spectra_file import write_spectra
from studies.engine.trials.training.snapshots import Snapshots

Curve = Sequence[tuple[int, float]]
"""Steps of the training with the value of a metric after each."""
Evaluate = Callable[..., Mapping[str, float]]
"""From names of splits to the model's metrics there, `split/metric`."""


@dataclass(frozen=True)
class Subject:
    """A trained model, and what its trial knows of it."""

    model: nn.Module
    adapter: Mapping[str, Any]
    """`adapter` of the configuration: a method that adds no matrix to the weight is not pruned, one
    without phi is not made affine, and one that changes no weight has no rank."""
    trained: Mapping[str, float]
    """The model's own metrics."""
    evaluate: Evaluate
    """Measures the model as it is."""
    before: Callable[[], nn.Module]
    """Loads the model as it was before it was adapted."""
    seed: int
    """The trial's."""
    folder: Path
    """Where spectra are kept."""
    snapshots: Snapshots = field(default_factory=Snapshots)
    """What it was in its training."""
    sizes: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """Those of its phis before training, see `adapters.spectrum.phi_sizes`."""
    directions: Mapping[str, str] = field(default_factory=dict)
    """The task's metrics, and which way each is better."""
    on_training_rows: Callable[[], Mapping[str, float]] = dict
    """Measures the model on training rows, by the task's names."""
    objective: Callable[[int], float] = float
    """The training loss of the model as it is, on so many training rows."""
    curve: Curve = ()
    """The evaluations of its training, by what is chosen by."""
    higher: bool = True
    """Whether more of that is better."""
    steps: int = 0
    """That the training could have had."""


def evaluate_after(after: After, subject: Subject) -> dict[str, float]:
    """The metrics that `after`, a section of a configuration, asks for; see `After.names`.

    There are none where they mean nothing.

    Raises:
        ValueError: The update is zero, or the weights are quantised.
    """
    metrics: dict[str, float] = {}
    model, evaluate, traits = subject.model, subject.evaluate, checks.traits(subject.adapter)
    if after.para is not None and traits.pruned:
        metrics |= _pruned(model, after.para, evaluate)
    if after.affine and traits.phi:
        metrics |= _affine(model, subject.trained, evaluate)
    if after.spectra and traits.changed:
        metrics |= _spectra(subject)
    if after.landscape is not None:
        metrics |= _line(subject, after.landscape)
    if after.loss_surface is not None:
        metrics |= _plane(subject, after.loss_surface)
    if after.generalization:
        metrics |= _generalization(subject)
    for value in after.steps_to:
        metrics |= steps_to(value, subject.curve, subject.higher, subject.steps)
    return {name: value for name, value in metrics.items() if math.isfinite(value)}


def _pruned(model: nn.Module, para: Para, evaluate: Evaluate) -> dict[str, float]:
    """PARA: the pooled singular values that fit into each share of the trained parameters."""
    updates = layer_updates(model)
    source = source_parameters(updates)
    named: dict[str, float] = {}
    for share in para.kept:
        ranks = allocate(updates, budget=float(share), reference=source)
        export = build(model, "default", updates, ranks)
        with in_force(updates, export.update_of):
            metrics = dict(evaluate("valid", "test"))
        metrics |= {
            "parameters": export.parameters,
            "kept_energy": export.kept_energy,
            "rank_mean": statistics.fmean(ranks),
            "rank_spread": statistics.pstdev(ranks),
        }
        named |= {f"{para_name(share)}/{name}": float(value) for name, value in metrics.items()}
    return named


def _affine(model: nn.Module, trained: Mapping[str, float], evaluate: Evaluate) -> dict[str, float]:
    with affine_in_force(model) as fits:
        metrics = evaluate("valid", "test")
    named = {f"after/affine/{name}": value for name, value in metrics.items()}
    named |= {
        f"after/affine/difference/{name}": value - trained[name]
        for name, value in metrics.items()
        if name in trained
    }
    share = statistics.fmean(fit.residual for fit in fits.values())
    return named | {"after/affine/non_affine_share": share}


def _spectra(subject: Subject) -> dict[str, float]:
    """Ranks and sizes of what was trained, and of what it was after each step that was copied."""
    before = subject.before() if checks.traits(subject.adapter).needs_weights else None
    metrics = _inside(subject, before)
    with subject.snapshots.each(subject.model) as steps:
        for step in steps:
            metrics |= _inside(subject, before, step)
    return metrics


def _inside(
    subject: Subject, before: nn.Module | None, step: int | None = None
) -> dict[str, float]:
    """Ranks and sizes of the model as it is, which is what it was after `step`."""
    model = subject.model
    numbers = rank_statistics(model, write_spectra(model, subject.folder, before, step))
    numbers |= size_statistics(model, subject.sizes)
    return {f"{spectra_name(step)}/{name}": value for name, value in numbers.items()}


def _line(subject: Subject, landscape: Landscape) -> dict[str, float]:
    direction = filter_normalised(subject.model, derive(subject.seed, "landscape"))
    losses = {}
    for step in landscape.steps:
        with moved(direction, step):
            losses[landscape_name(step)] = subject.evaluate("valid")["valid/loss"]
    return losses


def _plane(subject: Subject, wanted: LossSurface) -> dict[str, float]:
    names = ("surface, first direction", "surface, second direction")
    first, second = (filter_normalised(subject.model, derive(subject.seed, n)) for n in names)
    loss = surface(lambda: subject.objective(wanted.rows), first, second, wanted.steps)
    np.savez_compressed(subject.folder / SURFACE, steps=wanted.steps, loss=loss)
    finite = loss[np.isfinite(loss)]
    ends = (loss[wanted.points // 2, wanted.points // 2], finite.min(), finite.max())
    return {f"after/loss_surface/{k}": float(v) for k, v in zip(SURFACE_FACTS, ends, strict=True)}


def _generalization(subject: Subject) -> dict[str, float]:
    metrics = {}
    for metric, value in subject.on_training_rows().items():
        metrics[train_name(metric)] = value
        test, way = subject.trained.get(f"test/{metric}"), subject.directions.get(metric)
        if test is not None and way is not None:
            metrics[gap_name(metric)] = value - test if way == "maximize" else test - value
    return metrics


def steps_to(value: float, curve: Curve, higher: bool, steps: int) -> dict[str, float]:
    """After how many steps an evaluation of `curve` first had `value` or a better one.

    Where none had, it counts as all `steps` that the training could have had, a lower bound, and
    `reached` is 0 instead of 1.
    """
    reached = [step for step, score in curve if (score >= value if higher else score <= value)]
    first = {"steps": float(min(reached, default=steps)), "reached": float(bool(reached))}
    return {f"{steps_to_name(value)}/{name}": number for name, number in first.items()}
