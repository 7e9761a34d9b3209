"""phi between the factors: an activation, not a change of the weight."""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from adapters.forms.form import Form, Operands, register_form
from adapters.forms.phi_function import PhiFunction
from basis_zoo.basis import Array


@register_form("activation")
@dataclass(frozen=True)
class Activation(Form):
    r"""$s\,B\,\phi(Ax)$: a bottleneck with a learned activation, beside the frozen layer.

    x is data, so Ax has no bound: it is cut at the ends of the interval, before any input scale,
    so that φ keeps its value beyond. The update depends on x and cannot be merged.
    """

    formula: ClassVar[str] = "s B φ(A x)"
    reference: ClassVar[str] = "Houlsby et al., ICML 2019, with a fixed activation"
    mergeable: ClassVar[bool] = False
    applied: ClassVar[bool] = True

    def largest_rank(self, r: int, shape: tuple[int, int]) -> int:
        """That of the output's change over any inputs."""
        return min(r, shape[0])

    def reach(self, of: Operands) -> Tensor | None:
        """The farther end of the interval."""
        return of.b.new_full((), max(map(abs, of.interval)))

    def points(self, of: Operands) -> Tensor:
        """The range of A x."""
        return torch.linspace(*of.interval, 257, dtype=of.b.dtype, device=of.b.device)

    def update(self, of: Operands, phi: PhiFunction) -> Tensor:
        """There is none."""
        raise ValueError(
            "form 'activation' changes no weight, since s B φ(A x) depends on x: it cannot be "
            "merged, exported to LoRA or decomposed; evaluate and serve it unmerged, or take form "
            "'factors', which has a weight of the same rank"
        )

    def apply(self, x: Tensor, of: Operands, phi: PhiFunction, scale: float) -> Tensor:
        """B φ(A x), times `scale`."""
        hidden = phi(F.linear(x, of.a.to(x.dtype)).clamp(*of.interval))
        return F.linear((hidden * scale).to(x.dtype), of.b.to(x.dtype))

    def oracle(self, b: Array, a: Array, weight: Array, phi: Any, **options: Any) -> Array:
        """As `apply`."""
        changed: Array = phi((options["x"] @ a.T).clip(*options["interval"])) @ b.T
        return changed
