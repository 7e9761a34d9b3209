r"""Rules written before the run, and what the results say of them.

A claim says that a number $d$, a weighted sum of its arms at the same seed (see
`studies.engine.definition.contrasts`), lies above, below or within its margin. Each word on it is a
one-sided test, and agrees with where the interval of $d$ lies; the rules are in docs/statistics.md.
Levels are those of `looks.decide`, so that all looks and all claims together err in at most 5 % of
studies. A cost or a rank that is the same for every seed is known exactly.
"""

import functools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

from studies.engine.definition.claim_rules import COLLAPSED
from studies.engine.definition.contrasts import WeightedSum, weighted_sum
from studies.engine.definition.points import Point
from studies.engine.definition.seeds_rules import MOST
from studies.engine.definition.study import ClaimRule
from studies.engine.verdicts import power, sign_power
from studies.engine.verdicts.collapsed import Discordant, Share, has_collapsed
from studies.engine.verdicts.looks import Decision, Test, Word, decide, shares
from studies.engine.verdicts.median import ROUNDING, Median
from studies.engine.verdicts.row_scores import Read, Results
from studies.engine.verdicts.samples import (
    SAME,
    Sample,
    arms_of,
    of_median,
    sample,
    sample_of_collapsed,
    shared_seeds,
)
from studies.engine.verdicts.statistics import Measured

OPEN: Word = "not decided"


@dataclass(frozen=True)
class Verdict:
    """What the results say of one claim."""

    claim: str
    rule: str
    """The rule in symbols."""
    word: Word
    n: int
    """Seeds that all arms of the claim share, at the look that decided or else the last."""
    difference: float | None = None
    low: float | None = None
    high: float | None = None
    level: float | None = None
    """Confidence of the interval [low, high], after Holm and the look's share."""
    note: str = ""
    """Why there is no interval; empty where there is one."""
    arms: tuple[str, ...] = ()
    """Those that it compares."""
    statistic: str = "mean"
    """What `difference` is over the seeds."""
    task: str | None = None
    """The one of several tasks that it is about; None: their mean, or the only one."""
    look: int | None = None
    """Of a study until decided: seeds of the look that decided, or else of the last there was."""
    at_most: int | None = None
    """Of a study until decided: seeds of its last look."""
    resolution: float | None = None
    """The difference that the claim calls too small to matter."""
    bound: float | None = None
    """Of an open claim: the smallest resolution, or margin of `within`, that would hold by now."""
    seeds_needed: int | None = None
    """Of an open claim: seeds that would probably decide it, from the mean and spread seen."""
    over: str = ""
    """What the interval is about: seeds and test rows, or seeds alone and why; empty of none."""
    finding: str = ""
    """In words what the interval alone does not tell: the bound, the look, the seeds needed."""

    @property
    def open(self) -> bool:
        """Whether more seeds may decide it."""
        return self.word == OPEN


def judge(
    claims: Sequence[ClaimRule],
    results: Results,
    metric: str,
    points: Sequence[Point] = (),
    tasks: Mapping[str, tuple[Results, str]] = MappingProxyType({}),
    looks: Sequence[Sequence[int]] = (),
    read: Read | None = None,
) -> list[Verdict]:
    """A verdict for each of `claims`; `metric` and `points`, the arms, are those of the study.

    Of several `tasks` each has its results and its metric; `results` are then the means over them.
    `looks` are the seeds that each look has, growing; a claim is looked at where all its arms have
    a result, done or failed, for each of these seeds. Without `looks` all seeds there are count.
    What `read` gives of trials that keep their scores by row makes claims that are about means of
    them tests over seeds and test rows.
    """
    every = [_Claim(claim, results, metric, points, tasks, looks, read) for claim in claims]
    decisions = iter(decide([c.tests for c in every if c.is_tested], max(len(looks), 1)))
    return [c.verdict(next(decisions) if c.is_tested else None) for c in every]


