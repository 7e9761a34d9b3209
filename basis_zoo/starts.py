"""Starts: the values that phi, and the factor B beside it, have before training."""

import logging
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from basis_zoo.basis import Basis
from basis_zoo.fit import fit_amplitudes, responses
from basis_zoo.registry import ClassRegistry

log = logging.getLogger(__name__)

_POINTS = 1001  # of the interval, on which starts measure phi
_LARGE = 10  # times max |x|: amplitudes beyond cancel each other, smaller ones are then preferred


class StartValues(NamedTuple):
    """What a start sets."""

    amplitude: Tensor
    """(num_amplitudes,) float64"""
    slope: float = 0.0
    offset: float = 0.0
    residual: float = 0.0
    """Largest distance on the interval between phi and what the start asks for."""


@dataclass(frozen=True)
class Start(ABC):
    """A rule for the values before training."""

    name: ClassVar[str] = ""
    """The registered name, set by `register_start`."""
    anchored: ClassVar[bool] = False
    """Whether phi(0) is subtracted, now and while training."""
    zero_b: ClassVar[bool] = False
    """Whether the factor B starts at zero, as in LoRA, instead of small and random."""

    @abstractmethod
    def values(self, basis: Basis, grid: Tensor, bandwidth: Tensor, linear: bool) -> StartValues:
        """The starting values of phi for `grid` (num_points,) and `bandwidth` (num_bandwidths,).

        Raises:
            ValueError: The family cannot represent what the start asks for.
        """


_STARTS: ClassRegistry[Start] = ClassRegistry("start", Start)
register_start = _STARTS.register
"""Decorator that registers a start class under a name, as in `@register_start("mine")`."""
list_starts = _STARTS.names
"""Returns the names of all registered starts, sorted."""


def get_start(name: str, **options: Any) -> Start:
    """The start registered under `name`, made with `options`."""
    return _STARTS.get(name, **options)


def _zeros(basis: Basis, slope: float = 0.0) -> StartValues:
    return StartValues(torch.zeros(basis.num_amplitudes, dtype=torch.float64), slope)


def _slope(basis: Basis, grid: Tensor, bandwidth: Tensor, linear: bool) -> float:
    """With the linear term on, alpha such that phi with zero amplitudes is the identity."""
    if not linear:
        return 0.0
    ends = torch.tensor(basis.interval, dtype=torch.float64)
    none = basis.phi(ends, _zeros(basis).amplitude, grid, bandwidth)  # not zero for `sinter`
    return 1.0 - ((none[1] - none[0]) / (ends[1] - ends[0])).item()


def _points(basis: Basis) -> Tensor:
    return torch.linspace(*basis.interval, _POINTS, dtype=torch.float64)


class Zero(Start):
    """Zero amplitudes; what extends it says whether B is zero too."""

    def values(self, basis: Basis, grid: Tensor, bandwidth: Tensor, linear: bool) -> StartValues:
        """All zero, the slope of the linear term too."""
        return _zeros(basis)


@register_start("paper")
@dataclass(frozen=True)
class Paper(Zero):
    """Zero amplitudes and B = 0, as LR-LoRA writes it (section 3.3).

    The first updates move all amplitudes together, phi(0) becomes a constant added to every
    entry of W, and training fails; it is kept to be studied.
    """

    zero_b: ClassVar[bool] = True


@register_start("small")
@dataclass(frozen=True)
class Small(Zero):
    """Zero amplitudes and a small random B, not anchored.

    The update is zero at first, unless the family is not zero at zero amplitudes; such a family, as
    `sinter` is, needs a start with B = 0. Amplitudes learn different values as soon as the entries
    of BA differ by a grid cell, so give it an input scale.
    """


@register_start("anchored")
@dataclass(frozen=True)
class Anchored(Zero):
    """Zero amplitudes, phi(x) - phi(0), and a small random B: the default.

    The update is zero at first, as with `small`. The linear term starts at slope 0, as one more
    function: at slope 1 the random B would change the model before the first step. On small
    regressions (rank 8, Adam, rates from 3e-4 to 1e-2, three seeds) slope 0 learned as well as
    LoRA's start, slope 1 and B = 0, but for the lowest rate, where LoRA's was a tenth ahead; slope
    1 with the random B came last there. LoRA's start is `identity_anchored`.
    """

    anchored: ClassVar[bool] = True


