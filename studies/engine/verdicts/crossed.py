r"""The error of a mean over seeds and test rows: a two-way crossed random-effects analysis.

A number $d_{sr}$ of seed s on row r, such as the difference of two arms' scores, is

$$d_{sr} = \mu + a_s + b_r + e_{sr}, \qquad s = 1..S,\; r = 1..R,$$

where seeds and rows are draws: other ones would give another mean. With the mean squares of seeds,
rows and what is left, $M_s, M_r, M_e$, the variance of the grand mean and its degrees of freedom
(Satterthwaite 1946) are estimated by

$$V = \frac{M_s + M_r - M_e}{S R}, \qquad
  \nu = \frac{(M_s + M_r - M_e)^2}
             {M_s^2/(S-1) + M_r^2/(R-1) + M_e^2/((S-1)(R-1))}.$$

A component whose estimate is negative is 0: $M_s$ and $M_r$ count as at least $M_e$, so that V is
never below $M_s / (S R)$, the squared error over seeds alone. With few seeds $\nu$ is too large
where $M_s$ comes out small, so a claim's p is never below that over seeds alone
(`Measured.of_seeds`); what that leaves is in docs/statistics.md. Several sets of rows, such as
tasks, that share their seeds are summed: each has its own $M_r$ and $M_e$, and $M_s$ is of the sum.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from studies.engine.verdicts.statistics import Measured

ROUNDING = 1e-12
"""A spread below this share of the largest number comes from rounding alone."""


def crossed(sets: Sequence[NDArray[np.float64]], size: float = 0.0) -> Measured:
    """The sum over `sets` of their means, with its error over seeds and rows.

    That error is 0 where all numbers are the same.

    Args:
        sets: (S, R) each, the same S seeds in each, its own rows.
        size: The largest number that was subtracted from or subtracted, whose rounding is no
            spread.

    Raises:
        ValueError: fewer than two seeds, or a set of fewer than two rows.
    """
    if not sets or min(len(d) for d in sets) < 2 or min(d.shape[1] for d in sets) < 2:
        raise ValueError(f"expected two seeds and two rows at least, got {[d.shape for d in sets]}")
    seeds = len(sets[0])
    by_seed = np.sum([d.mean(axis=1) for d in sets], axis=0)
    mean = float(by_seed.mean())
    own, terms = float(by_seed.var(ddof=1)) / seeds, []
    left = 0.0
    for d in sets:
        rest = d - d.mean(axis=1, keepdims=True) - d.mean(axis=0) + d.mean()
        few = (seeds - 1) * (d.shape[1] - 1)
        error = float(np.square(rest).sum()) / few
        rows = seeds * float(d.mean(axis=0).var(ddof=1))
        cells = d.size
        left += error / cells
        terms += [(max(rows, error) / cells, d.shape[1] - 1.0), (error / cells, float(few))]
    # of squared errors: that of the seeds, and what rows have beyond the noise
    ours = max(own, left)
    beyond = sum(value for value, _ in terms[::2]) - left
    terms.append((ours, seeds - 1.0))
    variance = ours + beyond
    if variance**0.5 <= ROUNDING * max(size, *(float(np.abs(d).max()) for d in sets)):
        return Measured(mean, 0.0, seeds - 1.0)
    freedom = variance**2 / sum(value**2 / free for value, free in terms)
    return Measured(mean, variance**0.5, freedom, beyond)
