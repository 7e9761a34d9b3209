"""One cost for several trials."""

import statistics
from collections.abc import Callable, Sequence
from typing import Any

from studies.engine.records import Cost


def median_cost(costs: Sequence[Cost]) -> Cost | None:
    """The median over seeds, of peak memory the largest; None where there is none."""
    return _merged(costs, statistics.median_low, peak_memory_bytes=max)


def mean_cost(costs: Sequence[Cost | None]) -> Cost | None:
    """The mean over tasks, counts rounded; None where a task has none."""
    known = [cost for cost in costs if cost is not None]
    return _merged(known, _mean) if len(known) == len(costs) else None


def _mean(values: Sequence[Any]) -> Any:
    mean = statistics.fmean(values)
    return round(mean) if isinstance(values[0], int) else mean


def _merged(
    costs: Sequence[Cost], merge: Callable[..., Any], **merge_of: Callable[..., Any]
) -> Cost | None:
    """Each field merged over those of `costs` that have it; `merge_of` is for single fields."""
    merged: dict[str, Any] = {}
    for name in Cost.model_fields if costs else ():
        known = [value for cost in costs if (value := getattr(cost, name)) is not None]
        merged[name] = merge_of.get(name, merge)(known) if known else None
    return Cost(**merged) if merged else None
