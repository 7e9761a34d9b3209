"""How much of an adapter a task needs: its score against the parameters that are kept."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import nn

from adapters.export.lora import build, source_parameters
from adapters.export.rank_allocation import allocate
from adapters.export.substitution import in_force
from adapters.export.updates import layer_updates


@dataclass(frozen=True)
class CurvePoint:
    """One export and its score."""

    parameters: int
    share: float
    """`parameters` as a share of those that were trained."""
    kept_energy: float
    relative_error: float
    ranks: tuple[int, ...]
    score: float


def accuracy_curve(
    model: nn.Module,
    evaluate: Callable[[nn.Module], float],
    budgets: Sequence[int | float] = (1.0, 0.5, 0.25, 0.1, 0.05),
    adapter: str = "default",
) -> tuple[float, list[CurvePoint]]:
    """The score of the adapter itself, and of its exports by global threshold at each budget.

    Each export is put into the weights for the time of its evaluation; the model is as before
    afterwards, bit for bit.

    Args:
        model: A PEFT model with `adapter` on it.
        evaluate: Returns the score of a model; it is called with `model`.
        budgets: As in `adapters.export.rank_allocation`.
        adapter: The adapter's name.

    Raises:
        ValueError: As `to_lora`, or an adapter that is merged already.
    """
    updates = layer_updates(model, adapter)
    source = source_parameters(updates)
    full = evaluate(model)
    points = []
    for budget in budgets:
        ranks = allocate(updates, budget=budget, reference=source)
        export = build(model, adapter, updates, ranks)
        with in_force(updates, export.update_of):
            score = evaluate(model)
        points.append(
            CurvePoint(
                export.parameters,
                export.parameters / source,
                export.kept_energy,
                export.relative_error,
                tuple(ranks),
                score,
            )
        )
    return full, points
