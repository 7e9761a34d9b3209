r"""Numbers of phi that are led through a training: bandwidths, and fixed input scales.

Before each of the N steps they are multiplied by $f^{1/N}$, so that the last step trains with f
times what they were, beside what training does to them. With $f > 1$ for bandwidths phi is coarse
at first and fine later, a continuation (Allgower & Georg, *Numerical continuation methods*, 1990).

Nothing is remembered beside parameters and buffers, so a checkpoint that has these goes on alike.
"""

from collections.abc import Iterator, Sequence

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
        layers = [layer for layer in model.modules() if isinstance(layer, BasisLayer)]
        self._phis = [phi for layer in layers for phi in layer.basis_phi.values()]
        self._bandwidth, self._scale = bandwidth_to ** (1 / steps), input_scale_to ** (1 / steps)
        for scale in _on_products(layers) if input_scale_to != 1 else ():
            if type(scale) is InputScale and scale.rule == "fixed":
                scale.__class__ = LedScale  # in place, as others hold it
                one = torch.ones((), device=self._phis[0].amplitude.device)
                # a file has the factor in B, see below
                scale.register_buffer("multiple", one, persistent=False)
        self._multiples = [m.multiple for m in model.modules() if isinstance(m, LedScale)]

    @torch.no_grad()
    def before_step(self) -> None:
        """Multiply once; call it before every optimizer step, the first included."""
        if self._bandwidth != 1:
            for raw in {id(p.raw_bandwidth): p.raw_bandwidth for p in self._phis}.values():
                raw.copy_(inverse_softplus(F.softplus(raw.double()) * self._bandwidth))
        for multiple in self._multiples:
            multiple.mul_(self._scale)


def _on_products(layers: Sequence[BasisLayer]) -> Iterator[nn.Module]:
    """The input scales on B A, which can be folded into B."""
    for layer in layers:
        for adapter, scale in layer.basis_scale.items():
            if layer.execution[adapter].form.elementwise:
                yield scale


@torch.no_grad()
def fold_input_scales(model: nn.Module) -> None:
    """Put what a schedule has made of the input scales into B, once training is over.

    x = (f c) B A = c (f B) A: the model stays what it is, and its configuration is right again.
    """
    for layer in (each for each in model.modules() if isinstance(each, BasisLayer)):
        for name, scale in layer.basis_scale.items():
            if isinstance(scale, LedScale):
                layer.basis_B[name].mul_(scale.multiple)
                scale.multiple.fill_(1.0)
