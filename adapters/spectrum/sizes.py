"""How large the numbers of each phi are: its amplitudes, and its bandwidths."""

import torch
from torch import nn

from adapters.basis.layers import BasisLayer
from adapters.placement.module_names import IN_PEFT
from basis_zoo import PhiParameters

SIZES = ("amplitude_norm", "bandwidth_norm", "bandwidth_mean")
"""The names of what `sizes_of` returns."""


def sizes_of(parameters: PhiParameters) -> dict[str, float]:
    r"""The Euclidean norms of the amplitudes $a$ and bandwidths $\omega$, and the mean bandwidth.

    A family without bandwidths has the first alone.
    """
    p = parameters.double()
    sizes = {"amplitude_norm": float(p.amplitude.norm())}
    if p.bandwidth.numel():
        sizes |= {
            "bandwidth_norm": float(p.bandwidth.norm()),
            "bandwidth_mean": float(p.bandwidth.mean()),
        }
    return sizes


@torch.no_grad()
def phi_sizes(model: nn.Module, adapter: str = "default") -> dict[str, dict[str, float]]:
    """`sizes_of` the phi of every module that carries `adapter`, by the module's name.

    Empty for methods without phi. No update is made, so this takes little time.
    """
    phis = {
        name.removeprefix(IN_PEFT): layer.member(adapter)[2]
        for name, layer in model.named_modules()
        if isinstance(layer, BasisLayer) and adapter in layer.basis_phi
    }
    return {name: sizes_of(phi.parameters_in_force()) for name, phi in phis.items()}
