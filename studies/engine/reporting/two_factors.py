r"""A sweep of two factors: means of all combinations, main effects and the interaction.

The arms that set two paths in every combination are the cells of a design with factors $a$ and $b$.
Every cell has the same seeds $s$, as blocks, so the model is

$$y_{ijs} = \mu + \alpha_i + \beta_j + (\alpha\beta)_{ij} + \gamma_s + \varepsilon_{ijs}, \qquad
  \sum_i \alpha_i = \sum_j \beta_j = \sum_i (\alpha\beta)_{ij} = \sum_j (\alpha\beta)_{ij} = 0$$

with one variance for all cells. The design is balanced, so least squares are means of means, and
the sums of squares of the three terms are orthogonal. Each term has an F test, each effect a t
interval with the residual's $(IJ - 1)(n - 1)$ degrees of freedom.

Reference: Montgomery, *Design and Analysis of Experiments* (2017), section 5.6.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import scipy
from numpy.typing import NDArray

from studies.engine.labels import short_value
from studies.engine.verdicts.statistics import Estimate, t_quantile

ABSENT = "the study's own"
"""Of an arm that leaves a factor alone."""


@dataclass(frozen=True)
class Term:
    """One source of variation."""

    name: str
    freedom: int
    f: float
    p: float


@dataclass(frozen=True)
class TwoFactors:
    """The analysis of one two-factor sweep; `rows` and `columns` are the levels' names."""

    factors: tuple[str, str]
    """Dotted paths, of rows and of columns."""
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    arms: tuple[tuple[str, ...], ...]
    """The arm of each cell."""
    seeds: tuple[int, ...]
    """Those that every cell has; nothing else is used."""
    means: tuple[tuple[float, ...], ...]
    row_effects: tuple[Estimate, ...]
    column_effects: tuple[Estimate, ...]
    interaction: tuple[tuple[Estimate, ...], ...]
    terms: tuple[Term, ...]
    """Rows, columns, interaction; empty where they cannot be tested."""
    freedom: int
    """Degrees of freedom of the residual."""
    note: str = ""
    """Why there are no tests and intervals; empty where there are."""
    uneven: str = ""
    """An arm whose seeds spread too far for one variance to hold; empty where none does."""


Swept = Mapping[str, Mapping[str, Any]]
"""Arm to what was set for it, by dotted path."""


def two_factors(swept: Swept, values: Mapping[str, Mapping[int, float]]) -> TwoFactors | None:
    """The analysis of the largest two-factor sweep among the arms; None where there is none.

    An arm that leaves one factor alone stands for the level that the study has without it.

    Args:
        swept: Of every arm.
        values: Arm to seed to value; an arm without values is in no design.
    """
    known = {arm: own for arm, own in swept.items() if values.get(arm)}
    paths = sorted({path for own in known.values() for path in own})
    grids = [grid for pair in combinations(paths, 2) if (grid := _grid(known, pair)) is not None]
    best = max(grids, key=lambda grid: len(grid[2]), default=None)
    return None if best is None else _analysed(*best, values)


Grid = tuple[tuple[str, str], tuple[list[str], list[str]], dict[tuple[str, str], str]]
"""Factors, their levels, and the arm of each cell."""


def _grid(swept: Swept, pair: tuple[str, str]) -> Grid | None:
    """The complete design of the arms that set nothing but `pair`; None where it has holes."""
    cells: dict[tuple[str, str], str] = {}
    levels: tuple[dict[str, Any], dict[str, Any]] = {}, {}
    for arm, own in swept.items():
        if not own.keys() <= set(pair):
            continue
        names = [short_value(own[path]) if path in own else ABSENT for path in pair]
        cell = names[0], names[1]
        if cell in cells:
            return None
        cells[cell] = arm
        for known, path, name in zip(levels, pair, names, strict=True):
            known[name] = own.get(path)
    ordered = _ordered(levels[0]), _ordered(levels[1])
    if min(map(len, ordered)) < 2 or len(cells) != len(ordered[0]) * len(ordered[1]):
        return None
    if len(ordered[0]) < len(ordered[1]):  # a page is higher than wide
        turned = {(b, a): arm for (a, b), arm in cells.items()}
        return (pair[1], pair[0]), (ordered[1], ordered[0]), turned
    return pair, ordered, cells


