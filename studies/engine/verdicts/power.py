r"""What a number of seeds can find or bound: the power of t-tests, planned or after the fact.

Of $n$ seeds whose paired differences have the mean $\delta$ and the standard deviation $\sigma$,
the t statistic has the noncentral t distribution with $n - 1$ degrees of freedom and the
noncentrality $\sqrt n\,\delta/\sigma$. Where $\delta = 0$, two one-sided tests show
$|\delta| < m$ in a share of studies of

$$\mathrm{E}_u\left[\max\left(0,\; 2\,\Phi(\sqrt n\,m/\sigma - t\,u) - 1\right)\right],
  \qquad (n - 1)\,u^2 \sim \chi^2_{n-1},$$

with $t$ the quantile of one test. Effects and margins are given in spreads, $\delta/\sigma$ and
$m/\sigma$; levels are one-sided. Reference: Phillips, *Power of the two one-sided tests procedure
in bioequivalence* (1990).
"""

import bisect
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import scipy

from studies.engine.verdicts.statistics import ALPHA

SHARE = 0.8
"""Share of studies that shall find what is there, by convention."""

MOST = 100_000
"""More seeds than anybody trains."""


def one_sided_level(claims: int, arms: int) -> float:
    """That of each test at Holm's first step, in a study with so many claims and arms.

    Without claims the report compares all other arms with the baseline, in both directions.
    """
    return ALPHA / claims if claims else ALPHA / 2 / max(arms - 1, 1)


def power(n: int, effect: float, level: float) -> float:
    """Share of studies with `n` seeds that a one-sided t-test at `level` decides.

    `effect` is the true difference in spreads, towards the side that is tested.
    """
    if n < 2:
        return 0.0
    limit = float(scipy.special.stdtrit(n - 1, 1 - level))
    shift = math.sqrt(n) * effect
    if abs(shift) > 30:  # far beyond what the noncentral distribution's series can hold
        return float(scipy.special.ndtr(shift - limit))
    return float(1 - scipy.special.nctdtr(n - 1, shift, limit))


def power_of_bound(n: int, margin: float, level: float) -> float:
    """Share of studies with `n` seeds that show |difference| < `margin` where there is none.

    `margin` is in spreads, and `level` that of each of the two one-sided tests.
    """
    if n < 2:
        return 0.0
    freedom, wide = n - 1, math.sqrt(n) * margin
    limit = float(scipy.special.stdtrit(freedom, 1 - level))
    if limit <= 0:
        raise ValueError(f"a level is below 0.5, got {level}")
    around = 10 / math.sqrt(2 * freedom)  # ten standard deviations of u, and more
    low, high = max(0.0, 1 - around), min(1 + around, wide / limit)
    if high <= low:
        return 0.0
    half = freedom / 2
    scale = math.log(2) + half * math.log(half) - math.lgamma(half)

    def inside(u: np.ndarray) -> Any:
        share = 2 * scipy.special.ndtr(wide - limit * u) - 1
        return share * np.exp(scale + (freedom - 1) * np.log(u) - half * u**2)

    return float(scipy.integrate.fixed_quad(inside, low, high, n=128)[0])


def seeds_needed(effect: float, level: float, share: float = SHARE) -> int | None:
    """The fewest seeds with which a test at `level` finds `effect` in `share` of studies.

    None where even `MOST` do not, such as of no effect.
    """
    return _fewest(lambda n: power(n, effect, level), share) if effect > 0 else None


def seeds_to_bound(margin: float, level: float) -> int | None:
    """The fewest seeds that show |difference| < `margin` in `SHARE` of studies without one.

    None where even `MOST` do not.
    """
    return _fewest(lambda n: power_of_bound(n, margin, level), SHARE) if margin > 0 else None


def detectable(n: int, level: float) -> float:
    """The smallest effect, in spreads, that `n` seeds find in `SHARE` of studies; inf below two."""
    return _smallest(lambda effect: power(n, effect, level)) if n >= 2 else math.inf


def boundable(n: int, level: float) -> float:
    """The smallest margin, in spreads, that `n` seeds show in `SHARE` of studies without a
    difference; inf below two."""
    return _smallest(lambda m: power_of_bound(n, m, level)) if n >= 2 else math.inf


def _fewest(power_of: Callable[[int], float], share: float) -> int | None:
    """Where `power_of`, which rises, first reaches `share`."""
    if power_of(MOST) < share:
        return None
    counts = range(2, MOST)
    return 2 + bisect.bisect_left(counts, share, key=power_of)


def _smallest(power_of: Callable[[float], float]) -> float:
    """The number above 0 at which `power_of`, which rises, is `SHARE`."""
    return float(scipy.optimize.bisect(lambda effect: power_of(effect) - SHARE, 0.0, 1e9))
