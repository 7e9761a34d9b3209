r"""How much paired differences vary over seeds, and how well that is known.

The spread is the standard deviation $\sigma$ over seeds of an arm minus the baseline at the same
seed, in the metric's unit. Of arms with one baseline the variances are pooled,
$s^2 = \sum_a \nu_a s_a^2 / \sum_a \nu_a$ with $\nu_a = n_a - 1$. Their differences share the
baseline, so that any two correlate by one half where all arms vary alike, and two variances by its
square: $s^2$ is known as well as one of

$$\nu = \Big(\sum_a \nu_a\Big)^2 \Big/
  \Big(\sum_a \nu_a + \tfrac14 \sum_{a \ne b} \min(\nu_a, \nu_b)\Big)$$

degrees of freedom (Satterthwaite), of which the interval $s\sqrt{\nu/\chi^2_\nu}$ is made.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import scipy

from studies.engine.labels import span
from studies.engine.verdicts.statistics import paired


@dataclass(frozen=True)
class Spread:
    """A standard deviation over seeds, above 0."""

    value: float
    freedom: float | None = None
    """Degrees of freedom that it is estimated with; None of one that is stated."""
    source: str = ""
    """Where it is from, in words."""

    @property
    def interval(self) -> tuple[float, float] | None:
        """Its 95 % interval, if values are normal; None where it is stated."""
        if self.freedom is None:
            return None
        low, high = (  # chdtri is the inverse of the upper tail
            self.value * math.sqrt(self.freedom / float(scipy.special.chdtri(self.freedom, tail)))
            for tail in (0.025, 0.975)
        )
        return low, high


def pooled(values: Mapping[str, Mapping[int, float]], baseline: str) -> Spread | None:
    """The spread of all arms' differences from `baseline`; `values` are by arm and seed.

    None where no arm has two seeds in common with the baseline, or nothing varies.
    """
    reference = values.get(baseline, {})
    spreads = {}
    for arm, own in values.items():
        _, difference = paired(own, reference)
        if arm != baseline and difference.std is not None:
            spreads[arm] = difference.n - 1, difference.std
    if not any(std for _, std in spreads.values()):
        return None
    each = [freedom for freedom, _ in spreads.values()]
    total = sum(each)
    shared = sum(min(a, b) for i, a in enumerate(each) for j, b in enumerate(each) if i != j)
    variance = math.fsum(freedom * std**2 for freedom, std in spreads.values()) / total
    return Spread(math.sqrt(variance), total**2 / (total + shared / 4), _source(spreads, baseline))


def _source(spreads: Mapping[str, tuple[int, float]], baseline: str) -> str:
    """Which differences, of how many seeds, and how far their spreads are apart."""
    least, most = (end(freedom + 1 for freedom, _ in spreads.values()) for end in (min, max))
    seeds = f"{span(least, most)} seeds"
    if len(spreads) == 1:
        return f"of {next(iter(spreads))} minus {baseline}, {seeds}"
    low, high = (end(spreads, key=lambda arm: spreads[arm][1]) for end in (min, max))
    return (
        f"pooled over the differences of {len(spreads)} arms to {baseline}, {seeds} "
        f"({spreads[low][1]:.3g} of {low} to {spreads[high][1]:.3g} of {high})"
    )
