r"""The median of a claim's number over seeds, by the sign test.

Of $n$ seeds with the numbers $d_s$ let $k(c)$ of them lie above $c$. If the median is at most $c$,
each does so with probability $\frac12$ at most, so the one-sided p is that of a fair coin,

$$p_>(c) = P\big(\mathrm{Bin}(n, \tfrac12) \ge k(c)\big),$$

exact whatever the distribution: without symmetry, and however far out a collapsed run lies. A
number that equals $c$ speaks for neither side. The interval runs between two of the sorted numbers
(Thompson 1936). Where differences are normal it takes $\pi / 2$ times the seeds of a t test.

References: Dixon & Mood, *The statistical sign test* (1946); Thompson, *On confidence ranges for
the median* (1936).
"""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import scipy

AS_SPREAD = math.sqrt(math.pi / 2)
"""Times the spread with which a t test of a mean would find as much, of normal numbers."""
OF_FREEDOM = 0.37
"""Of the degrees of freedom of a standard deviation, what that of `spread` is worth."""
_ROUNDING = 1e-12
"""Numbers nearer than this are equal: of 0.85 and 0.845 the difference is not quite 0.005."""
_NORMAL_MAD = 0.6744897501960817
"""Median distance from the median of a standard normal distribution."""


@dataclass(frozen=True)
class Median:
    """A median over seeds with what its test needs."""

    values: tuple[float, ...]
    """The number at each seed."""

    @classmethod
    def of(cls, values: Sequence[float]) -> "Median":
        """Of at least one value."""
        return cls(tuple(sorted(values)))

    @property
    def center(self) -> float:
        """The median."""
        return statistics.median(self.values)

    @property
    def spread(self) -> float:
        """The standard deviation that normal numbers with the same quartiles would have."""
        center = self.center
        return statistics.median(abs(v - center) for v in self.values) / _NORMAL_MAD

    def p_above(self, center: float) -> float:
        """One-sided p of the test that the true median is at most `center`."""
        return _heads(self._above(center), len(self.values))

    def p_below(self, center: float) -> float:
        """One-sided p of the test that the true median is at least `center`."""
        return _heads(self._below(center), len(self.values))

    def interval(self, level: float) -> tuple[float, float]:
        """Ends of the interval that leaves the true median out on one side with at most `level`.

        Infinite where there are too few seeds for such an interval.
        """
        n, outside = len(self.values), -1
        while scipy.special.bdtr(outside + 1, n, 0.5) <= level:
            outside += 1
        if outside < 0:
            return -math.inf, math.inf
        return self.values[outside], self.values[n - 1 - outside]

    def effect(self, end: float) -> float:
        """How clearly the numbers lie on the median's side of `end`: their signs' mean in spreads.

        A share of all of them is taken for a little less, as of one more seed that halves.
        """
        n = len(self.values)
        mean = 2 * (max(self._above(end), self._below(end)) + 0.5) / (n + 1) - 1
        return mean / math.sqrt(1 - mean**2)

    def _above(self, center: float) -> int:
        return sum(v > center + _ROUNDING for v in self.values)

    def _below(self, center: float) -> int:
        return sum(v < center - _ROUNDING for v in self.values)


def _heads(count: int, n: int) -> float:
    """P(X ≥ count) of n throws of a fair coin."""
    return float(scipy.special.bdtrc(count - 1, n, 0.5)) if count else 1.0