def rule(claim: ClaimRule, total: WeightedSum, metric: str, on: str = "") -> str:
    """The claim about `total` in symbols; `on` says of which task."""
    expected, margin = claim.expect.replace("_", " "), f"{claim.margin:g}"
    bound = f"than −{margin}" if "lower" in expected and claim.margin else f"than {margin}"
    bound = f"±{margin}" if "within" in expected else bound
    what = f"{claim.metric or metric} ({on})" if on else claim.metric or metric
    fine = "" if claim.resolution is None else f", to a resolution of {claim.resolution:g}"
    what = f"{what}, median over seeds" if claim.statistic == "median" else what
    return f"{what}: {total.text} is {expected} {bound}{fine}"


class _Set:
    """The open interval that a claim, or its opposite where `negated`, is about."""

    def __init__(self, claim: ClaimRule) -> None:
        word, m = claim.expect.removeprefix("not_"), claim.margin
        ends = {"within": (-m, m), "higher": (m, math.inf), "lower": (-math.inf, -m)}
        self.low, self.high = ends[word]
        self.negated, self.resolution = claim.expect.startswith("not_"), claim.resolution

    @property
    def two_sided(self) -> bool:
        return math.isfinite(self.low) and math.isfinite(self.high)

    @property
    def center(self) -> float:
        """What `bounded` measures from: the margin, or of `within` 0."""
        if self.two_sided:
            return 0.0
        return self.low if math.isfinite(self.low) else self.high

    def test(self, d: Measured | Median | Share | Discordant) -> Test:
        above, below = d.p_above, d.p_below
        if self.two_sided:
            inside = max(above(self.low), below(self.high))
            outside = min(1.0, 2 * min(below(self.low), above(self.high)))
        else:
            inside, outside = above(self.center), below(self.center)
            if math.isfinite(self.high):
                inside, outside = outside, inside
        confirmed, refuted = (outside, inside) if self.negated else (inside, outside)
        p: dict[Word, float] = {"confirmed": confirmed, "refuted": refuted}
        if (r := self.resolution) is None:
            return Test(p, min(p.values()))
        low, high = self.center - r, self.center + r
        p["bounded"] = max(above(low), below(high))
        return Test(p, min(below(low), above(high)))

    def one_side(self, value: float, level: float) -> float:
        """The level of either end of the interval whose position decides at `level`."""
        return level / 2 if self.two_sided and not self.low <= value <= self.high else level

    def seeds_needed(self, d: Measured | Median, value: float, n: int, level: float) -> int | None:
        """Seeds, more than `n`, that would probably decide if `value` and spread stay as seen."""
        ends = [end for end in (self.low, self.high) if math.isfinite(end)]
        nearest = min(ends, key=lambda end: abs(value - end))
        needed = [_needed(nearest, value, d, n, self.one_side(value, level))]
        if (r := self.resolution) is not None and abs(value - self.center) < r:
            # both sides must hold: of a mean in the middle either may fail
            end = self.center + math.copysign(r, value - self.center)
            needed.append(_needed(end, value, d, n, level, (1 + power.SHARE) / 2))
        counts = [max(count, n + 1) for count in needed if count is not None]
        return min(counts, default=None)


def _needed(
    end: float,
    value: float,
    d: Measured | Median,
    n: int,
    level: float,
    share: float = power.SHARE,
) -> int | None:
    """Seeds that would probably tell `value` from `end`, if the error with `n` is as seen.

    The part of the error that is of test rows stays: the more seeds, the more it counts.
    """
    if isinstance(d, Median):
        return sign_power.seeds_for(d.share(end), level, share)
    gap, seeds = abs(value - end), n
    while True:
        spread = math.sqrt((d.error**2 - d.of_rows) * n + d.of_rows * seeds)
        count = power.seeds_needed(gap / spread, level, share)
        if not d.of_rows or count is None or count <= seeds:
            return count if count is None or not d.of_rows else max(count, seeds)
        seeds = count


