"""Evaluations of a trained model beyond its own: pruned by PARA, phi made affine, a loss slice.

Each leaves the model as it found it.
"""

import math
import statistics
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

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
    After,
    Landscape,
    Para,
    landscape_name,
    para_name,
    spectra_name,
)
from studies.engine.trials.seeds import derive
from studies.engine.trials.spectra_file import write_spectra
from studies.engine.trials.training.snapshots import Snapshots

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


def evaluate_after(section: Mapping[str, Any], subject: Subject) -> dict[str, float]:
    """The metrics that `section`, `after` of a configuration, asks for; see `After.names`.

    There are none where they mean nothing.

    Raises:
        ValueError: The update is zero, or the weights are quantised.
    """
    after = After.model_validate(section)
    found: dict[str, float] = {}
    model, adapter, evaluate = subject.model, subject.adapter, subject.evaluate
    if after.para is not None and checks.can_be_pruned(adapter):
        found |= _pruned(model, after.para, evaluate)
    if after.affine and checks.has_phi(adapter):
        found |= _affine(model, subject.trained, evaluate)
    if after.spectra and checks.changes_weights(adapter):
        found |= _spectra(subject)
    if after.landscape is not None:
        found |= _landscape(model, after.landscape, evaluate, subject.seed)
    return {name: value for name, value in found.items() if math.isfinite(value)}


def _pruned(model: nn.Module, para: Para, evaluate: Evaluate) -> dict[str, float]:
    """PARA: the pooled singular values that fit into each share of the trained parameters."""
    updates = layer_updates(model)
    source = source_parameters(updates)
    found: dict[str, float] = {}
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
        found |= {f"{para_name(share)}/{name}": float(value) for name, value in metrics.items()}
    return found


def _affine(model: nn.Module, trained: Mapping[str, float], evaluate: Evaluate) -> dict[str, float]:
    with affine_in_force(model) as fits:
        metrics = evaluate("valid", "test")
    found = {f"after/affine/{name}": value for name, value in metrics.items()}
    found |= {
        f"after/affine/difference/{name}": value - trained[name]
        for name, value in metrics.items()
        if name in trained
    }
    share = statistics.fmean(fit.lost for fit in fits.values())
    return found | {"after/affine/non_affine_share": share}


def _spectra(subject: Subject) -> dict[str, float]:
    """Ranks and sizes of what was trained, and of what it was after each step that was copied."""
    before = subject.before() if checks.needs_weights(subject.adapter) else None
    found = _inside(subject, before)
    with subject.snapshots.each(subject.model) as steps:
        for step in steps:
            found |= _inside(subject, before, step)
    return found


def _inside(
    subject: Subject, before: nn.Module | None, step: int | None = None
) -> dict[str, float]:
    """Ranks and sizes of the model as it is, which is what it was after `step`."""
    model = subject.model
    numbers = rank_statistics(model, write_spectra(model, subject.folder, before, step))
    numbers |= size_statistics(model, subject.sizes)
    return {f"{spectra_name(step)}/{name}": value for name, value in numbers.items()}


def _landscape(
    model: nn.Module, landscape: Landscape, evaluate: Evaluate, seed: int
) -> dict[str, float]:
    direction = filter_normalised(model, derive(seed, "landscape"))
    found = {}
    for step in landscape.steps:
        with moved(direction, step):
            found[landscape_name(step)] = evaluate("valid")["valid/loss"]
    return found


@torch.no_grad()
def filter_normalised(model: nn.Module, seed: int) -> dict[nn.Parameter, Tensor]:
    r"""A random direction in the trained parameters, as large as they are.

    Each row of a matrix, and each vector as a whole, is drawn from a normal distribution and
    scaled to the norm of its parameters: $d \leftarrow d\,\lVert\theta\rVert / \lVert d\rVert$
    (Li et al. 2018, arXiv 1712.09913, section 4). What is zero stays zero.
    """
    draw = torch.Generator().manual_seed(seed)
    direction: dict[nn.Parameter, Tensor] = {}
    for parameter in model.parameters():
        if parameter.requires_grad and parameter not in direction:
            drawn = torch.randn(parameter.shape, generator=draw).to(parameter.device)
            rows = (1, -1) if parameter.ndim < 2 else (len(parameter), -1)
            size = parameter.detach().float().reshape(rows).norm(dim=1, keepdim=True)
            flat = drawn.reshape(rows)
            flat = flat * size / flat.norm(dim=1, keepdim=True).clamp_min(1e-12)
            direction[parameter] = flat.reshape(parameter.shape)
    return direction


@contextmanager
def moved(direction: Mapping[nn.Parameter, Tensor], step: float) -> Iterator[None]:
    """The parameters of `direction` lie `step` times it further on; afterwards as before."""
    before = {parameter: parameter.detach().clone() for parameter in direction}
    try:
        with torch.no_grad():
            for parameter, way in direction.items():
                parameter.add_(way.to(parameter.dtype), alpha=step)
        yield
    finally:
        with torch.no_grad():
            for parameter, value in before.items():
                parameter.copy_(value)
