r"""phi itself behind the interface of a proxy, for a phi on which no proxy meets the tolerance.

Every function is evaluated at every point, in chunks, so that memory does not grow with G; the
cost does. Gradients recompute. Made of float64 numbers it computes in float64: in float32 the
phis that come to this lose all digits, to cancellation or to steepness.
"""

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from basis_zoo.phi import Phi, PhiParameters
from basis_zoo.proxy.chebyshev import EPSILON, points

_CHUNK = 2**22
"""Points times functions evaluated at a time."""
_NODES = 65
_LOSS = 2.0**-48
"""Share of a sum's terms that float64 may lose, in the functions and in adding up."""


@dataclass(frozen=True)
class ExactProxy:
    """phi by direct evaluation; several are stacked along `*batch`. Made by `of`."""

    phi: Phi
    coefficients: Tensor
    """(*batch, n): phi's numbers side by side, differentiable; where they or x are float64, so is
    the computation."""
    sizes: tuple[int, ...]
    """How many of them belong to each field of `PhiParameters`."""

    @classmethod
    def of(cls, phi: Phi, parameters: PhiParameters) -> "ExactProxy":
        """The proxy of `phi` with these numbers, stacked along `*batch`."""
        fields = [*parameters[:3], parameters.slope[..., None], parameters.offset[..., None]]
        return cls(phi, torch.cat(fields, dim=-1), tuple(f.shape[-1] for f in fields))

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """All numbers, the coefficients first."""
        return (self.coefficients,)

    def rebuilt(self, tensors: tuple[Tensor, ...]) -> "ExactProxy":
        """The same proxy of other tensors, in the order of `tensors`."""
        (coefficients,) = tensors
        return ExactProxy(self.phi, coefficients, self.sizes)

    @property
    def copies(self) -> int:
        """How many proxies are stacked."""
        return self.coefficients.shape[:-1].numel()

    def _phi(self, x: Tensor, numbers: Tensor) -> Tensor:
        work = torch.promote_types(x.dtype, numbers.dtype)
        amplitude, bandwidth, grid, slope, offset = numbers.to(work).split(self.sizes, dim=-1)
        parameters = PhiParameters(amplitude, bandwidth, grid, slope[..., 0], offset[..., 0])
        return self.phi(x.to(work), parameters).to(x.dtype)

    def _chunks(self, x: Tensor) -> tuple[Tensor, ...]:
        batch = self.coefficients.shape[:-1]
        points = x.reshape(*batch, -1)
        many = max(self.sizes) * batch.numel()
        chunks: tuple[Tensor, ...] = points.split(math.ceil(_CHUNK / many), dim=-1)
        return chunks

    @torch.no_grad()
    def value(self, x: Tensor) -> Tensor:
        """phi(x), elementwise; of a stack, each proxy at its own points, x (*batch, n)."""
        parts = [self._phi(part, self.coefficients) for part in self._chunks(x)]
        return torch.cat(parts, dim=-1).view(x.shape)

    def slope(self, x: Tensor) -> Tensor:
        """phi'(x), as `value`."""
        parts: list[Tensor] = []
        with torch.enable_grad():
            for part in self._chunks(x.detach()):
                point = part.clone().requires_grad_()
                y = self._phi(point, self.coefficients.detach())
                parts += torch.autograd.grad(y.sum(), point, materialize_grads=True)
        return torch.cat(parts, dim=-1).view(x.shape)

    def pullback(self, x: Tensor, grad: Tensor) -> Tensor:
        """sum(grad * d phi(x) / d coefficients), (*batch, n)."""
        numbers = self.coefficients.detach().clone().requires_grad_()
        total = torch.zeros_like(numbers, dtype=torch.float64)
        with torch.enable_grad():
            for part, upstream in zip(self._chunks(x.detach()), self._chunks(grad), strict=True):
                y = self._phi(part, numbers)
                total += torch.autograd.grad(y, numbers, upstream.to(y.dtype))[0]
        return total.to(numbers.dtype)


def float64_error(phi: Phi, parameters: PhiParameters, radius: Tensor) -> tuple[Tensor, Tensor]:
    """What float64 loses of phi's terms and float32 of its value; and the largest |phi|.

    Both (*batch,), of float64 `parameters`, sampled on the range and at the grid points in it.
    """
    reach = radius.double()[..., None]
    x = (reach * points(_NODES, radius.device)).expand(*parameters.slope.shape, -1)
    x = torch.cat([x, torch.clamp(parameters.grid, -reach, reach)], dim=-1)
    size = phi(x, parameters).abs().amax(-1)
    # amplitudes of one sign, and of alternating ones: functions that cancel add up in one of them
    plain, same = replace(phi, anchored=False), parameters.amplitude.abs()
    signs = 1 - 2.0 * (torch.arange(same.shape[-1], device=x.device) % 2)
    terms = [plain(x, parameters._replace(amplitude=a)) for a in (same, signs * same)]
    rounding = _LOSS * torch.stack(terms).abs().amax(-1).amax(0)
    return rounding + EPSILON * size, size
