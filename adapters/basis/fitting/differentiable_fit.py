"""A fit through which many backward passes can reach phi's parameters.

The graph from phi's stacked numbers to the coefficients is kept and walked once for each backward
pass; to autograd it is a single function of the parameters, which saves nothing.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from adapters.basis.fitting.static_memory import moved


class Stacked(NamedTuple):
    """One number of several phis."""

    stack: Tensor
    """(phis, ...), a leaf of the fit's own graph where it is trained."""
    sources: tuple[Tensor, ...]
    """The parameters behind it: one for each phi, or one for all where they share it."""
    copies: tuple[int, ...] | None = None
    """How many rows of the stack belong to each source; None for one each."""

    def gradients(self, of_stack: Tensor) -> Sequence[Tensor]:
        """The gradient of each source, from that of the stack."""
        if len(self.sources) == 1:
            return [of_stack.sum(0) if self.sources[0].ndim < of_stack.ndim else of_stack]
        if self.copies is None:
            return of_stack.unbind()
        parts = zip(of_stack.split(self.copies), self.sources, strict=True)
        return [p.sum(0) if source.ndim < p.ndim else p for p, source in parts]


@torch.no_grad()
def stacked(parts: Sequence[Tensor], copies: Sequence[int]) -> Stacked:
    """The tensors `parts`, one of each phi, as one; phis that share a tensor share it here.

    Args:
        parts: (n,) each, or (copies, n) of a phi with copies that have numbers of their own.
        copies: How many phis each of them serves.
    """
    first = parts[0]
    if all(part is first for part in parts) and first.ndim == 1:
        sources: tuple[Tensor, ...] = (first,)
        stack = first.expand(sum(copies), *first.shape)
    elif max(copies) == 1:
        sources = tuple(parts)
        stack = torch.stack(sources)
    else:
        sources = tuple(parts)
        each = zip(sources, copies, strict=True)
        stack = torch.cat([part.expand(n, part.shape[-1]) for part, n in each])
    trained = any(part.requires_grad for part in sources)
    rows = None if max(copies) == 1 else tuple(copies)
    return Stacked(stack.requires_grad_(trained), sources, rows)


def unstacked(tensor: Tensor, copies: Sequence[int]) -> Sequence[Tensor]:
    """What `stacked` put together: of a phi with copies a stack, else its row."""
    if max(copies) == 1:
        return tensor.unbind()
    parts = tensor.split(tuple(copies))
    return [part if n > 1 else part[0] for part, n in zip(parts, copies, strict=True)]


class _Graph(NamedTuple):
    """The kept graph, hidden from autograd, which would otherwise walk into it and free it."""

    coefficients: Tensor
    leaves: list[Stacked]
    place: Tensor | None


class _Coefficients(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, graph: list[_Graph], *sources: Tensor) -> Tensor:
        """The coefficients as a function of `sources`."""
        (ctx.graph,) = graph
        return moved(ctx.graph.coefficients.detach(), ctx.graph.place)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """The gradient of every parameter; the kept graph can be walked again."""
        coefficients, leaves, _ = ctx.graph
        stacks = [leaf.stack for leaf in leaves]
        of_stacks = torch.autograd.grad(
            coefficients, stacks, grad, retain_graph=True, allow_unused=True
        )
        gradients: list[Tensor | None] = []
        for leaf, stack in zip(leaves, of_stacks, strict=True):
            if stack is None:
                gradients += [None] * len(leaf.sources)
            else:
                gradients += leaf.gradients(stack)
        return None, *gradients


_apply: Callable[..., Tensor] = _Coefficients.apply


def differentiable(
    coefficients: Tensor, numbers: list[Stacked], place: Tensor | None = None
) -> Tensor:
    """`coefficients` (phis, ...) with the parameters behind `numbers` as their only ancestors.

    `numbers` are what `stacked` returned; `place` is memory for the result.
    """
    if not (torch.is_grad_enabled() and coefficients.requires_grad):
        return moved(coefficients.detach(), place)
    leaves = [n for n in numbers if n.stack.requires_grad]
    sources = [source for leaf in leaves for source in leaf.sources]
    return _apply([_Graph(coefficients, leaves, place)], *sources)
