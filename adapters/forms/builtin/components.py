"""A phi for each component of rank one."""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from adapters.forms.form import Form, Operands, register_form
from adapters.forms.phi_function import PhiFunction
from basis_zoo.basis import Array
from basis_zoo.proxy.fit import SMALLEST_RADIUS


@register_form("components")
@dataclass(frozen=True)
class Components(Form):
    r"""$s \sum_k \phi_k(b_k a_k^\top)$: every component of rank one has a φ of its own.

    It costs r times an elementwise update.
    """

    formula: ClassVar[str] = "s Σₖ φₖ(bₖ aₖᵀ)"
    reference: ClassVar[str] = "this project"

    def copies(self, r: int) -> int:
        """One for each component."""
        return r

    def reach(self, of: Operands) -> Tensor | None:
        """The largest entry of each component."""
        largest = of.b.abs().amax(0) * of.a.abs().amax(1)
        return (largest * (1 + 1e-5)).clamp_min(SMALLEST_RADIUS)

    def points(self, of: Operands) -> Tensor:
        """The entries of each component."""
        return (of.b.T[:, :, None] * of.a[:, None]).flatten(1)

    def update(self, of: Operands, phi: PhiFunction) -> Tensor:
        """The components one after the other, so that one of them is in memory at a time."""
        phis = phi.singles() if len(of.a) > 1 else [phi]
        total = torch.zeros((), device=of.b.device)
        for k, own in enumerate(phis):
            total = total + own.of_product(of.b[:, k : k + 1], of.a[k : k + 1])
        return total

    def oracle(self, b: Array, a: Array, weight: Array, phi: Any, **options: Any) -> Array:
        """As `update`."""
        total: Array = sum(own(b[:, [k]] * a[[k]]) for k, own in enumerate(phi))
        return total
