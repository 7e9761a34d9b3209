"""phi itself, module by module, as points to draw."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from adapters.basis.layers import BasisLayer
from adapters.placement.module_names import IN_PEFT, block_of, short_kind
from adapters.spectrum.sizes import sizes_of
from adapters.spectrum.usage import phis
from basis_zoo import PhiParameters


class PhiCurve(NamedTuple):
    """phi of one module."""

    name: str
    kind: str
    block: int | None
    x: Tensor
    """(n,) float64"""
    y: Tensor
    """phi(x), (n,) float64"""
    used: float
    """The largest |x| that the module really has."""
    parameters: PhiParameters | None = None
    """The numbers in force, on the CPU; None in what an earlier version kept."""

    def numbers(self) -> dict[str, float]:
        """How large they are, see `sizes_of`."""
        return {} if self.parameters is None else sizes_of(self.parameters)


@torch.no_grad()
def phi_curves(
    model: nn.Module, adapter: str = "default", radius: float | None = None, count: int = 401
) -> list[PhiCurve]:
    """phi of every module that carries `adapter`, on [-radius, radius]; of eight copies at most.

    Args:
        model: A model with `BasisLayer` layers.
        adapter: The adapter's name.
        radius: None for the range of the module's own x, as of B A.
        count: Number of points.
    """
    curves = []
    for name, layer in model.named_modules():
        if isinstance(layer, BasisLayer) and adapter in layer.basis_phi:
            name = name.removeprefix(IN_PEFT)
            block = block_of(name)
            index = None if block is None else block.index
            of_copies = phis(layer, adapter)
            for k, (phi, points) in enumerate(of_copies):
                used = float(points.abs().max())
                reach = max(used, 1e-6) if radius is None else radius
                x = torch.linspace(-reach, reach, count, dtype=torch.float64, device=points.device)
                curve = x.cpu(), phi(x).cpu()
                numbers = PhiParameters(*(p.detach().cpu() for p in phi.parameters_in_force()))
                own = name if len(of_copies) == 1 else f"{name}[{k}]"
                curves.append(PhiCurve(own, short_kind(name), index, *curve, used, numbers))
    return curves
