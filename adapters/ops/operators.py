"""The two kinds of layers as operators of torch.library: one node each in a compiled graph.

Opaque on purpose. A compiler that looked inside would keep W' for the backward pass, as it keeps
whatever both passes compute; and cuBLAS and the fused kernels leave it nothing to fuse.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from adapters.ops import merge
from basis_zoo.proxy import ChebyshevProxy, ExactProxy, Proxy, TableProxy

_PROXY = "Tensor coefficients, Tensor ends, Tensor terms, bool table"
_REST = f"Tensor b, Tensor a, {_PROXY}, float scale, SymInt? seed"


def can_be_operator(proxy: Proxy) -> bool:
    """Whether `proxy` is made of tensors alone; phi itself is not."""
    return not isinstance(proxy, ExactProxy)


def numbers(proxy: Proxy) -> tuple[Tensor, Tensor, Tensor, bool]:
    """A proxy as the operators take it: its three tensors, the coefficients first, and its kind."""
    coefficients, ends, terms = proxy.tensors
    return coefficients, ends, terms, isinstance(proxy, TableProxy)


def _proxy(
    coefficients: Tensor, ends: Tensor, terms: Tensor, table: bool
) -> ChebyshevProxy | TableProxy:
    return (TableProxy if table else ChebyshevProxy)(coefficients, ends, terms)


def make_weight(
    dtype: torch.dtype,
    weight: Tensor | None,
    b: Tensor,
    a: Tensor,
    proxy: Proxy,
    scale: float,
    seed: int | None = None,
) -> Tensor:
    """The W' that x of `dtype` is multiplied by; the arguments are those of `merged_linear`.

    W' is rounded to the dtype of W first, as a merge rounds it; without W, to `dtype` at once.
    """
    if weight is None:
        return merge.merged_weight(None, b, a, proxy, scale, dtype=dtype, seed=seed)
    return merge.merged_weight(weight, b, a, proxy, scale, seed=seed).to(dtype)


@torch.library.custom_op(
    "basis_zoo::linear",
    mutates_args=(),
    schema=f"(Tensor x, Tensor? weight, Tensor? bias, {_REST}) -> Tensor",
)
def linear(x, weight, bias, b, a, coefficients, ends, terms, table, scale, seed):  # type: ignore[no-untyped-def]
    """x (*, in) -> x W'^T + bias (*, out)."""
    proxy = _proxy(coefficients, ends, terms, table)
    y = F.linear(x, make_weight(x.dtype, weight, b, a, proxy, scale, seed), bias)
    return y.contiguous()


@linear.register_fake
def _(x, weight, bias, b, a, *_: Any) -> Tensor:  # type: ignore[no-untyped-def]
    return x.new_empty(*x.shape[:-1], b.shape[0])


@torch.library.custom_op(
    "basis_zoo::linear_backward",
    mutates_args=(),
    schema=f"(Tensor dy, Tensor x, Tensor? weight, {_REST}, bool of_x) "
    "-> (Tensor, Tensor, Tensor, Tensor)",
)
def linear_backward(dy, x, weight, b, a, coefficients, ends, terms, table, scale, seed, of_x):  # type: ignore[no-untyped-def]
    """Gradients of x (empty where it needs none), B, A and the coefficients."""
    proxy = _proxy(coefficients, ends, terms, table)
    grad = dy.flatten(0, -2).T @ x.flatten(0, -2)
    of_phi = _like(merge.merge_gradients(grad, b, a, proxy, scale), b, a, coefficients)
    del grad  # as large as W': never both at once
    if not of_x:
        return x.new_empty(0), *of_phi
    dx = dy @ make_weight(dy.dtype, weight, b, a, proxy, scale, seed)
    return dx.contiguous(), *of_phi


@linear_backward.register_fake
def _(dy, x, weight, b, a, coefficients, ends, terms, table, scale, seed, of_x):  # type: ignore[no-untyped-def]
    dx = x.new_empty(x.shape if of_x else 0, dtype=dy.dtype)
    return dx, *_empty_like(b, a, coefficients)


def _linear_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, weight, _, b, a, coefficients, ends, terms, ctx.table, ctx.scale, ctx.seed = inputs
    ctx.save_for_backward(x, weight, b, a, coefficients, ends, terms)


def _linear_backward(ctx: Any, dy: Tensor) -> tuple[Any, ...]:
    x, weight, b, a, coefficients, ends, terms = ctx.saved_tensors
    of_x = ctx.needs_input_grad[0]
    dx, db, da, dc = linear_backward(
        dy, x, weight, b, a, coefficients, ends, terms, ctx.table, ctx.scale, ctx.seed, of_x
    )
    return dx if of_x else None, None, None, db, da, dc, None, None, None, None, None


linear.register_autograd(_linear_backward, setup_context=_linear_context)


@torch.library.custom_op(
    "basis_zoo::weight",
    mutates_args=(),
    schema=f"(Tensor? weight, {_REST}) -> Tensor",
)
def weight(weight, b, a, coefficients, ends, terms, table, scale, seed):  # type: ignore[no-untyped-def]
    """W' (out, in) in the dtype of W; the update in float32 without W."""
    proxy = _proxy(coefficients, ends, terms, table)
    return merge.merged_weight(weight, b, a, proxy, scale, seed=seed).contiguous()


@weight.register_fake
def _(weight, b, a, *_: Any) -> Tensor:  # type: ignore[no-untyped-def]
    dtype = torch.promote_types(b.dtype, torch.float32) if weight is None else weight.dtype
    return b.new_empty(b.shape[0], a.shape[1], dtype=dtype)


@torch.library.custom_op(
    "basis_zoo::weight_backward",
    mutates_args=(),
    schema=f"(Tensor grad, Tensor b, Tensor a, {_PROXY}, float scale) -> (Tensor, Tensor, Tensor)",
)
def weight_backward(grad, b, a, coefficients, ends, terms, table, scale):  # type: ignore[no-untyped-def]
    """Gradients of B, A and the coefficients from that of W'."""
    proxy = _proxy(coefficients, ends, terms, table)
    found = merge.merge_gradients(grad.contiguous(), b, a, proxy, scale)
    return _like(found, b, a, coefficients)


@weight_backward.register_fake
def _(grad, b, a, coefficients, *_: Any) -> tuple[Tensor, ...]:  # type: ignore[no-untyped-def]
    return _empty_like(b, a, coefficients)


def _weight_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    _, b, a, coefficients, ends, terms, ctx.table, ctx.scale, _ = inputs
    ctx.save_for_backward(b, a, coefficients, ends, terms)


def _weight_backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    b, a, coefficients, ends, terms = ctx.saved_tensors
    db, da, dc = weight_backward(grad, b, a, coefficients, ends, terms, ctx.table, ctx.scale)
    return grad if ctx.needs_input_grad[0] else None, db, da, dc, None, None, None, None, None


weight.register_autograd(_weight_backward, setup_context=_weight_context)


def _like(found: tuple[Tensor, ...], *inputs: Tensor) -> tuple[Tensor, ...]:
    """Gradients in dtype and layout of what they are of: the compiler was told these."""
    return tuple(g.to(i.dtype).contiguous() for g, i in zip(found, inputs, strict=True))


def _empty_like(*inputs: Tensor) -> tuple[Tensor, ...]:
    return tuple(torch.empty_like(i, memory_format=torch.contiguous_format) for i in inputs)
