"""What the layers compute, as operators of torch.library: one node each in a compiled graph.

Opaque on purpose. A compiler that looked inside would make W' of the backward pass in the forward
pass and keep it, as it does with all that depends on no gradient; and it would analyse every launch
of every layer's kernels, which takes it minutes. They know nothing of autograd: the functions of
`linear` and `weight` call them, and eager layers go without, since the dispatcher costs time.
"""

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from adapters.ops import merge
from basis_zoo.proxy import ChebyshevProxy, ExactProxy, Proxy, TableProxy

_PROXY = "Tensor coefficients, Tensor ends, Tensor terms, bool table"
_REST = f"Tensor b, Tensor a, {_PROXY}, float scale"
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


def _operator(schema: str, shapes: Callable[..., Any]) -> Callable[..., Any]:
    """Register a function under its name; `shapes` is what it returns of fake tensors."""

    def register(function: Callable[..., Any]) -> Any:
        name = f"basis_zoo::{function.__name__}"
        _library.define(f"{function.__name__}{schema}")
        _library.impl(function.__name__, function, "CompositeExplicitAutograd")
        torch.library.register_fake(name, shapes, lib=_library)
        return getattr(torch.ops.basis_zoo, function.__name__).default

    return register


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


def gradients_of_factors(
    dy: Tensor, x: Tensor, b: Tensor, a: Tensor, proxy: Proxy, scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of B, A and the coefficients in their dtypes; G is as large as W', and gone."""
    grad = dy.flatten(0, -2).T @ x.flatten(0, -2)
    db, da, dc = merge.merge_gradients(grad, b, a, proxy, scale)
    return db.to(b.dtype), da.to(a.dtype), dc


def _shape_of_linear(x, weight, bias, b, *_: Any) -> Tensor:  # type: ignore[no-untyped-def]
    return x.new_empty(*x.shape[:-1], b.shape[0])


@_operator(
    f"(Tensor x, Tensor? weight, Tensor? bias, {_REST}, SymInt? seed) -> Tensor", _shape_of_linear
)
def linear(x, weight, bias, b, a, coefficients, ends, terms, table, scale, seed):  # type: ignore[no-untyped-def]
    """x (*, in) -> x W'^T + bias (*, out)."""
    proxy = _proxy(coefficients, ends, terms, table)
    y = F.linear(x, make_weight(x.dtype, weight, b, a, proxy, scale, seed), bias)
    return y.contiguous()


def _shapes_of_linear(dy, x, weight, b, a, coefficients, ends, terms, table, scale, seed, of_x):  # type: ignore[no-untyped-def]
    return x.new_empty(x.shape if of_x else 0), *_alike(b, a, coefficients)


@_operator(
    f"(Tensor dy, Tensor x, Tensor? weight, {_REST}, SymInt? seed, bool of_x)"
    " -> (Tensor, Tensor, Tensor, Tensor)",
    _shapes_of_linear,
)
def linear_backward(dy, x, weight, b, a, coefficients, ends, terms, table, scale, seed, of_x):  # type: ignore[no-untyped-def]
    """Gradients of x (empty where it needs none), B, A and the coefficients."""
    proxy = _proxy(coefficients, ends, terms, table)
    of_phi = [g.contiguous() for g in gradients_of_factors(dy, x, b, a, proxy, scale)]
    if not of_x:
        return x.new_empty(0), *of_phi
    dx = dy @ make_weight(dy.dtype, weight, b, a, proxy, scale, seed)
    return dx.contiguous(), *of_phi


def _shape_of_weight(weight, b, a, *_: Any) -> Tensor:  # type: ignore[no-untyped-def]
    dtype = torch.promote_types(b.dtype, torch.float32) if weight is None else weight.dtype
    return b.new_empty(b.shape[0], a.shape[1], dtype=dtype)


@_operator(f"(Tensor? weight, {_REST}, SymInt? seed) -> Tensor", _shape_of_weight)
def weight(weight, b, a, coefficients, ends, terms, table, scale, seed):  # type: ignore[no-untyped-def]
    """W' (out, in) in the dtype of W; the update in float32 or better without W."""
    proxy = _proxy(coefficients, ends, terms, table)
    return merge.merged_weight(weight, b, a, proxy, scale, seed=seed).contiguous()


def _shapes_of_weight(grad, b, a, coefficients, *_: Any) -> tuple[Tensor, ...]:  # type: ignore[no-untyped-def]
    return _alike(b, a, coefficients)


@_operator(f"(Tensor grad, {_REST}) -> (Tensor, Tensor, Tensor)", _shapes_of_weight)
def weight_backward(grad, b, a, coefficients, ends, terms, table, scale):  # type: ignore[no-untyped-def]
    """Gradients of B, A and the coefficients from that of W'."""
    proxy = _proxy(coefficients, ends, terms, table)
    db, da, dc = merge.merge_gradients(grad.contiguous(), b, a, proxy, scale)
    return db.to(b.dtype).contiguous(), da.to(a.dtype).contiguous(), dc.contiguous()


def _alike(*inputs: Tensor) -> tuple[Tensor, ...]:
    return tuple(torch.empty_like(i, memory_format=torch.contiguous_format) for i in inputs)
