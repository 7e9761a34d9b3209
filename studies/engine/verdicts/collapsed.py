r"""Runs that fell to chance, and the share of an arm's runs that did.

A run is *collapsed* where its accuracy on the test set is not above chance,

$$\text{accuracy} \le m + \sqrt{m (1 - m) / R},$$

with m the share of the most frequent class among the R test rows. A run that always gives one class
has at most m, so it counts without any margin; the one standard error is for runs that all but do,
or that guess. A run whose loss became NaN or infinite counts as well. Shares have exact intervals
(Clopper and Pearson 1934) and are tested by the binomial distribution; two arms, paired by seed, by
the exact test of McNemar (1947): of the seeds at which one alone collapsed, is it either half the
time?
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import scipy

from studies.engine.records import Result
from studies.engine.verdicts.statistics import at_least
from studies.tasks.metrics import has_chance_level


@dataclass(frozen=True)
class Share:
    """How many of n runs collapsed, less `than`, which the share is compared with."""

    count: int
    n: int
    than: float = 0.0

    @property
    def mean(self) -> float:
        """The share, less `than`."""
        return self.count / self.n - self.than

    def p_above(self, center: float) -> float:
        """One-sided p of the exact test that the true share is at most `than` + `center`."""
        share = self._share(center)
        return 0.0 if share < 0 else at_least(self.count, self.n, min(share, 1.0))

    def p_below(self, center: float) -> float:
        """One-sided p of the exact test that the true share is at least `than` + `center`."""
        share = self._share(center)
        return 0.0 if share > 1 else float(scipy.special.bdtr(self.count, self.n, max(share, 0.0)))

    def _share(self, center: float) -> float:
        """What is tested, without the rounding by which 0.3 − 0.1 − 0.2 is below 0."""
        return round(self.than + center, 12)

    def interval(self, level: float) -> tuple[float, float]:
        """Clopper and Pearson's, with at most `level` on either side, less `than`."""
        k, n = self.count, self.n
        low = float(scipy.special.betaincinv(k, n - k + 1, level)) if k else 0.0
        high = float(scipy.special.betaincinv(k + 1, n - k, 1 - level)) if k < n else 1.0
        return low - self.than, high - self.than


@dataclass(frozen=True)
class Discordant:
    """Of n seeds, at how many one arm alone collapsed, and at how many the other alone."""

    first: int
    second: int
    n: int

    @property
    def mean(self) -> float:
        """The difference of the shares."""
        return (self.first - self.second) / self.n

    def p_above(self, center: float) -> float:
        """One-sided p of McNemar's exact test that the first collapses no more than the second.

        Raises ValueError where `center` is not 0: there is no such test.
        """
        if center:
            raise ValueError(f"McNemar's test is of no difference, got {center}")
        return at_least(self.first, self.first + self.second, 0.5)

    def p_below(self, center: float) -> float:
        """One-sided p of McNemar's exact test that the first collapses no less than the second."""
        return Discordant(self.second, self.first, self.n).p_above(center)


@dataclass(frozen=True)
class Collapsed:
    """Runs of an arm that fell to chance."""

    count: int
    n: int
    """Runs of which it is known: those that ended, and those whose loss was not finite."""
    low: float
    high: float
    """Ends of the exact 95 % interval of the share."""
    mean_without: float | None
    """Mean of the objective over the runs that did not collapse; None where there is none."""


def has_collapsed(result: Result) -> bool | None:
    """Whether the run is collapsed; None where nothing says what chance is."""
    if result.failure is not None and result.failure.kind == "not_finite":
        return True
    level = chance(result)
    return None if level is None else result.metrics["test/accuracy"] <= level


def chance(result: Result) -> float | None:
    """The accuracy that is not above chance; None where the task has no such level."""
    tested = [name.removeprefix("test/") for name in result.metrics if name.startswith("test/")]
    share = result.data.get("majority", {}).get("test")
    rows = result.data.get("rows", {}).get("test")
    if not has_chance_level(tested) or share is None or not rows or not 0 < share < 1:
        return None
    return float(share + math.sqrt(share * (1 - share) / rows))


def collapsed(results: Mapping[str, Mapping[int, Result]], metric: str) -> dict[str, Collapsed]:
    """Arm to its collapsed runs, from arm to seed to what was found and by `metric` is compared.

    Empty where the task has no chance level.
    """
    done = [r for own in results.values() for r in own.values() if r.status == "done"]
    if all(chance(result) is None for result in done):
        return {}
    by_arm = {}
    for arm, own in results.items():
        known = [(r, has) for r in own.values() if (has := has_collapsed(r)) is not None]
        if not known:
            continue
        share = Share(sum(has for _, has in known), len(known))
        rest = [v for r, has in known if not has and (v := r.metrics.get(metric)) is not None]
        mean = math.fsum(rest) / len(rest) if rest else None
        by_arm[arm] = Collapsed(share.count, share.n, *share.interval(0.025), mean)
    return by_arm
