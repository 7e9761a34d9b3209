"""Ranks for all layers at once: one threshold over their pooled singular values.

This is PARA (arXiv 2604.27796): data-free, after training. Values above the threshold are kept
wherever they lie, so layers get unequal ranks, some none.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from adapters.basis.field_types import require
from adapters.export.updates import LayerUpdate

_FIRST_GUESS = 32
_WORTH_A_LOOK = 0.1
"""Layers whose smallest known value is this much below another's wait for that one first."""

Stop = Callable[[Tensor, Tensor], tuple[int, float]]
"""From falling values and their costs: how many are kept, and the largest value that is not."""


def allocate(
    updates: Sequence[LayerUpdate],
    *,
    rank: int | None = None,
    energy: float | None = None,
    budget: int | float | None = None,
    threshold: float | None = None,
    reference: int | None = None,
) -> list[int]:
    """A rank for every update, by exactly one of four rules.

    Args:
        updates: The layers.
        rank: The same for all, as far as a layer has it.
        energy: The smallest number of pooled values that hold this share of the squared norm of
            all updates together.
        budget: As many of the largest pooled values as fit into this many LoRA parameters; a
            float up to 1 is a share of `reference`.
        threshold: All values of at least this.
        reference: Number of parameters that a float `budget` is a share of.

    Raises:
        ValueError: Not exactly one rule, a value out of range, or updates that are all zero.
    """
    rules = {"rank": rank, "energy": energy, "budget": budget, "threshold": threshold}
    chosen = [name for name, value in rules.items() if value is not None]
    if len(chosen) != 1:
        raise ValueError(f"give exactly one of rank, energy, budget, threshold; got {chosen}")
    if not sum(update.energy for update in updates) > 0:
        raise ValueError("all updates are zero: train the adapter before exporting it")
    if rank is not None:
        require(isinstance(rank, int) and rank >= 1, "rank", "an integer >= 1", rank)
        return [min(rank, update.largest_rank) for update in updates]
    if energy is not None:
        require(0 < energy <= 1, "energy", "a share in (0, 1]", energy)
        goal = energy * sum(update.energy for update in updates)
        return _pool(updates, lambda values, costs: _by_energy(values, goal))
    if budget is not None:
        if isinstance(budget, float):
            share = 0 < budget <= 1 and reference is not None
            require(share, "budget", "parameters as an integer, or a share in (0, 1]", budget)
            budget = int(budget * (reference or 0))
        require(budget > 0, "budget", "positive", budget)
        room = budget
        return _pool(updates, lambda values, costs: _by_budget(values, costs, room))
    assert threshold is not None
    require(threshold > 0, "threshold", "positive", threshold)
    return _pool(updates, lambda values, costs: (int((values >= threshold).sum()), threshold))


def _pool(updates: Sequence[LayerUpdate], stop: Stop) -> list[int]:
    """Decompose only as far as the threshold reaches into each layer."""
    counts = [min(_FIRST_GUESS, update.largest_rank) for update in updates]
    while True:
        spectra = [u.leading(n).s.double().cpu() for u, n in zip(updates, counts, strict=True)]
        costs = [u.cost for u, s in zip(updates, spectra, strict=True) for _ in s]
        owners = torch.cat([torch.full((len(s),), i) for i, s in enumerate(spectra)])
        values, order = torch.cat(spectra).sort(descending=True, stable=True)
        count, first_left = stop(values, torch.tensor(costs)[order])
        blind = [
            i
            for i, (u, s) in enumerate(zip(updates, spectra, strict=True))
            if len(s) < u.largest_rank and s[-1] >= first_left and s[-1] > 0
        ]
        if not blind:
            return torch.bincount(owners[order][:count], minlength=len(updates)).tolist()
        deepest = max(float(spectra[i][-1]) for i in blind)
        for i in blind:
            if spectra[i][-1] >= _WORTH_A_LOOK * deepest:
                counts[i] = min(2 * len(spectra[i]), updates[i].largest_rank)


def _by_energy(values: Tensor, goal: float) -> tuple[int, float]:
    # float32 factors do not sum to the last bits of the squared norm
    reached = values.square().cumsum(0) >= goal * (1 - 1e-6)
    if not reached.any():
        return int((values > 0).sum()), 0.0
    count = int(reached.int().argmax()) + 1
    return count, _after(values, count)


def _by_budget(values: Tensor, costs: Tensor, room: int) -> tuple[int, float]:
    count = int(((costs.cumsum(0) <= room) & (values > 0)).sum())
    return count, _after(values, count)


def _after(values: Tensor, count: int) -> float:
    return float(values[count]) if count < len(values) else 0.0
