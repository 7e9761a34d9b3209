"""What the layers compute, as operators of torch.library: one node each in a compiled graph.

They are opaque on purpose. A compiler that looked inside would make W' of the backward pass in the
forward pass and keep it, as it does with all that depends on no gradient; and it would analyse
every launch of every layer's kernels, which takes it minutes. They know nothing of autograd: the
functions of `linear` and `weight` call them, and eager layers go without, since the dispatcher
costs time.
"""

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from adapters.ops import merge
from adapters.ops.dense_gradient import dense_gradient
from basis_zoo.proxy import ChebyshevProxy, ExactProxy, Proxy, TableProxy

_library = torch.library.Library("basis_zoo", "FRAGMENT")


def can_be_operator(proxy: Proxy) -> bool:
    """Whether `proxy` is made of tensors alone; phi itself is not."""
    return not isinstance(proxy, ExactProxy)


def warn_outside(trained: bool) -> None:
    """Say that a layer is computed outside the compiled graph, and why."""
    why = "its base weight is trained" if trained else "phi has no proxy within the tolerance"
    warnings.warn(
        f"a layer is computed outside the compiled graph, since {why}: each such layer breaks the "
        "graph, which costs about what not compiling it costs",
        stacklevel=2,
    )


def numbers(proxy: Proxy) -> tuple[Tensor, Tensor, Tensor, bool]:
    """A proxy as the operators take it: its three tensors, the coefficients first, and its kind."""
    coefficients, ends, terms = proxy.tensors
    return coefficients, ends, terms, isinstance(proxy, TableProxy)


def _proxy(
    coefficients: Tensor, ends: Tensor, terms: Tensor, table: bool
) -> ChebyshevProxy | TableProxy:
    return (TableProxy if table else ChebyshevProxy)(coefficients, ends, terms)


def _operator(shapes: Callable[..., Any]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register a function under its name; `shapes` is what it returns of fake tensors."""

    def register(function: Callable[..., Any]) -> Callable[..., Any]:
        name = function.__name__
        _library.define(name + torch.library.infer_schema(function, mutates_args=()))
        _library.impl(name, function, "CompositeExplicitAutograd")
        torch.library.register_fake(f"basis_zoo::{name}", shapes, lib=_library)
        operator: Callable[..., Any] = getattr(torch.ops.basis_zoo, name).default
        return operator

    return register


def make_weight(
    dtype: torch.dtype,
    weight: Tensor | None,
    b: Tensor,
    a: Tensor,
    proxy: Proxy,
    scale: float,
    seed: int | None = None,
    *,
    hadamard: bool = False,
) -> Tensor:
    """The W' that x of `dtype` is multiplied by; the arguments are those of `merged_linear`.

    W' is rounded to the dtype of W first, as a merge rounds it; without W, to `dtype` at once.
    """
    if weight is None:
        return merge.merged_weight(None, b, a, proxy, scale, dtype=dtype, seed=seed)
    merged = merge.merged_weight(weight, b, a, proxy, scale, hadamard=hadamard, seed=seed)
    return merged.to(dtype)


def gradients_of_factors(
    grad: Tensor, b: Tensor, a: Tensor, proxy: Proxy, scale: float, weight: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of B, A and the coefficients in their dtypes, from G, that of W'.

    `weight` is W of the Hadamard form.
    """
    db, da, dc = merge.merge_gradients(grad, b, a, proxy, scale, weight)
    return db.to(b.dtype), da.to(a.dtype), dc


def _shape_of_linear(x: Tensor, weight: Tensor | None, bias: Any, b: Tensor, *_: Any) -> Tensor:
    return x.new_empty(*x.shape[:-1], b.shape[0])


@_operator(_shape_of_linear)
def linear(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, b: Tensor, a: Tensor,
    coefficients: Tensor, ends: Tensor, terms: Tensor, table: bool, scale: float, seed: int | None,
    hadamard: bool,
) -> Tensor:  # fmt: skip
    """x (*, in) -> x W'^T + bias (*, out)."""
    proxy = _proxy(coefficients, ends, terms, table)
    merged = make_weight(x.dtype, weight, b, a, proxy, scale, seed, hadamard=hadamard)
    return F.linear(x, merged, bias).contiguous()


def _shapes_of_gradients(
    dy: Tensor, x: Tensor, weight: Any, b: Tensor, a: Tensor, coefficients: Tensor, *rest: Any
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    *_, of_x = rest
    return x.new_empty(x.shape if of_x else 0), *_alike(b, a, coefficients)


@_operator(_shapes_of_gradients)
def linear_backward(
    dy: Tensor, x: Tensor, weight: Tensor | None, b: Tensor, a: Tensor, coefficients: Tensor,
    ends: Tensor, terms: Tensor, table: bool, scale: float, seed: int | None, float8: bool,
    hadamard: bool, of_x: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """Gradients of x (empty where it needs none), B, A and the coefficients."""
    proxy = _proxy(coefficients, ends, terms, table)
    grad = dense_gradient(dy, x, float8=float8)
    times = weight if hadamard else None
    db, da, dc = (g.contiguous() for g in gradients_of_factors(grad, b, a, proxy, scale, times))
    del grad  # as large as W': never both at once
    if not of_x:
        return x.new_empty(0), db, da, dc
    dx = dy @ make_weight(dy.dtype, weight, b, a, proxy, scale, seed, hadamard=hadamard)
    return dx.contiguous(), db, da, dc


def _shape_of_weight(weight: Tensor | None, b: Tensor, a: Tensor, *_: Any) -> Tensor:
    dtype = torch.promote_types(b.dtype, torch.float32) if weight is None else weight.dtype
    return b.new_empty(b.shape[0], a.shape[1], dtype=dtype)


@_operator(_shape_of_weight)
def weight(
    weight: Tensor | None, b: Tensor, a: Tensor, coefficients: Tensor, ends: Tensor, terms: Tensor,
    table: bool, scale: float, seed: int | None, hadamard: bool,
) -> Tensor:  # fmt: skip
    """W' (out, in) in the dtype of W; the update in float32 or better without W."""
    proxy = _proxy(coefficients, ends, terms, table)
    merged = merge.merged_weight(weight, b, a, proxy, scale, hadamard=hadamard, seed=seed)
    return merged.contiguous()


def _shapes_of_weight(
    grad: Tensor, b: Tensor, a: Tensor, coefficients: Tensor, *_: Any
) -> tuple[Tensor, Tensor, Tensor]:
    return _alike(b, a, coefficients)


@_operator(_shapes_of_weight)
def weight_backward(
    grad: Tensor, b: Tensor, a: Tensor, coefficients: Tensor, ends: Tensor, terms: Tensor,
    table: bool, scale: float, weight: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Gradients of B, A and the coefficients from that of W'; `weight` only if Hadamard."""
    proxy = _proxy(coefficients, ends, terms, table)
    gradients = gradients_of_factors(grad.contiguous(), b, a, proxy, scale, weight)
    db, da, dc = (g.contiguous() for g in gradients)
    return db, da, dc


def _alike(b: Tensor, a: Tensor, coefficients: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    plain = torch.contiguous_format
    first, second, third = (torch.empty_like(t, memory_format=plain) for t in (b, a, coefficients))
    return first, second, third
