r"""What a number of seeds can find: the power of a one-sided t-test, planned or after the fact.

Of $n$ seeds whose paired differences have the mean $\delta$ and the standard deviation $\sigma$,
the t statistic has the noncentral t distribution with $n - 1$ degrees of freedom and the
noncentrality $\sqrt n\,\delta/\sigma$. Effects are given in spreads, $\delta/\sigma$; levels are
one-sided.
"""

import math

import scipy

SHARE = 0.8
"""Share of studies that shall find what is there, by convention."""

MOST = 100_000
"""More seeds than anybody trains."""


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


def seeds_needed(effect: float, level: float, share: float = SHARE) -> int | None:
    """The fewest seeds with which a test at `level` finds `effect` in `share` of studies.

    None where even `MOST` do not, such as of no effect.
    """
    if effect <= 0 or power(MOST, effect, level) < share:
        return None
    low, high = 1, 2
    while power(high, effect, level) < share:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if power(middle, effect, level) >= share else (middle, high)
    return high


def detectable(n: int, level: float, share: float = SHARE) -> float:
    """The smallest effect, in spreads, that `n` seeds find in `share` of studies; inf below two."""
    if n < 2:
        return math.inf
    low, high = 0.0, 1.0
    while power(n, high, level) < share:
        low, high = high, 2 * high
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (low, middle) if power(n, middle, level) >= share else (middle, high)
    return high
