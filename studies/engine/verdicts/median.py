r"""The median of a claim's number over seeds, by the sign test.

Where $k(c)$ of the $n$ numbers $d_s$ lie above $c$, the one-sided p of the median lying there is
$P(\mathrm{Bin}(n, \tfrac12) \ge k(c))$, exact whatever the distribution. A number that equals $c$
speaks for neither side. The interval runs between two of the sorted numbers (Thompson 1936). What a
number of seeds finds: `sign_power`; how it compares with a mean: docs/statistics.md.

References: Dixon & Mood, *The statistical sign test* (1946); Thompson, *On confidence ranges for
the median* (1936); Croux & Rousseeuw, *Time-efficient algorithms for two highly robust estimators
of scale* (1992), for `spread` with few seeds.
"""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from studies.engine.verdicts import sign_power
from studies.engine.verdicts.statistics import at_least

OF_FREEDOM = 0.37
"""Of the degrees of freedom of a standard deviation, what that of `spread` is worth."""
ROUNDING = 1e-12
"""Numbers nearer than this are equal: of 0.85 and 0.845 the difference is not quite 0.005."""
_NORMAL_MAD = 0.6744897501960817
"""Median distance from the median of a standard normal distribution."""
_FEW = {2: 1.196, 3: 1.495, 4: 1.363, 5: 1.206, 6: 1.2, 7: 1.14, 8: 1.129, 9: 1.107}
"""By how much few numbers show less than that, on average."""


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
        center, n = self.center, len(self.values)
        distance = statistics.median(abs(v - center) for v in self.values)
        return distance / _NORMAL_MAD * _FEW.get(n, n / (n - 0.8))

    def p_above(self, center: float) -> float:
        """One-sided p of the test that the true median is at most `center`."""
        return at_least(self._above(center), len(self.values), 0.5)

    def p_below(self, center: float) -> float:
        """One-sided p of the test that the true median is at least `center`."""
        return at_least(self._below(center), len(self.values), 0.5)

    def interval(self, level: float) -> tuple[float, float]:
        """Ends of the interval that leaves the true median out on one side with at most `level`.

        Infinite where there are too few seeds for such an interval.
        """
        n = len(self.values)
        k = sign_power.critical(n, level)
        if k is None:
            return -math.inf, math.inf
        return self.values[n - k], self.values[k - 1]

    def share(self, end: float) -> float:
        """The share of numbers on the median's side of `end`, as of one more that counts half."""
        return (max(self._above(end), self._below(end)) + 0.5) / (len(self.values) + 1)

    def _above(self, center: float) -> int:
        return sum(v > center + ROUNDING for v in self.values)

    def _below(self, center: float) -> int:
        return sum(v < center - ROUNDING for v in self.values)
