r"""Rules written before the run, and what the results say of them.

A claim says that a paired difference $d$ lies in a set $S$: `higher` is $d > m$, `not_higher`
$d \le m$, `within` $|d| \le m$, with the margin $m$ in the metric's unit (or as a share of `than`
where `relative`). The verdict is *confirmed* where the interval of $d$ lies in $S$, *refuted* where
it lies outside, else *not decided*. The interval is a t interval over seeds at the level that
Holm's step-down grants the claim among the claims of its study, so that all verdicts together are
wrong in at most 5 % of studies. A cost that is the same for every seed is known exactly.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import scipy

from studies.engine.definition.study import ClaimRule
from studies.engine.records import Result, value_of
from studies.engine.reporting.statistics import ALPHA, Summary, summarize

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


def judge(claims: Sequence[ClaimRule], results: Results, metric: str) -> list[Verdict]:
    """A verdict for each of `claims`; `metric` is that of the study."""
    sets = [_set(claim) for claim in claims]
    samples = [_sample(claim, results, metric) for claim in claims]
    levels = _levels([_p(*pair) for pair in zip(samples, sets, strict=True)])
    return [_verdict(*each, metric) for each in zip(claims, samples, sets, levels, strict=True)]


def rule(claim: ClaimRule, metric: str) -> str:
    """The claim's rule in symbols."""
    other = f" (its {claim.than_metric})" if claim.than_metric is not None else ""
    than = f"`{claim.than}`{other}" if isinstance(claim.than, str) else f"{claim.than:g}"
    text = f"`{claim.arm}` − {than}"
    if claim.beyond is not None:
        text = f"({text}) − (`{claim.beyond.arm}` − `{claim.beyond.than}`{other})"
    share = f" as a share of {than}" if claim.relative else ""
    expected = claim.expect.replace("_", " ")
    return f"{claim.metric or metric}: {text} is {expected} by {claim.margin:g}{share}"


def _set(claim: ClaimRule) -> tuple[float, float, bool]:
    """The open interval that the claim, or its opposite (True), is about."""
    margin, word = claim.margin, claim.expect
    if word == "within":
        return -margin, margin, False
    negated = word.startswith("not_")
    higher = word.removeprefix("not_") == "higher"
    return (margin, math.inf, negated) if higher else (-math.inf, -margin, negated)


@dataclass(frozen=True)
class _Sample:
    """One difference a seed that all arms of a claim finished."""

    values: tuple[float, ...]
    summary: Summary
    exact: bool
    """Whether `values` are costs, of which one value on all seeds is no accident."""
    note: str
    """Why there can be no interval."""


def _sample(claim: ClaimRule, results: Results, metric: str) -> _Sample:
    name = claim.metric or metric
    than_name = claim.than_metric or name
    pairs = [(claim.arm, claim.than)]
    if claim.beyond is not None:
        pairs.append((claim.beyond.arm, claim.beyond.than))

    def of(arm: str | float, seed: int, name: str) -> float | None:
        if not isinstance(arm, str):
            return arm
        result = results.get(arm, {}).get(seed)
        return None if result is None else value_of(result, name)

    found, size, zero = [], 0.0, ""
    for seed in sorted(results.get(claim.arm, {})):
        gains = []
        for arm, than in pairs:
            value, base = of(arm, seed, name), of(than, seed, than_name)
            if value is None or base is None:
                break
            if claim.relative and base == 0:
                zero = f"`{than}` has 0 at seed {seed}, of which nothing is a share"
                break
            unit = abs(base) if claim.relative else 1.0
            size = max(size, abs(value) / unit, abs(base) / unit)
            gains.append((value - base) / unit)
        else:
            found.append(gains[0] - sum(gains[1:]))
    summary = summarize(found, size)
    exact = name.startswith("cost/") and than_name.startswith("cost/") and summary.std == 0.0
    note = zero or summary.note
    if summary.std == 0.0:
        note = zero or "the difference is the same for every seed"
    return _Sample(tuple(found), summary, exact and not zero, note)


def _p(sample: _Sample, bounds: tuple[float, float, bool]) -> float | None:
    """Smallest level at which an interval decides: the largest two-sided p over finite bounds."""
    if sample.note:
        return None
    finite = [bound for bound in bounds[:2] if math.isfinite(bound)]
    return max(float(scipy.stats.ttest_1samp(sample.values, bound).pvalue) for bound in finite)


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
    metric: str,
) -> Verdict:
    summary, text = sample.summary, rule(claim, metric)
    lower, upper, negated = bounds
    if sample.exact:
        d = sample.values[0]
        holds = abs(d) <= claim.margin if claim.expect == "within" else (lower < d < upper)
        known: Word = "confirmed" if holds != negated else "refuted"
        return Verdict(claim.claim, text, known, summary.n, d, d, d, 1.0)
    if level is None or summary.mean is None or summary.std is None:
        note = f"no interval: {sample.note}"
        return Verdict(claim.claim, text, "not decided", summary.n, summary.mean, note=note)
    quantile = float(scipy.stats.t.ppf(1 - level / 2, summary.n - 1))
    half = quantile * summary.std / math.sqrt(summary.n)
    low, high = summary.mean - half, summary.mean + half
    inside, outside = lower < low and high < upper, high < lower or low > upper
    word: Word = "not decided"
    if inside or outside:
        word = "confirmed" if inside != negated else "refuted"
    return Verdict(claim.claim, text, word, summary.n, summary.mean, low, high, 1 - level)
