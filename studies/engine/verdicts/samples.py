"""What a claim is about as the trials measured it: its weighted sum of arms, seed by seed."""

import math
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from studies.engine.definition.contrasts import Term, WeightedSum
from studies.engine.definition.sections import RANK_METRICS
from studies.engine.planning import runs
from studies.engine.verdicts.collapsed import Discordant, Share, has_collapsed
from studies.engine.verdicts.crossed import crossed
from studies.engine.verdicts.median import Median
from studies.engine.verdicts.row_scores import NoRows, Read, Results, by_seed_and_row
from studies.engine.verdicts.statistics import Measured, Summary, summarize

RUNS = "runs"
"""What the interval or test of a claim about collapsed runs is about."""
BOTH = "seeds and test rows"
MEDIAN = "seeds alone: a median"
_COUNT = re.compile(rf"cost/.*|{RANK_METRICS}/(step_\d+/)?\w+/rank")
"""A metric that the form of the method may fix: a cost, or the rank of its updates."""
SAME = "the difference is the same for every seed"


@dataclass(frozen=True)
class Sample:
    """The weighted sum of a claim over the seeds that all its arms finished."""

    n: int
    """Seeds that all arms share."""
    value: float | None
    """Their mean, or the statistic that the claim asks for."""
    measured: Measured | Median | Share | Discordant | None
    """The same as its test takes it; None where there can be no interval."""
    exact: bool
    """Whether it is a count, of which one value on all seeds is no accident."""
    note: str
    """Why there can be no interval."""
    over: str = ""
    """What the error is about: seeds and test rows, or seeds alone and why."""
    numbers: tuple[float, ...] = ()
    """The weighted sum at each seed."""


def arms_of(total: WeightedSum) -> tuple[str, ...]:
    """The arms that are summed, each once."""
    return tuple(dict.fromkeys(term.of for term in total.terms if isinstance(term.of, str)))


def sample(
    total: WeightedSum,
    results: Results,
    metric: str,
    seeds: Collection[int] | None = None,
    measured: Sequence[tuple[Results, str]] = (),
    read: Read | None = None,
) -> Sample:
    """`total` of `metric` over those of `seeds`, None for all, that every arm of it finished.

    Where `results` are means over tasks, `measured` are those of each task with its metric; `read`
    gives what their trials have kept by row.
    """
    arms = arms_of(total)
    units = list(dict.fromkeys(term.unit for term in total.terms))
    values_of, size, zero = dict[int, float](), 0.0, ""
    for seed in shared_seeds(arms, results, seeds):
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
        values_of[seed] = math.fsum(sums[unit] / of[unit] for unit in of)
    numbers = list(values_of.values())
    summary = summarize(numbers, size)
    note = summary.note if numbers or len(arms) == 1 else "no finished seed in common"
    if summary.std == 0.0:
        note = SAME
    known = all(_COUNT.fullmatch(term.metric or metric) for term in total.terms)
    exact = known and summary.std == 0.0 and not zero
    tested, over = None if zero else summary.measured, ""
    if summary.n > 1 and not exact and not zero:
        on = measured or [(results, metric)]
        tested, over = _with_rows(summary, total, on, list(values_of), read, size)
        note = "" if tested is not None else note
    mean = numbers[0] if exact else summary.mean
    return Sample(summary.n, mean, tested, exact, zero or note, over, tuple(numbers))


def of_median(sample: Sample) -> Sample:
    """The median of what `sample` has the mean of, over seeds alone."""
    if sample.exact or not sample.numbers:
        return sample
    median = Median.of(sample.numbers)
    if sample.measured is None:
        return replace(sample, value=median.center)
    return replace(sample, value=median.center, measured=median, over=MEDIAN)


def shared_seeds(
    arms: Sequence[str], results: Results, seeds: Collection[int] | None = None
) -> list[int]:
    """Those of `seeds`, None for all, at which all `arms` have ended."""
    shared = sorted(set.intersection(*(set(results.get(arm, {})) for arm in arms)))
    return [seed for seed in shared if seeds is None or seed in seeds]


def sample_of_collapsed(
    total: WeightedSum, results: Results, seeds: Collection[int] | None = None
) -> Sample:
    """`total`, an arm less a number or another arm, of the share of collapsed runs."""
    first, second = (term.of for term in total.terms)
    arms = arms_of(total)
    shared = shared_seeds(arms, results, seeds)
    outcomes = [[has_collapsed(results[arm][seed]) for arm in arms] for seed in shared]
    known = [each for each in outcomes if None not in each]
    n = len(known)
    if not n:
        return Sample(0, None, None, False, "no finished seed" + " in common" * (len(arms) > 1))
    if not isinstance(second, str):
        share = Share(sum(bool(own) for (own,) in known), n, second)
        return Sample(n, share.mean, share, False, "", RUNS)
    ours, theirs = ([pair.count(True) == 1 and bool(pair[i]) for pair in known] for i in (0, 1))
    pair = Discordant(sum(ours), sum(theirs), n)
    both = sum(all(each) for each in known)
    note = (
        f"`{first}` alone collapsed with {pair.first} of {n} seeds, `{second}` alone with "
        f"{pair.second}, both with {both}"
    )
    return Sample(n, pair.mean, pair, False, note, RUNS)


def _with_rows(
    alone: Summary,
    total: WeightedSum,
    measured: Sequence[tuple[Results, str]],
    seeds: Sequence[int],
    read: Read | None,
    size: float,
) -> tuple[Measured | None, str]:
    """The mean with its error over seeds and rows, or that over seeds `alone`, and which it is."""
    try:
        both = crossed(by_seed_and_row(total, measured, seeds, read), size)
    except NoRows as error:
        return alone.measured, f"seeds alone: {error}"
    assert alone.mean is not None, "there are seeds"
    if not both.error:
        return alone.measured, BOTH
    return replace(both, mean=alone.mean, of_seeds=alone.measured), BOTH


def _number(term: Term, results: Results, seed: int, metric: str) -> float | None:
    if not isinstance(term.of, str):
        return term.of
    return runs.value_of(results[term.of][seed], term.metric or metric)
