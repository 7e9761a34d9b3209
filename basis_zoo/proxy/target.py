"""What a proxy is fitted to: phi with its numbers, a probe beside it, and the range."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from basis_zoo.basis import Basis, LinearBasis, LocationScaleBasis
from basis_zoo.phi import Phi, PhiParameters
from basis_zoo.proxy.constants import constant

_WIDTHS = 2.0
"""Distance of points in widths of a function, at which one of them lies within that width."""
_NOISE = 2.0**-54
"""Share of the amplitudes' sum that float64 rounds at least, where functions of some size add
up."""


class Target(NamedTuple):
    """What is fitted: phi with its numbers in float64, a probe, and the range.

    The proxy must also serve the gradient with respect to the amplitudes: at the start, where
    these are zero, phi itself says nothing, so a probe with fixed random amplitudes is resolved
    too.
    """

    phi: Phi
    own: PhiParameters
    """(*batch, ...), differentiable."""
    both: PhiParameters
    """`own` and the probe: amplitudes and slopes are (2, *batch, ...)."""
    radius: Tensor
    """(*batch,)"""

    @classmethod
    def of(cls, phi: Phi, parameters: PhiParameters, radius: Tensor) -> "Target":
        """The target for phi's numbers in any dtype."""
        own = parameters.double()
        probe = _probe(own.amplitude.shape[-1], own.amplitude.device)
        amplitude = torch.stack([own.amplitude, probe.expand_as(own.amplitude)])
        slope = torch.stack([own.slope, torch.zeros_like(own.slope)])
        both = own._replace(amplitude=amplitude, slope=slope)
        if not _shares_functions(phi.basis):
            both = PhiParameters(*(p if p is amplitude else p.expand(2, *p.shape) for p in both))
            both = both._replace(slope=slope)
        return cls(phi, own, both, radius)

    def values(self, x: Tensor) -> Tensor:
        """phi and the probe at the points `x` (*batch, n), in one evaluation: (2, *batch, n)."""
        if not _shares_functions(self.phi.basis):
            x = x.expand(2, *x.shape)
        return self.phi(x, self.both)

    def slopes(self, x: Tensor) -> Tensor:
        """The derivatives of `values` in x, (2, *batch, n); no difference cancels in them."""
        ones = torch.ones_like(x)
        slopes: Tensor = torch.func.jvp(self.values, (x,), (ones,))[1]
        return slopes

    def noisy(self, errors: Tensor) -> Tensor:
        """`errors`, (2, *batch, n), and what phi(x) - phi(0) loses to cancellation in float64."""
        if not self.phi.anchored:
            return errors
        amplitudes = torch.linalg.vector_norm(self.own.amplitude.detach(), 1, -1, keepdim=True)
        return torch.add(errors, amplitudes, alpha=_NOISE)

    def resolves(self, spacing: Tensor) -> Tensor:
        """Whether points at these distances, (*batch, n), cannot miss all that phi does."""
        basis, own = self.phi.basis, self.own
        low, high = basis.interval
        coarsest = (high - low) / 4
        # functions of bounded support do not count: tables are cut where that ends
        if not isinstance(basis, LocationScaleBasis) or math.isfinite(basis.support):
            return spacing <= coarsest
        width = 1 / own.bandwidth.detach()
        inside = own.grid.detach().abs() <= self.radius[..., None] + width
        narrowest = torch.where(inside, width, torch.inf).amin(-1, keepdim=True)
        return spacing <= (_WIDTHS * narrowest).clamp_max(coarsest)

    @torch.no_grad()
    def reach(self) -> Tensor:
        """The largest radius, (); NaN where that or a number of phi is not finite."""
        numbers = self.own.amplitude.sum(-1) + self.own.bandwidth.sum(-1)
        return torch.add(self.radius, numbers, alpha=0.0).max()


def _shares_functions(basis: Basis) -> bool:
    """Whether the functions are evaluated once for several vectors of amplitudes."""
    return isinstance(basis, LinearBasis) and type(basis).phi is LinearBasis.phi


@constant
def _probe(count: int, device: torch.device) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return (torch.rand(count, generator=generator, dtype=torch.float64) - 0.5).to(device)


def share(error: Tensor, size: Tensor) -> Tensor:
    """`error` as a share of `size`, the largest |phi|; inf where float32 cannot hold phi."""
    small, large = 2.0**-102, 2.0**127
    shares = error / (size - small).clamp_min(torch.finfo(size.dtype).tiny)
    return torch.where(size < large, shares, torch.inf)
