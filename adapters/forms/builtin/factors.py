"""phi on the factors: an update of rank r."""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from adapters.forms.form import FactoredForm, Operands, register_form
from adapters.forms.phi_function import PhiFunction
from basis_zoo.basis import Array
from basis_zoo.proxy.fit import SMALLEST_RADIUS


@register_form("factors")
@dataclass(frozen=True)
class Factors(FactoredForm):
    r"""$s\,\phi(B)\,\phi(A)$: one φ on the entries of both factors; LoRA where φ is the identity.

    Where φ is zero everywhere both products vanish and nothing is trained: take a start that
    begins as the identity.
    """

    formula: ClassVar[str] = "s φ(B) φ(A)"
    reference: ClassVar[str] = "this project; PEANuT and LoRAN bend the factors likewise"

    def largest_rank(self, r: int, shape: tuple[int, int]) -> int:
        """That of the factors."""
        return min(r, *shape)

    def reach(self, of: Operands) -> Tensor | None:
        """The largest entry of a factor."""
        return torch.maximum(of.b.abs().max(), of.a.abs().max()).clamp_min(SMALLEST_RADIUS)

    def points(self, of: Operands) -> Tensor:
        """The entries of both factors."""
        return torch.cat([of.b.flatten(), of.a.flatten()])

    def factors(self, of: Operands, phi: PhiFunction) -> tuple[Tensor, Tensor]:
        """φ(B) and φ(A), in one evaluation."""
        both = phi(torch.cat([of.b.flatten(), of.a.flatten()]))
        left, right = both.split([of.b.numel(), of.a.numel()])
        return left.view(of.b.shape), right.view(of.a.shape)

    def oracle(self, b: Array, a: Array, weight: Array, phi: Any, **options: Any) -> Array:
        """As `update`."""
        product: Array = phi(b) @ phi(a)
        return product
