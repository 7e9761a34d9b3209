"""phi of one module as it stands: a differentiable function of tensors."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from adapters.ops.weight import weight_update
from basis_zoo import Nonlinearity
from basis_zoo.proxy import ExactProxy, Proxy

_WIDTH = 16
"""Columns in which points are laid out: the least rank of a product on the tensor cores."""


class PhiFunction:
    """phi by its proxy, or the several copies of one.

    Args:
        proxy: What stands for phi on the range that the form declares.
        input_scale: The factor on every x.
    """

    def __init__(self, proxy: Proxy, input_scale: Tensor | float = 1.0) -> None:
        self._proxy, self._input_scale = proxy, input_scale

    @classmethod
    def exact(cls, phi: Nonlinearity, numbers: Sequence[Tensor] | None = None) -> "PhiFunction":
        """phi itself, in float64 and without a range; of other `numbers`, if any are given."""
        return cls(ExactProxy.of(phi.phi, phi.parameters_in_force(numbers).double()))

    def __call__(self, x: Tensor) -> Tensor:
        """phi(x), elementwise, in the shape of x and in float32 or better."""
        x = self._scaled(x.to(torch.promote_types(x.dtype, torch.float32)))
        flat = x.reshape(-1)
        short = -flat.numel() % _WIDTH
        points = (F.pad(flat, (0, short)) if short else flat).view(-1, _WIDTH)
        # a product with the identity: the kernels of phi(B A) serve, gradients and all
        identity = torch.eye(_WIDTH, device=x.device, dtype=x.dtype)
        y = weight_update(points, identity, self._proxy, 1.0)
        return y.flatten()[: flat.numel()].view(x.shape)

    def of_product(self, b: Tensor, a: Tensor) -> Tensor:
        """phi(B A) of b (out, r) and a (r, in), without B A in memory where there is a kernel."""
        return weight_update(self._scaled(b), a, self._proxy, 1.0)

    def _scaled(self, x: Tensor) -> Tensor:
        fixed = isinstance(self._input_scale, float) and self._input_scale == 1
        return x if fixed else x * self._input_scale

    def singles(self) -> "list[PhiFunction]":
        """The copies one by one."""
        tensors = zip(*(t.unbind() for t in self._proxy.tensors), strict=True)
        return [PhiFunction(self._proxy.rebuilt(each), self._input_scale) for each in tensors]
