"""Forms whose phi acts on every entry of B A: the fused kernels serve them."""

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from adapters.forms.form import Form, Operands, register_form
from adapters.forms.phi_function import PhiFunction
from basis_zoo.basis import Array, Basis, get_basis
from basis_zoo.sums import SumBasis


@register_form("elementwise")
@dataclass(frozen=True)
class Elementwise(Form):
    r"""$s\,\phi(BA)$: the adapter of the paper, of any rank up to that of W."""

    formula: ClassVar[str] = "s φ(B A)"
    reference: ClassVar[str] = "Garg et al., arXiv 2606.04325, eq. 4"
    elementwise: ClassVar[bool] = True

    def update(self, of: Operands, phi: PhiFunction) -> Tensor:
        """φ(B A)."""
        return phi.of_product(of.b, of.a)

    def oracle(self, b: Array, a: Array, weight: Array, phi: Any, **options: Any) -> Array:
        """As `update`."""
        values: Array = phi(b @ a)
        return values


@register_form("hadamard")
@dataclass(frozen=True)
class Hadamard(Elementwise):
    r"""$s\,W \odot \phi(BA)$: a relative change of every weight, as HiRA's with $\phi(x) = x$."""

    formula: ClassVar[str] = "s W ⊙ φ(B A)"
    reference: ClassVar[str] = "Huang et al., HiRA, ICLR 2025, for φ(x) = x"
    needs_weight: ClassVar[bool] = True

    def update(self, of: Operands, phi: PhiFunction) -> Tensor:
        """W ⊙ φ(B A)."""
        assert of.weight is not None, "it is declared"
        return of.weight * phi.of_product(of.b, of.a)

    def oracle(self, b: Array, a: Array, weight: Array, phi: Any, **options: Any) -> Array:
        """As `update`."""
        product: Array = weight * phi(b @ a)
        return product


@register_form("sum")
@dataclass(frozen=True)
class Sum(Elementwise):
    r"""$s \sum_j \phi_j(BA)$: one φ of several families, each with `num_basis` functions.

    The option `basis` names the first family, `families` the others, which have default options.
    """

    families: tuple[str, ...] | list[str] = ("fourier",)
    """The families beside `basis`."""

    formula: ClassVar[str] = "s (φ₁ + φ₂ + …)(B A)"
    reference: ClassVar[str] = "this project"

    def __post_init__(self) -> None:
        if isinstance(self.families, str) or not self.families:
            raise ValueError(
                f"`families` must be a list of one or more names, got {self.families!r}"
            )
        object.__setattr__(self, "families", tuple(self.families))

    def basis_of(self, basis: Basis) -> Basis:
        """The sum of `basis` and the others, of its size and on its interval."""
        options: dict[str, Any] = {"num_basis": basis.num_basis, "interval": basis.interval}
        return SumBasis.of(basis, *(get_basis(name, **options) for name in self.families))