class _Claim:
    """A claim with what was measured of it at each look."""

    def __init__(
        self,
        claim: ClaimRule,
        results: Results,
        metric: str,
        points: Sequence[Point],
        tasks: Mapping[str, tuple[Results, str]],
        looks: Sequence[Sequence[int]],
        read: Read | None,
    ) -> None:
        self.claim, self.bounds = claim, _Set(claim)
        self.sizes = tuple(map(len, looks))
        """Seeds of each look; none of a study with a list of seeds."""
        total = weighted_sum(claim, points)
        own, metric = tasks.get(claim.task or "", (results, metric))
        arms = arms_of(total)
        ended = set.intersection(*(set(own.get(arm, {})) for arm in arms))

        def sample_of(seeds: Sequence[int] | None = None) -> Sample:
            if claim.metric == COLLAPSED:
                return sample_of_collapsed(total, own, seeds)
            if claim.statistic == "median":
                return of_median(sample(total, own, metric, seeds))
            each = () if claim.task else tuple(tasks.values())
            return sample(total, own, metric, seeds, each, read)

        def without_collapsed(at: int) -> Sample:
            """The sample without seeds at which a run of an arm, on whichever task, collapsed."""
            runs = [own] if claim.task or not tasks else [each for each, _ in tasks.values()]
            seeds = shared_seeds(arms, own, looks[at] if looks else None)
            fallen = {s for s in seeds for r in runs for a in arms if has_collapsed(r[a][s])}
            return sample_of([s for s in seeds if s not in fallen])

        self.without_collapsed = without_collapsed
        at_looks = [sample_of(seeds) if ended.issuperset(seeds) else None for seeds in looks]
        self.samples = at_looks or [sample_of()]
        """None where arms of the claim have not ended some seed of the look."""
        text = rule(claim, total, metric, claim.task or ("mean over tasks" if tasks else ""))
        self.blank = Verdict(claim.claim, text, OPEN, 0, arms=arms, task=claim.task,
                             resolution=claim.resolution, statistic=claim.statistic)  # fmt: skip
        """What is known of it before any look."""
        if looks:
            late = [f"`{arm}`" for arm in arms if not set(own.get(arm, {})).issuperset(looks[0])]
            note = f"the first look, at {self.sizes[0]} seeds, waits for {', '.join(late)}"
            self.blank = replace(self.blank, at_most=self.sizes[-1], note=note)

    @property
    def exact(self) -> int | None:
        """Index of the first look that knows the number exactly; later ones change it no more."""
        return next((k for k, s in enumerate(self.samples) if s is not None and s.exact), None)

    @property
    def is_tested(self) -> bool:
        """Whether it shares the error: a list of seeds tests what has an interval.

        Of several looks a later one may have it: there the first look fixes the number of claims.
        """
        return self.exact != 0 and bool(self.sizes or any(self.tests))

    @functools.cached_property
    def tests(self) -> list[Test | None]:
        return [
            self.bounds.test(s.measured) if s is not None and s.measured else None
            for s in self.samples[: self.exact]
        ]

    def verdict(self, decision: Decision | None) -> Verdict:
        """The verdict; `decision` is None where nothing is tested."""
        seen = {k: s for k, s in enumerate(self.samples) if s is not None}
        if not seen:
            return self.blank
        decided = None if decision is None else decision.look
        at = next(k for k in (self.exact, decided, max(seen)) if k is not None)
        sample = seen[at]
        look = self.sizes[at] if self.sizes else None
        verdict = replace(
            self.blank, n=sample.n, look=look, difference=sample.value, over=sample.over, note=""
        )
        if sample.exact:
            verdict = self._known(verdict)
        elif decision is None or sample.measured is None:
            verdict = replace(verdict, note=f"no interval: {sample.note}")
        elif isinstance(sample.measured, Discordant):  # McNemar's test has no interval beside it
            verdict = replace(verdict, word=decision.word, note=sample.note)
        else:
            verdict = self._tested(verdict, decision, sample.measured)
        found = [*self._findings(verdict, sample), *self._if_none_had_collapsed(verdict, at)]
        return replace(verdict, finding="; ".join(found))

    def _known(self, verdict: Verdict) -> Verdict:
        d, s = verdict.difference, self.bounds
        assert d is not None, "an exact sample has a value"
        holds = abs(d) <= self.claim.margin if s.two_sided else s.low < d < s.high
        word: Word = "confirmed" if holds != s.negated else "refuted"
        return replace(verdict, word=word, low=d, high=d, level=1.0)

    def _tested(
        self, verdict: Verdict, decision: Decision, d: Measured | Median | Share
    ) -> Verdict:
        value = verdict.difference
        assert value is not None, "what is tested has a value"
        side = self.bounds.one_side(value, decision.level)
        low, high = d.interval(side)
        if math.isinf(low):
            least = sign_power.fewest(side)
            note = f"no interval: at {1 - 2 * side:.1%} one of a median takes {least} seeds"
            return replace(verdict, note=note)
        verdict = replace(verdict, word=decision.word, low=low, high=high, level=1 - 2 * side)
        if not verdict.open:
            return verdict
        last = self._last_level(decision)
        if isinstance(d, Share):  # of a share between 0 and 1 nothing is known for sure
            needed = None if d.count else seeds_if_none_collapses(self.claim, last, verdict.n + 1)
        else:
            needed = self.bounds.seeds_needed(d, value, verdict.n, last)
        center, (low, high) = self.bounds.center, d.interval(decision.level)
        bound = max(center - low, high - center)
        known = bound > ROUNDING  # else a median that is the margin itself
        return replace(verdict, bound=bound if known else None, seeds_needed=needed)

    def _findings(self, verdict: Verdict, sample: Sample) -> Iterator[str]:
        margin = bool(self.bounds.center)
        if verdict.open and sample.note == SAME:
            yield "more seeds decide it only where one differs"
        if verdict.word == "bounded":
            size = f"{verdict.resolution:g}"
            yield (
                f"less than {size} from the margin"
                if margin
                else f"no difference as large as {size}"
            )
        if verdict.bound is not None:
            size = _rounded_up(verdict.bound)
            what = (
                f"not further than {size} from the margin" if margin else f"not larger than {size}"
            )
            yield f"{what} in either direction, by these seeds"
        if isinstance(sample.measured, Share):
            yield f"{sample.measured.count} of {verdict.n} runs collapsed"
            if verdict.seeds_needed is not None:
                yield f"{verdict.seeds_needed} seeds decide if no run collapses"
        elif verdict.seeds_needed is not None:
            yield f"about {verdict.seeds_needed} seeds would probably decide"
        if verdict.look is not None:
            state = "open" if verdict.open else "decided"
            yield f"{state} at {verdict.look} of at most {verdict.at_most} seeds"

    def _if_none_had_collapsed(self, verdict: Verdict, at: int) -> Iterator[str]:
        """What the other seeds say where collapsed runs may be why the claim is open."""
        about_the_mean = self.claim.metric is None and self.claim.statistic == "mean"
        if not verdict.open or verdict.level is None or not about_the_mean:
            return
        rest = self.without_collapsed(at)
        count = verdict.n - rest.n
        if not count or not isinstance(rest.measured, Measured):
            return
        low, high = rest.measured.interval((1 - verdict.level) / 2)
        seeds = "the seed" if count == 1 else f"{count} seeds"
        yield (
            f"{rest.value:+.4f} [{low:+.4f}, {high:+.4f}] without {seeds} at which an arm "
            "collapsed, which decides nothing"
        )

    def _last_level(self, decision: Decision) -> float:
        """The level of the last look, of which more seeds than there are would have the share."""
        if not self.sizes or decision.look is None:
            return decision.level
        share = shares(len(self.sizes))
        return decision.level / share[decision.look] * share[-1]


def seeds_if_none_collapses(claim: ClaimRule, level: float, least: int = 1) -> int | None:
    """The fewest seeds, not below `least`, that decide a claim about the share of collapsed runs,
    compared with a number, if no run collapses; None where 10,000 do not.
    """
    assert isinstance(claim.than, float | int), "two arms have no such number"
    bounds = _Set(claim)
    tests = ((n, bounds.test(Share(0, n, claim.than))) for n in range(least, MOST + 1))
    return next((n for n, test in tests if min(test.p.values()) <= level), None)


def _rounded_up(value: float) -> str:
    """`value` above 0 with two digits, never less than it is."""
    unit = 10.0 ** (math.floor(math.log10(value)) - 1)
    return f"{math.ceil(value / unit - 1e-9) * unit:.2g}"