@register_start("constant")
@dataclass(frozen=True)
class Constant(Start):
    """All amplitudes equal and B = 0: with the family `sine` and value 1 / s, SineLoRA.

    Families that are not zero at 0, as `sine` and `sinter` are, add phi(0) to every entry of W
    before the first step.
    """

    value: float = 1.0
    """The value of every amplitude."""

    zero_b: ClassVar[bool] = True

    def values(self, basis: Basis, grid: Tensor, bandwidth: Tensor, linear: bool) -> StartValues:
        """All `value`."""
        return StartValues(torch.full((basis.num_amplitudes,), self.value, dtype=torch.float64))


@register_start("random")
@dataclass(frozen=True)
class RandomAmplitudes(Start):
    r"""Random amplitudes, phi(x) - phi(0), and B = 0.

    $a_i \sim N(0, \tau^2 / \overline{\textstyle\sum_i \psi_i^2})$, the mean taken over the
    interval: phi has standard deviation $\tau$ there, whatever the family and G.
    """

    scale: float = 0.1
    r"""$\tau$, the standard deviation of phi on the interval."""
    seed: int | None = None
    """Seed of the draw, the same for every module; None draws from torch's own generator."""

    anchored: ClassVar[bool] = True
    zero_b: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not self.scale > 0:
            raise ValueError(f"`scale` must be positive, got {self.scale}")

    def values(self, basis: Basis, grid: Tensor, bandwidth: Tensor, linear: bool) -> StartValues:
        """Amplitudes at random; with the linear term on, around the identity."""
        generator = None if self.seed is None else torch.Generator().manual_seed(self.seed)
        draw = torch.randn(basis.num_amplitudes, dtype=torch.float64, generator=generator)
        energy = responses(basis, _points(basis), grid, bandwidth).square().sum(dim=-1).mean()
        slope = _slope(basis, grid, bandwidth, linear)
        return StartValues(draw * self.scale / energy.sqrt(), slope)


@register_start("identity")
@dataclass(frozen=True)
class Identity(Start):
    """phi(x) = x by least squares with phi(0) = 0 to rounding, and B = 0: plain LoRA at first."""

    tolerance: float = 1e-2
    """Largest |phi(x) - x| on the interval that is accepted, in units of x."""

    zero_b: ClassVar[bool] = True

    def values(self, basis: Basis, grid: Tensor, bandwidth: Tensor, linear: bool) -> StartValues:
        """The fitted amplitudes, or with the linear term on, slope 1 and amplitudes 0."""
        if linear:
            return _zeros(basis, _slope(basis, grid, bandwidth, linear))
        x = _points(basis)
        low, high = basis.interval
        pinned = low < 0 < high  # phi(0) is added to every entry of W while B is zero
        fit = fit_amplitudes(basis, x, x, grid, bandwidth, pinned=pinned)
        if not fit.amplitude.abs().max() <= _LARGE * x.abs().max():
            small = fit_amplitudes(basis, x, x, grid, bandwidth, ridge=True, pinned=pinned)
            fit = small if small.residual <= self.tolerance else fit
        if not fit.residual <= self.tolerance:
            raise ValueError(
                f"family {basis.name!r} with {basis.num_basis} functions cannot start as the "
                f"identity: max |phi(x) - x| is {fit.residual:.2g} on [{low}, {high}], more than "
                f"the tolerance {self.tolerance}. Turn the linear term on, or give the grid an "
                "overhang, take another bandwidth or more functions, or raise the start's "
                "`tolerance`"
            )
        log.info(
            "start as the identity: %s, G %d, max |phi(x) - x| %.2g on [%g, %g], "
            "max |amplitude| %.2g",
            *(basis.name, basis.num_basis, fit.residual, low, high),
            fit.amplitude.abs().max().item(),
        )
        return StartValues(fit.amplitude, residual=fit.residual)


@register_start("identity_anchored")
@dataclass(frozen=True)
class IdentityAnchored(Identity):
    """phi(x) = x by least squares, phi(x) - phi(0), and B = 0."""

    anchored: ClassVar[bool] = True
