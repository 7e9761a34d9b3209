r"""What a study may say about its arms: means, paired differences, Holm's correction.

Seeds are the unit of replication. Every arm sees the same seeds and the same split, so an arm is
compared with the baseline seed by seed, $d_s = y_s - b_s$, by the paired t-test:

$$t = \bar d \Big/ \frac{s_d}{\sqrt n}, \qquad
  \text{interval: } \bar d \pm t_{n-1,\,0.975}\,\frac{s_d}{\sqrt n}$$

Claims ask in one direction at a time, by one-sided tests of a mean with its standard error and
degrees of freedom (`Measured`).

Where a quantity is not defined (one seed, no variance) it is None with a reason, never a number.
Reference: Holm, *A simple sequentially rejective multiple test procedure* (1979).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import scipy  # `scipy.special` is imported where it is first used; `scipy.stats` takes a second

FEW_SEEDS = 5
"""Below this a paired t-test misses most real effects: at 1.5 standard deviations its power is
0.31 with 3 seeds, 0.72 with 5 and 0.99 with 10."""

ALPHA = 0.05
"""Level after Holm's correction: of the two-sided tests between arms, and of all verdicts on claims
together."""


Estimate = tuple[float | None, float | None, float | None]
"""A mean with the ends of its interval; None where undefined."""


@dataclass(frozen=True)
class Summary:
    """Mean of one arm over its seeds with a 95 % t interval."""

    n: int
    mean: float | None = None
    std: float | None = None
    """Sample standard deviation (n - 1)."""
    low: float | None = None
    high: float | None = None
    note: str = ""
    """Why a field is None; empty where none is."""

    @property
    def estimate(self) -> Estimate:
        """The mean with its interval."""
        return self.mean, self.low, self.high

    @property
    def measured(self) -> "Measured | None":
        """The mean as a t test takes it; None where there is no spread."""
        if self.mean is None or not self.std:
            return None
        return Measured(self.mean, self.std / math.sqrt(self.n), self.n - 1)


@dataclass(frozen=True)
class Measured:
    """A mean with what a t test needs of it."""

    mean: float
    error: float
    """Standard error of the mean, above 0."""
    freedom: float
    """Degrees of freedom of that error."""
    of_rows: float = 0.0
    """Part of the squared error that is of test rows: more seeds do not lessen it."""
    of_seeds: "Measured | None" = None
    """The same mean over seeds alone, than which this is never surer."""

    def p_above(self, center: float) -> float:
        """One-sided p of the test that the true mean is at most `center`."""
        own = float(scipy.special.stdtr(self.freedom, (center - self.mean) / self.error))
        return own if self.of_seeds is None else max(own, self.of_seeds.p_above(center))

    def p_below(self, center: float) -> float:
        """One-sided p of the test that the true mean is at least `center`."""
        own = float(scipy.special.stdtr(self.freedom, (self.mean - center) / self.error))
        return own if self.of_seeds is None else max(own, self.of_seeds.p_below(center))

    def interval(self, level: float) -> tuple[float, float]:
        """Ends of the interval that leaves the true mean out on one side with at most `level`."""
        known = [self] if self.of_seeds is None else [self, self.of_seeds]
        half = max(t_quantile(1 - level, each.freedom) * each.error for each in known)
        return self.mean - half, self.mean + half


@dataclass(frozen=True)
class Comparison:
    """An arm against the baseline, over the seeds that both have."""

    seeds: tuple[int | str, ...]
    """Those that both have; of a test over tasks, the tasks."""
    difference: float | None = None
    """Mean of arm minus baseline."""
    low: float | None = None
    high: float | None = None
    p: float | None = None
    """Two-sided paired t-test."""
    p_holm: float | None = None
    """`p` corrected for the number of arms that were tested."""
    note: str = ""
    """Why a field is None; empty where none is."""

    @property
    def estimate(self) -> Estimate:
        """The difference with its interval."""
        return self.difference, self.low, self.high

    def words(self, direction: str) -> str:
        """The finding in words; `direction` is maximize or minimize.

        A large p is never called equality: it says what the seeds could not show.
        """
        p = self.p if self.p_holm is None else self.p_holm
        if p is None or self.difference is None:
            return f"not testable: {self.note}"
        if p > ALPHA:
            return "no evidence of a difference"
        return "better" if (self.difference > 0) == (direction == "maximize") else "worse"


def summarize(values: Sequence[float], size: float = 0.0) -> Summary:
    """Mean and 95 % t interval of `values`, one value a seed.

    Of differences, `size` is the largest number that was subtracted from or subtracted: a spread
    that its rounding makes is none. Raises ValueError for a value that is not finite: such a trial
    is a failed one.
    """
    for value in values:
        if not math.isfinite(value):
            raise ValueError(
                f"statistics need finite values, got {value!r}; list such a trial as failed"
            )
    n = len(values)
    if n == 0:
        return Summary(0, note="no finished seed")
    mean = math.fsum(values) / n
    if n == 1:
        return Summary(1, mean, note="one seed has no interval")
    std = math.sqrt(math.fsum((v - mean) ** 2 for v in values) / (n - 1))
    if std <= 1e-12 * max(size, *(abs(v) for v in values)):
        # a t interval of width zero would claim certainty; mostly a model stuck at one class
        return Summary(n, mean, 0.0, note="every seed gave the same value")
    half = t_quantile(0.5 + 0.95 / 2, n - 1) * std / math.sqrt(n)
    return Summary(n, mean, std, mean - half, mean + half)


def t_quantile(share: float, freedom: float) -> float:
    """Below which `share` of Student's t with `freedom` degrees of freedom lies."""
    return float(scipy.special.stdtrit(freedom, share))


