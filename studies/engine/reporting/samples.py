"""What a claim is about as the trials measured it: its weighted sum of arms, seed by seed."""

import math
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from studies.engine.definition.contrasts import Term, WeightedSum
from studies.engine.definition.sections import RANK_METRICS
from studies.engine.records import Result, value_of
from studies.engine.reporting.statistics import Measured, summarize

Results = Mapping[str, Mapping[int, Result]]
"""Arm to seed to what the trial found that has ended there."""


@dataclass(frozen=True)
class Sample:
    """The weighted sum of a claim over the seeds that all its arms finished."""

    n: int
    """Seeds that all arms share."""
    mean: float | None
    measured: Measured | None
    """The mean as a t test takes it; None where there can be no interval."""
    exact: bool
    """Whether it is a count, of which one value on all seeds is no accident."""
    note: str
    """Why there can be no interval."""


def arms_of(total: WeightedSum) -> tuple[str, ...]:
    """The arms that are summed, each once."""
    return tuple(dict.fromkeys(term.of for term in total.terms if isinstance(term.of, str)))


def sample(
    total: WeightedSum, results: Results, metric: str, seeds: Collection[int] | None = None
) -> Sample:
    """`total` of `metric` over those of `seeds`, None for all, that every arm of it finished."""
    arms = arms_of(total)
    units = list(dict.fromkeys(term.unit for term in total.terms))
    found, size, zero = [], 0.0, ""
    for seed in sorted(set.intersection(*(set(results.get(arm, {})) for arm in arms))):
        if seeds is not None and seed not in seeds:
            continue
        y = {t: _number(t, results, seed, metric) for t in (*total.terms, *filter(None, units))}
        values = {term: value for term, value in y.items() if value is not None}
        if len(values) < len(y):
            continue
        of = {unit: 1.0 if unit is None else abs(values[unit]) for unit in units}
        if none := [unit.of for unit, value in of.items() if unit is not None and value == 0]:
            zero = f"`{none[0]}` has 0 at seed {seed}, of which nothing is a share"
            continue
        parts = [(term.weight * values[term], term.unit) for term in total.terms]
        size = max(size, *(abs(part) / of[unit] for part, unit in parts))
        sums = {unit: math.fsum(part for part, own in parts if own == unit) for unit in of}
        found.append(math.fsum(sums[unit] / of[unit] for unit in of))
    summary = summarize(found, size)
    note = summary.note if found or len(arms) == 1 else "no finished seed in common"
    if summary.std == 0.0:
        note = "the difference is the same for every seed"
    known = all(_is_count(term.metric or metric) for term in total.terms)
    exact = known and summary.std == 0.0 and not zero
    measured = None if zero else summary.measured
    return Sample(summary.n, found[0] if exact else summary.mean, measured, exact, zero or note)


def _is_count(metric: str) -> bool:
    """Whether the form of the method may fix `metric`: a cost, or the rank of its updates."""
    return metric.startswith("cost/") or bool(
        re.fullmatch(rf"{RANK_METRICS}/(step_\d+/)?\w+/rank", metric)
    )


def _number(term: Term, results: Results, seed: int, metric: str) -> float | None:
    if not isinstance(term.of, str):
        return term.of
    result = results[term.of][seed]
    return value_of(result, term.metric or metric) if result.status == "done" else None