def _ordered(levels: Mapping[str, Any]) -> list[str]:
    """Numbers ascending, other levels as they come; `ABSENT` first."""

    def key(name: str) -> tuple[bool, float]:
        value = levels[name]
        return name != ABSENT, float(value) if type(value) in (int, float) else 0.0

    return sorted(levels, key=key)


def _analysed(
    factors: tuple[str, str],
    levels: tuple[Sequence[str], Sequence[str]],
    cells: Mapping[tuple[str, str], str],
    values: Mapping[str, Mapping[int, float]],
) -> TwoFactors | None:
    rows, columns = levels
    arms = tuple(tuple(cells[row, column] for column in columns) for row in rows)
    seeds = sorted(set.intersection(*(set(values[arm]) for arm in cells.values())))
    if not seeds:
        return None
    y = np.array([[[values[arm][seed] for seed in seeds] for arm in row] for row in arms])
    i, j, n = y.shape
    means, grand = y.mean(axis=2), y.mean()
    row = means.mean(axis=1) - grand
    column = means.mean(axis=0) - grand
    both = means - grand - row[:, None] - column[None, :]
    left = y - means[:, :, None] - (y.mean(axis=(0, 1)) - grand)
    freedom = (i * j - 1) * (n - 1)
    variance, note = float((left**2).sum()) / max(freedom, 1), ""
    if n == 1:
        note = "one seed in common has no intervals and no tests"
    elif variance <= (1e-12 * float(abs(y).max())) ** 2:
        note = "the seeds differ by the same amount in every cell: there is nothing to test with"
    terms: list[Term] = []
    reach: tuple[float | None, ...] = (None, None, None)
    if not note:
        t = t_quantile(0.975, freedom) * math.sqrt(variance / (n * i * j))
        reach = t * math.sqrt(i - 1), t * math.sqrt(j - 1), t * math.sqrt((i - 1) * (j - 1))
        squares = (
            (factors[0], i - 1, n * j * (row**2).sum()),
            (factors[1], j - 1, n * i * (column**2).sum()),
            ("interaction", (i - 1) * (j - 1), n * (both**2).sum()),
        )
        for name, own, square in squares:
            f = float(square) / own / variance
            terms.append(Term(name, own, f, float(scipy.special.fdtrc(own, freedom, f))))
    return TwoFactors(
        factors, tuple(rows), tuple(columns), arms, tuple(seeds),
        means=tuple(map(tuple, means.tolist())),
        row_effects=tuple(_around(e, reach[0]) for e in row.tolist()),
        column_effects=tuple(_around(e, reach[1]) for e in column.tolist()),
        interaction=tuple(tuple(_around(e, reach[2]) for e in line) for line in both.tolist()),
        terms=tuple(terms), freedom=freedom, note=note, uneven=_uneven(arms, left) if terms else "",
    )  # fmt: skip


def cochran_limit(cells: int, seeds: int, alpha: float = 0.01) -> float:
    """What the largest variance may be of the sum of all, where all are one (Cochran's C)."""
    f = scipy.special.fdtri(seeds - 1, (cells - 1) * (seeds - 1), 1 - alpha / cells)
    return float(1 / (1 + (cells - 1) / f))


def _uneven(arms: tuple[tuple[str, ...], ...], residuals: NDArray[np.float64]) -> str:
    rows, columns, seeds = residuals.shape
    variances = residuals.var(axis=2, ddof=1)
    if variances.max() <= variances.sum() * cochran_limit(rows * columns, seeds):
        return ""
    return [arm for row in arms for arm in row][int(variances.argmax())]


def _around(effect: float, reach: float | None) -> Estimate:
    return (effect, None, None) if reach is None else (effect, effect - reach, effect + reach)
