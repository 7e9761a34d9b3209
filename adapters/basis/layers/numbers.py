"""The numbers of the adapters on a layer: factors, phi, input scale, and what is computed of W."""

import math
from abc import abstractmethod
from typing import TYPE_CHECKING, NamedTuple, Self, cast

import torch
from torch import Tensor, nn

from adapters.basis.fitting.members import Member
from adapters.basis.fitting.tensor_versions import Mark, mark
from adapters.basis.layers.term import Frozen
from adapters.forms import Form, Operands
from adapters.merging.layer import MergingLayer
from adapters.ops.merge import product
from basis_zoo import InputScale, Nonlinearity

if TYPE_CHECKING:
    from adapters.torch_types import ModulesOf


class Execution(NamedTuple):
    """How a layer applies an adapter."""

    form: Form
    """What the update is."""
    columns: bool = False
    """Whether blocks of columns have a phi each."""
    split: bool = False
    """Two products, with W and with the update, instead of one with W'."""
    stochastic: bool = False
    """While training, W' is rounded to bfloat16 up or down by chance."""
    merge_once: bool = False
    """W' (or the update) is kept until a number behind it changes."""
    float8: bool = False
    """The gradient of W' is computed in 8 bits, in linear layers that are large enough."""
    dropout: float = 0.0
    """Share of the update's inputs that is set to zero while training."""


class AdapterNumbers(MergingLayer):
    """What a layer tells of its adapters' numbers."""

    basis_A: nn.ParameterDict
    basis_B: nn.ParameterDict
    basis_phi: "ModulesOf[Nonlinearity]"
    basis_scale: "ModulesOf[InputScale]"
    basis_frozen: "ModulesOf[Frozen]"
    execution: dict[str, Execution]
    out_features: int
    in_features: int

    @abstractmethod
    def matrix(self, parameter: Tensor) -> Tensor:
        """The base parameter, or a tensor in its layout, as the matrix (rows, columns)."""

    def _add_factors(self, adapter: str, rank: int, b_std: float) -> None:
        if rank == 0:
            return
        a = torch.empty(rank, self.in_features, dtype=torch.float32)
        b = torch.zeros(self.out_features, rank, dtype=torch.float32)
        self.basis_A[adapter], self.basis_B[adapter] = nn.Parameter(a), nn.Parameter(b)
        nn.init.kaiming_uniform_(self.basis_A[adapter], a=math.sqrt(5))
        if b_std:
            nn.init.normal_(self.basis_B[adapter], std=b_std)

    def factors(self, adapter: str) -> tuple[Tensor, Tensor]:
        """B (out, k) and A (k, in) without input scale; empty where the form has none."""
        if adapter not in self.basis_B:
            some = self.basis_phi[adapter].amplitude
            return some.new_empty(self.out_features, 0), some.new_empty(0, self.in_features)
        return _wide(self.basis_B[adapter]), _wide(self.basis_A[adapter])

    def _freeze(self, adapter: str) -> None:
        """Let the form compute what it keeps of W; on the meta device that is put off."""
        form = self.execution[adapter].form
        if form.needs_weight and not form.elementwise:
            with torch.inference_mode(False), torch.no_grad():
                frozen = form.freeze(self.matrix(self._unmerged_weight()).detach())
            self.basis_frozen[adapter] = Frozen(frozen, self.mark_of_weight())

    def mark_of_weight(self) -> Mark:
        """Which numbers the base parameter has now."""
        parameter: Tensor = getattr(self.get_base_layer(), self.parameter_name)
        return mark(parameter)

    def has_factors(self, adapter: str) -> bool:
        """Whether the form of `adapter` has B and A."""
        return adapter in self.basis_B

    def owner(self, adapter: str) -> Self:
        """The layer that holds the numbers of `adapter`: this one, or the one it is tied to."""
        own = adapter in self.basis_phi or not self.tied_to
        return self if own else cast(Self, self.tied_to[0])

    def member(self, adapter: str) -> Member:
        """The factors, with the input scale on B, and the phi of `adapter`."""
        if self.owner(adapter) is not self:
            return self.owner(adapter).member(adapter)
        b, a = self.factors(adapter)
        if adapter in self.basis_scale:
            b = b * self.input_scale(adapter)
        return Member(b, a, self.basis_phi[adapter])

    def reach(self, adapter: str) -> Tensor | None:
        """The largest |x| that the form asks phi at; None for that of B A."""
        form = self.execution[adapter].form
        if form.elementwise:
            return None
        b, a = self.factors(adapter)
        bound = form.reach(Operands(b, a, None, self.basis_phi[adapter].phi.basis.interval))
        return None if bound is None else bound * self.input_scale(adapter)

    def input_scale(self, adapter: str) -> Tensor | float:
        """The factor on what phi sees."""
        return self.basis_scale[adapter]() if adapter in self.basis_scale else 1.0

    def operands(self, adapter: str) -> Operands:
        """What the form of `adapter` computes with; B without the input scale."""
        if self.owner(adapter) is not self:
            return self.owner(adapter).operands(adapter)
        form, weight = self.execution[adapter].form, None
        frozen: tuple[Tensor, ...] = ()
        if form.needs_weight:
            weight = self.matrix(self._unmerged_weight())
        if form.needs_weight and not form.elementwise:
            if adapter not in self.basis_frozen:
                self._freeze(adapter)
            frozen = self.basis_frozen[adapter].tensors
        b, a = self.factors(adapter)
        interval = self.basis_phi[adapter].phi.basis.interval
        return Operands(b, a, weight, interval, frozen)

    def points(self, adapter: str) -> Tensor:
        """The x that phi is asked at, with the input scale: flat, or (copies, n)."""
        of, run, owner = self.operands(adapter), self.execution[adapter], self.owner(adapter)
        phi, scale = owner.basis_phi[adapter], owner.input_scale(adapter)
        if run.form.elementwise and phi.copies > 1:
            x = of.b @ of.a
            return (x.T if run.columns else x).reshape(phi.copies, -1) * scale
        return run.form.points(of) * scale

    def numbers(self, adapter: str) -> list[Tensor]:
        """Every tensor that the proxy of `adapter` depends on."""
        factors = (f[adapter] for f in (self.basis_B, self.basis_A) if adapter in f)
        tensors = [*factors, *self.basis_phi[adapter].numbers]
        if adapter in self.basis_scale:
            scale = self.basis_scale[adapter]
            tensors += [*scale.parameters(), *scale.buffers()]
        return tensors

    @torch.no_grad()
    def observe(self, adapter: str) -> bool:
        """Tell the input scale how large B A is, if it measures that; returns whether it did."""
        scale = self.basis_scale[adapter] if adapter in self.basis_scale else None
        if not isinstance(scale, InputScale) or scale.rule not in ("rms", "range"):
            return False
        # its maximum is dear, as it needs all of B A: once it is known, it is not asked for again
        if scale.rule == "range" and scale.momentum is None and scale.is_measured():
            return False
        b, a = self.basis_B[adapter].float(), self.basis_A[adapter].float()
        if scale.rule == "rms":  # ||B A||^2 from two r x r products
            scale.observe(mean_square=((b.T @ b) * (a @ a.T)).sum() / (b.shape[0] * a.shape[1]))
        else:
            scale.observe(peak=product(b, a).abs().max())
        return True


def _wide(factor: Tensor) -> Tensor:
    """The factor in the precision that the update is computed in."""
    return factor if factor.dtype in (torch.float32, torch.float64) else factor.float()
