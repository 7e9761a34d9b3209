r"""Numbers of phi that are led through a training: bandwidths, and fixed input scales.

Before each of the N steps they are multiplied by $f^{1/N}$, so that the last step trains with f
times what they were, beside what training does to them. With $f > 1$ for bandwidths phi is coarse
at first and fine later, a continuation (Allgower & Georg, *Numerical continuation methods*, 1990).

Nothing is remembered beside parameters and buffers, so a checkpoint that has these goes on alike.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from adapters.basis.layers import BasisLayer
from basis_zoo import InputScale
from basis_zoo.nonlinearity import inverse_softplus


class LedScale(InputScale):
    """A fixed input scale times a number that a schedule changes."""

    multiple: Tensor

    def forward(self) -> Tensor:
        """The factor, 0-d float32."""
        return self.value * self.multiple


class PhiSchedule:
    """Leads the numbers of all adapters of `model`; make it before the first step.

    Args:
        model: Where its adapters are is where they stay.
        steps: N.
        bandwidth_to: f for the bandwidths, trained or not; 1 leaves them alone.
        input_scale_to: f for input scales with the rule `fixed`; see `fold_input_scales`.
    """

    def __init__(
        self,
        model: nn.Module,
        steps: int,
        *,
        bandwidth_to: float = 1.0,
        input_scale_to: float = 1.0,
    ) -> None:
        self._layers = [layer for layer in model.modules() if isinstance(layer, BasisLayer)]
        self._bandwidth = math.log(bandwidth_to) / steps
        self._scale = math.log(input_scale_to) / steps
        for layer in self._layers if self._scale else ():
            for name, scale in layer.basis_scale.items():
                if scale.rule == "fixed" and not isinstance(scale, LedScale):
                    # in place, as others hold it; a file has the factor in B, see below
                    scale.__class__ = LedScale
                    one = torch.ones((), device=layer.basis_B[name].device)
                    scale.register_buffer("multiple", one, persistent=False)

    @torch.no_grad()
    def before_step(self) -> None:
        """Multiply once; call it before every optimizer step, the first included."""
        if self._bandwidth:
            phis = [phi for layer in self._layers for phi in layer.basis_phi.values()]
            for raw in {id(phi.raw_bandwidth): phi.raw_bandwidth for phi in phis}.values():
                omega = F.softplus(raw.double()) * math.exp(self._bandwidth)
                raw.copy_(inverse_softplus(omega))
        if self._scale:
            for layer in self._layers:
                for scale in layer.basis_scale.values():
                    if isinstance(scale, LedScale):
                        scale.multiple.mul_(math.exp(self._scale))


@torch.no_grad()
def fold_input_scales(model: nn.Module) -> None:
    """Put what a schedule has made of the input scales into B, once training is over.

    x = (f c) B A = c (f B) A: the model stays what it is, and its configuration is right again.
    """
    for layer in model.modules():
        if isinstance(layer, BasisLayer):
            for name, scale in layer.basis_scale.items():
                if isinstance(scale, LedScale):
                    layer.basis_B[name].mul_(scale.multiple)
                    scale.multiple.fill_(1.0)
