r"""Rules written before the run, and what the results say of them.

A claim says that a number $d$, a weighted sum of its arms at the same seed such as a difference or
a slope (see `studies.engine.definition.contrasts`), lies in a set $S$: `higher` is $d > m$,
`not_higher` $d \le m$, `within` $|d| \le m$, with the margin $m$ in the unit of $d$. The verdict is
*confirmed* where the interval of $d$ lies in $S$, *refuted* where it lies outside, else *not
decided*. The interval is a t interval over seeds at the level that Holm's step-down grants the
claim among the claims of its study, so that all verdicts together are wrong in at most 5 % of
studies. A cost or a rank that is the same for every seed is known exactly.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from studies.engine.definition.contrasts import Term, WeightedSum, weighted_sum
from studies.engine.definition.points import Point
from studies.engine.definition.sections import RANK_METRICS
from studies.engine.definition.study import ClaimRule
from studies.engine.records import Result, value_of
from studies.engine.reporting.statistics import ALPHA, Summary, summarize, t_quantile, t_test

Word = Literal["confirmed", "refuted", "not decided"]
Results = Mapping[str, Mapping[int, Result]]
"""Arm to seed to what the finished trial found."""


@dataclass(frozen=True)
class Verdict:
    """What the results say of one claim."""

    claim: str
    rule: str
    """The rule in symbols."""
    word: Word
    n: int
    """Seeds that all arms of the claim share."""
    difference: float | None = None
    low: float | None = None
    high: float | None = None
    level: float | None = None
    """Confidence of the interval [low, high], after Holm."""
    note: str = ""
    """Why there is no interval; empty where there is one."""


def judge(
    claims: Sequence[ClaimRule],
    results: Results,
    metric: str,
    points: Sequence[Point] = (),
    tasks: Mapping[str, tuple[Results, str]] = MappingProxyType({}),
) -> list[Verdict]:
    """A verdict for each of `claims`; `metric` and `points`, the arms, are those of the study.

    Of several `tasks` each has its results and its metric; `results` are then the means over them.
    """
    sums = [weighted_sum(claim, points) for claim in claims]
    sets = [_set(claim) for claim in claims]
    measured = [tasks.get(claim.task or "", (results, metric)) for claim in claims]
    samples = [_sample(total, *each) for total, each in zip(sums, measured, strict=True)]
    over = "mean over tasks" if tasks else ""
    rules = [
        rule(claim, total, own, claim.task or over)
        for claim, total, (_, own) in zip(claims, sums, measured, strict=True)
    ]
    levels = _levels([_p(*pair) for pair in zip(samples, sets, strict=True)])
    return [_verdict(*each) for each in zip(claims, samples, sets, levels, rules, strict=True)]


def rule(claim: ClaimRule, total: WeightedSum, metric: str, on: str = "") -> str:
    """The claim about `total` in symbols; `on` says of which task."""
    expected, margin = claim.expect.replace("_", " "), f"{claim.margin:g}"
    bound = f"than −{margin}" if "lower" in expected and claim.margin else f"than {margin}"
    bound = f"±{margin}" if "within" in expected else bound
    what = f"{claim.metric or metric} ({on})" if on else claim.metric or metric
    return f"{what}: {total.text} is {expected} {bound}"


def _set(claim: ClaimRule) -> tuple[float, float, bool]:
    """The open interval that the claim, or its opposite (True), is about."""
    margin, word = claim.margin, claim.expect
    negated = word.startswith("not_")
    word = word.removeprefix("not_")
    if word == "within":
        return -margin, margin, negated
    return (margin, math.inf, negated) if word == "higher" else (-math.inf, -margin, negated)


@dataclass(frozen=True)
class _Sample:
    """The weighted sum of a claim for each seed that all its arms finished."""

    values: tuple[float, ...]
    summary: Summary
    exact: bool
    """Whether `values` are counts, of which one value on all seeds is no accident."""
    note: str
    """Why there can be no interval."""


def _sample(total: WeightedSum, results: Results, metric: str) -> _Sample:
    arms = [term.of for term in total.terms if isinstance(term.of, str)]
    units = list(dict.fromkeys(term.unit for term in total.terms))
    found, size, zero = [], 0.0, ""
    for seed in sorted(set.intersection(*(set(results.get(arm, {})) for arm in arms))):
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
    return _Sample(tuple(found), summary, exact, zero or note)


def _is_count(metric: str) -> bool:
    """Whether the form of the method may fix `metric`: a cost, or the rank of its updates."""
    return metric.startswith("cost/") or bool(
        re.fullmatch(rf"{RANK_METRICS}/(step_\d+/)?\w+/rank", metric)
    )


def _number(term: Term, results: Results, seed: int, metric: str) -> float | None:
    if not isinstance(term.of, str):
        return term.of
    return value_of(results[term.of][seed], term.metric or metric)


def _p(sample: _Sample, bounds: tuple[float, float, bool]) -> float | None:
    """Smallest level at which an interval decides: the largest two-sided p over finite bounds."""
    if sample.note:
        return None
    finite = [bound for bound in bounds[:2] if math.isfinite(bound)]
    return max(t_test(sample.summary, bound) for bound in finite)


def _levels(p_values: Sequence[float | None]) -> list[float | None]:
    """Error level of each claim's interval: Holm's, and that of the first failure after it."""
    tested = sorted((p, i) for i, p in enumerate(p_values) if p is not None)
    levels: list[float | None] = [None] * len(p_values)
    level = ALPHA / max(len(tested), 1)
    failed = False
    for rank, (p, i) in enumerate(tested):
        if not failed:
            level = ALPHA / (len(tested) - rank)
            failed = p > level
        levels[i] = level
    return levels


def _verdict(
    claim: ClaimRule,
    sample: _Sample,
    bounds: tuple[float, float, bool],
    level: float | None,
    text: str,
) -> Verdict:
    summary = sample.summary
    lower, upper, negated = bounds
    if sample.exact:
        d = sample.values[0]
        holds = abs(d) <= claim.margin if claim.expect.endswith("within") else (lower < d < upper)
        known: Word = "confirmed" if holds != negated else "refuted"
        return Verdict(claim.claim, text, known, summary.n, d, d, d, 1.0)
    if level is None or summary.mean is None or summary.std is None:
        note = f"no interval: {sample.note}"
        return Verdict(claim.claim, text, "not decided", summary.n, summary.mean, note=note)
    half = t_quantile(1 - level / 2, summary.n - 1) * summary.std / math.sqrt(summary.n)
    low, high = summary.mean - half, summary.mean + half
    inside, outside = lower < low and high < upper, high < lower or low > upper
    word: Word = "not decided"
    if inside or outside:
        word = "confirmed" if inside != negated else "refuted"
    return Verdict(claim.claim, text, word, summary.n, summary.mean, low, high, 1 - level)