def at_least(count: int, n: int, share: float) -> float:
    """P(X ≥ count) of n draws that each hit with probability `share`."""
    return float(scipy.special.bdtrc(count - 1, n, share)) if count > 0 else 1.0


def paired(
    arm: Mapping[int, float], baseline: Mapping[int, float]
) -> tuple[tuple[int, ...], Summary]:
    """The seeds that both have, and `arm` minus `baseline` over these."""
    seeds = tuple(sorted(arm.keys() & baseline.keys()))
    size = max((abs(v) for s in seeds for v in (arm[s], baseline[s])), default=0.0)
    return seeds, summarize([arm[s] - baseline[s] for s in seeds], size)


def compare(arm: Mapping[int, float], baseline: Mapping[int, float]) -> Comparison:
    """`arm` minus `baseline`, paired by seed; both map seed to value.

    `p_holm` stays None: it needs all arms, see `compare_arms`. Raises ValueError for values that
    are not finite.
    """
    seeds, differences = paired(arm, baseline)
    notes = ("no seed in common with the baseline", "one seed in common with the baseline",
             "the difference is the same for every seed")  # fmt: skip
    return _tested(seeds, differences, notes[min(differences.n, 2)])


def compare_arms(values: Mapping[str, Mapping[int, float]], baseline: str) -> dict[str, Comparison]:
    """Every arm but `baseline` against it, with Holm's correction over the arms that have a p.

    `values` maps arm to seed to value. A baseline without values leaves nothing to test.
    """
    reference = values.get(baseline, {})
    return _corrected({arm: compare(v, reference) for arm, v in values.items() if arm != baseline})


def compare_over_tasks(differences: Mapping[str, Mapping[str, float]]) -> dict[str, Comparison]:
    """Arms against the baseline with tasks as the units, and Holm's correction over the arms.

    `differences` maps arm to task to the mean difference from the baseline there, as in appendix
    B.2 of LR-LoRA. The spread over seeds is no part of it: it asks whether an arm is better on
    tasks like these, not on these tasks.
    """
    comparisons = {}
    for arm, own in differences.items():
        d = summarize(list(own.values()))
        note = "the difference is the same for every task" if d.n > 1 else "fewer than two tasks"
        comparisons[arm] = _tested(tuple(own), d, note)
    return _corrected(comparisons)


def _tested(units: tuple[int | str, ...], d: Summary, note: str) -> Comparison:
    """The t test of the differences `d` of `units`; `note` says why where there is none."""
    if (measured := d.measured) is None:
        return Comparison(units, d.mean, note=note)
    p = 2 * min(measured.p_above(0.0), measured.p_below(0.0))
    return Comparison(units, *d.estimate, p)


def _corrected(comparisons: dict[str, Comparison]) -> dict[str, Comparison]:
    """`comparisons`, by arm, with Holm's correction over those that have a p."""
    tested = {arm: c.p for arm, c in comparisons.items() if c.p is not None}
    for arm, p in zip(tested, holm(list(tested.values())), strict=True):
        comparisons[arm] = replace(comparisons[arm], p_holm=p)
    return comparisons


def holm(p_values: Sequence[float]) -> list[float]:
    r"""Holm's adjusted p: $\tilde p_{(i)} = \max_{j \le i} \min(1, (m - j + 1)\,p_{(j)})$."""
    adjusted = [0.0] * len(p_values)
    running = 0.0
    for rank, i in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        running = max(running, min(1.0, (len(p_values) - rank) * p_values[i]))
        adjusted[i] = running
    return adjusted
