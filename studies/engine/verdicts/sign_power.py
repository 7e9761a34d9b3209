r"""What a number of seeds can find or bound by sign tests, as `power` says of t-tests.

A seed's number lies on the median's side of a value with the probability $q$, which of normal
numbers at the distance $\delta$ is $\Phi(\delta / \sigma)$. The test at the level $a$ decides where
$k$ of $n$ seeds do, with $k$ the smallest number that $P(\mathrm{Bin}(n, \tfrac12) \ge k) \le a$,
so in a share $P(\mathrm{Bin}(n, q) \ge k)$ of studies. There is no such $k$ with fewer than
$\log_2 (1/a)$ seeds. Effects and margins are in spreads; levels are one-sided.
"""

import math
from collections.abc import Callable

import scipy

from studies.engine.verdicts.power import MOST, SHARE
from studies.engine.verdicts.statistics import at_least


def fewest(level: float) -> int:
    """The fewest seeds with which a test at `level` can decide."""
    return math.ceil(math.log2(1 / level))


def critical(n: int, level: float) -> int | None:
    """The smallest number of `n` seeds that decides at `level`; None where not even all do."""
    k = n + 1
    while k > 0 and at_least(k - 1, n, 0.5) <= level:
        k -= 1
    return k if k <= n else None


def seeds_for(q: float, level: float, share: float = SHARE) -> int | None:
    """The fewest seeds that decide in `share` of studies, of which each is on one side with `q`.

    None where even `MOST` do not.
    """
    return _first(level, lambda n, k: at_least(k, n, q) >= share) if q > 0.5 else None


def seeds_needed(effect: float, level: float) -> int | None:
    """As `power.seeds_needed`, of normal numbers."""
    return seeds_for(float(scipy.special.ndtr(effect)), level)


def seeds_to_bound(margin: float, level: float) -> int | None:
    """As `power.seeds_to_bound`, of normal numbers."""
    beyond = float(scipy.special.ndtr(-margin))
    if margin <= 0:
        return None
    return _first(level, lambda n, k: 2 * at_least(n - k + 1, n, beyond) <= 1 - SHARE)


def detectable(n: int, level: float) -> float:
    """As `power.detectable`, of normal numbers; inf with too few seeds."""
    k = critical(n, level)
    if k is None:
        return math.inf
    return float(scipy.special.ndtri(scipy.special.betaincinv(k, n - k + 1, SHARE)))


def boundable(n: int, level: float) -> float:
    """As `power.boundable`, of normal numbers; inf with too few seeds."""
    k = critical(n, level)
    if k is None:
        return math.inf
    return -float(scipy.special.ndtri(scipy.special.betaincinv(n - k + 1, k, (1 - SHARE) / 2)))


def _first(level: float, enough: Callable[[int, int], bool]) -> int | None:
    """The first n up to `MOST` that is `enough` with the k of n seeds that decide."""
    k = fewest(level)
    for n in range(k, MOST + 1):
        if at_least(k, n, 0.5) > level:
            k += 1  # one more seed takes no more than one more
        if enough(n, k):
            return n
    return None
