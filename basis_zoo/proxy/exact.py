r"""phi itself behind the interface of a proxy, for what no proxy meets the tolerance on.

Every function is evaluated at every point, in chunks, so that memory does not grow with G; the
cost does. Gradients recompute.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from basis_zoo.phi import Phi, PhiParameters

_CHUNK = 2**22
"""Points times functions evaluated at a time."""


@dataclass(frozen=True)
class ExactProxy:
    """phi by direct evaluation; several are stacked along `*batch`. Made by `of`."""

    phi: Phi
    coefficients: Tensor
    """(*batch, n): phi's numbers side by side, differentiable."""
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
        return ExactProxy(self.phi, *tensors, self.sizes)

    def _phi(self, x: Tensor, numbers: Tensor) -> Tensor:
        amplitude, bandwidth, grid, slope, offset = numbers.to(x.dtype).split(self.sizes, dim=-1)
        parameters = PhiParameters(amplitude, bandwidth, grid, slope[..., 0], offset[..., 0])
        return self.phi(x, parameters)

    def _chunks(self, x: Tensor) -> tuple[Tensor, ...]:
        return x.flatten().split(math.ceil(_CHUNK / max(self.sizes)))

    @torch.no_grad()
    def value(self, x: Tensor) -> Tensor:
        """phi(x) for a single proxy, elementwise."""
        parts = [self._phi(part, self.coefficients) for part in self._chunks(x)]
        return torch.cat(parts).view(x.shape)

    def slope(self, x: Tensor) -> Tensor:
        """phi'(x) for a single proxy, elementwise."""
        parts = []
        with torch.enable_grad():
            for part in self._chunks(x.detach()):
                point = part.clone().requires_grad_()
                y = self._phi(point, self.coefficients.detach())
                parts += torch.autograd.grad(y.sum(), point, materialize_grads=True)
        return torch.cat(parts).view(x.shape)

    def pullback(self, x: Tensor, grad: Tensor) -> Tensor:
        """sum(grad * d phi(x) / d coefficients), (n,)."""
        numbers = self.coefficients.detach().clone().requires_grad_()
        total = torch.zeros_like(numbers, dtype=torch.float64)
        with torch.enable_grad():
            for part, upstream in zip(self._chunks(x.detach()), self._chunks(grad), strict=True):
                y = self._phi(part, numbers)
                total += torch.autograd.grad(y, numbers, upstream.to(y.dtype))[0]
        return total.to(numbers.dtype)
