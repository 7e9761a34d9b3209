"""What the trials of an arm tell of it beside its numbers."""

import statistics
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from studies import published
from studies.engine.definition.points import value_at
from studies.engine.definition.train import Train, planned_steps
from studies.engine.records import Cost, Result, Trial


def steps_of(trial: Trial, result: Result | None) -> tuple[int | None, float | None]:
    """How many optimizer steps `trial`, which found `result`, had, and how many epochs they were.

    No epochs are told where `max_steps` ended them.
    """
    rows = {} if result is None else result.data.get("rows", {})
    if not rows.get("train") or "train" not in trial.config:
        return None, None
    train = Train.model_validate(trial.config["train"])
    steps = planned_steps(train, rows["train"])
    whole = planned_steps(train.model_copy(update={"max_steps": None}), rows["train"])
    return steps, train.epochs if steps == whole else None


def figure(
    table: published.Table | None, trial: Trial, is_baseline: bool, x: Any
) -> published.Figure | None:
    """The paper's figure for an arm, of which `trial` is one."""
    if table is None:
        return None
    return table.baseline_figure if is_baseline else table.at(x, setting(trial, "adapter.method"))


NEARLY = 0.1
"""Share of the baseline's parameters by which an arm that is matched to it may be off."""


def matched(done: Iterable[Result]) -> str:
    """What size was chosen for an arm that is matched to the baseline, by its finished trials."""
    for c in (result.chosen for result in done if result.chosen):
        size = f"{c['option']} = {c['value']}" if c.get("option") else "no size to choose"
        own, others = c["parameters"], c["reference_parameters"]
        off = abs(own - others) > NEARLY * others
        return (
            f"{size}: {own:,} trained parameters beside the head, for the baseline's {others:,}"
            f"{f'; **not matched**, {own / others:.2g} times as many' * off}"
        )
    return ""


def setting(trial: Trial, path: str) -> Any:
    """The trial's value at a dotted `path`, swept or from its configuration; None where absent."""
    return trial.swept[path] if path in trial.swept else value_at(trial.config, path)


def median_cost(costs: Sequence[Cost]) -> Cost | None:
    """The median over seeds, of peak memory the largest; None where there is none."""
    return _merged(costs, statistics.median_low, peak_memory_bytes=max)


def mean_cost(costs: Sequence[Cost | None]) -> Cost | None:
    """The mean over tasks, counts rounded; None where a task has none."""
    known = [cost for cost in costs if cost is not None]

    def mean(values: Sequence[Any]) -> Any:
        exact = statistics.fmean(values)
        return round(exact) if isinstance(values[0], int) else exact

    return _merged(known, mean) if len(known) == len(costs) else None


def _merged(
    costs: Sequence[Cost], merge: Callable[..., Any], **merge_of: Callable[..., Any]
) -> Cost | None:
    """Each field merged over those of `costs` that have it; `merge_of` is for single fields."""
    merged: dict[str, Any] = {}
    for name in Cost.model_fields if costs else ():
        known = [value for cost in costs if (value := getattr(cost, name)) is not None]
        merged[name] = merge_of.get(name, merge)(known) if known else None
    return Cost(**merged) if merged else None
