"""The contract of a form: what the update of a matrix is, of its factors, of phi and of W."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from adapters.forms.phi_function import PhiFunction
from basis_zoo.basis import Array, Basis
from basis_zoo.registry import ClassRegistry


class Operands(NamedTuple):
    """What a form computes with."""

    b: Tensor
    """B, (out, k) with k = `factor_rank(r)`."""
    a: Tensor
    """A, (k, in)."""
    weight: Tensor | None
    """W, (out, in), frozen; None where the form does not read it."""
    interval: tuple[float, float]
    """The interval that φ's functions cover."""
    frozen: tuple[Tensor, ...] = ()
    """What `freeze` made of W."""


@dataclass(frozen=True)
class Form(ABC):
    """A kind of update: W' = W + s · update(B, A, φ, W).

    An author writes `update`, and `oracle` from numpy; everything else has a default. Fields of the
    dataclass are the form's options. `python -m adapters check FILE` measures what is declared.
    """

    name: ClassVar[str] = ""
    """The registered name, set by `register_form`."""
    formula: ClassVar[str] = ""
    """The update, one line."""
    reference: ClassVar[str] = ""
    """Where the mathematics is from."""
    mergeable: ClassVar[bool] = True
    """Whether the update is a change of the weight."""
    elementwise: ClassVar[bool] = False
    """Whether the update is φ(B A), times W where `needs_weight`: it has the fused kernels, and may
    have a φ for each head, row or column."""
    needs_weight: ClassVar[bool] = False
    """Whether the update reads W, which must then be a plain floating-point weight."""
    applied: ClassVar[bool] = False
    """Whether layers call `apply`, since it costs less than forming the update."""

    def factor_rank(self, r: int) -> int:
        """The rank of B and A; 0 where the form has none."""
        return r

    def copies(self, r: int) -> int:
        """How many φ a module has."""
        return 1

    def largest_rank(self, r: int, shape: tuple[int, int]) -> int:
        """The largest rank that the update of a matrix of `shape` can have."""
        return min(shape)

    def reach(self, of: Operands) -> Tensor | None:
        """A bound of every |x| that φ is asked at, () or one for each copy, without input scale.

        None for the bound of the entries of B A.
        """
        return None

    def points(self, of: Operands) -> Tensor:
        """The x that φ is asked at, without input scale: flat, or (copies, n) of several φ.

        For the figures and measures of what φ does; where x is data, points of its range.
        """
        return (of.b @ of.a).flatten()

    def basis_of(self, basis: Basis) -> Basis:
        """The family that φ is made of, where `basis` is the one that was asked for."""
        return basis

    def freeze(self, weight: Tensor) -> tuple[Tensor, ...]:
        """What is computed once of W (out, in) and kept beside it; not saved."""
        return ()

    @abstractmethod
    def update(self, of: Operands, phi: PhiFunction) -> Tensor:
        """The update without s, (out, in) in float32 or better, differentiable.

        Raises:
            ValueError: The form is not mergeable.
        """

    def apply(self, x: Tensor, of: Operands, phi: PhiFunction, scale: float) -> Tensor:
        """What the update times `scale` adds to the output: x (*, in) -> (*, out)."""
        return F.linear(x, (self.update(of, phi) * scale).to(x.dtype))

    def oracle(self, b: Array, a: Array, weight: Array, phi: Any, **options: Any) -> Array:
        """`update` in float64 from numpy, written without this package's code.

        `phi` maps an array to one of its shape; of several copies, it is a list of such functions.
        `options` holds the `interval`, and of a form that is not mergeable the input `x`: there the
        result is that of `apply`.
        """
        raise NotImplementedError(f"form {self.name!r} has no oracle: write `oracle` with numpy")


@dataclass(frozen=True)
class FactoredForm(Form):
    """A form whose update is a product of few columns and rows; it is never formed in training."""

    applied: ClassVar[bool] = True

    @abstractmethod
    def factors(self, of: Operands, phi: PhiFunction) -> tuple[Tensor, Tensor]:
        """Left (out, k) and right (k, in), differentiable."""

    def update(self, of: Operands, phi: PhiFunction) -> Tensor:
        """Left times right."""
        left, right = self.factors(of, phi)
        with torch.autocast(left.device.type, enabled=False):
            return left @ right

    def apply(self, x: Tensor, of: Operands, phi: PhiFunction, scale: float) -> Tensor:
        """x right^T left^T, scaled where it is smallest."""
        left, right = self.factors(of, phi)
        return F.linear(F.linear(x, right.to(x.dtype)) * scale, left.to(x.dtype))


_FORMS: ClassRegistry[Form] = ClassRegistry("form", Form, shipped="adapters.forms.builtin")
register_form = _FORMS.register
"""Decorator that registers a form class under a name, as in `@register_form("mine")`."""
list_forms = _FORMS.names
"""Returns the names of all registered forms, sorted."""
get_form_class = _FORMS.get_class


def get_form(name: str, **options: Any) -> Form:
    """The form registered under `name`, made with `options`.

    Raises:
        ValueError: Unknown name or option, or a value the form refuses.
    """
    return _FORMS.get(name, **options)
