"""The merge and its gradients on this device against float64, before anything is timed."""

import itertools
from collections.abc import Iterator
from types import ModuleType
from typing import Any, Literal

import torch
from torch import Tensor

from adapters.ops import merge
from adapters.ops.dense_gradient import in_float8
from adapters.ops.linear import merged_linear
from adapters.ops.merge import reference
from adapters.ops.merge.tiles import Tile
from basis_zoo.proxy import proxy_size
from bench.adapter.cases import KINDS, RANK, Case, case, kind

What = Literal["merge", "gradient"]
LIMITS = {
    (torch.float32, "ieee"): (1e-5, 1e-5),
    (torch.float32, None): (1e-5, 1e-5),
    (torch.bfloat16, None): (4e-3, 1e-3),
}
"""Relative RMS error of W' and of the gradients, by dtype of W and precision of the products."""


def error(got: Tensor, want: Tensor) -> float:
    """Relative RMS error."""
    got, want = got.detach(), want.detach()
    return float((got.double() - want.double()).norm() / want.double().norm().clamp_min(1e-30))


def check(device: str, rows: list[dict[str, Any]], *, quick: bool = False) -> bool:
    """Every kind of proxy at odd and even shapes, and one whole layer; prints what is wrong.

    Args:
        device: `cuda` or `cpu`.
        rows: Gets a row for each comparison.
        quick: Fewer shapes.
    """
    others = (_layer(device), _gradient_in_8_bits(device), _repeats(device))
    for row in itertools.chain(_merges(device, quick), *others):
        rows.append(row)
        if not row["fine"]:
            numbers = {name: value for name, value in row.items() if name != "fine"}
            print(f"WRONG {numbers}", flush=True)
    return all(row["fine"] for row in rows)


def _merges(device: str, quick: bool) -> Iterator[dict[str, Any]]:
    shapes = [((257, 515), 3)] if quick else [((257, 515), 3), ((128, 1024), 16)]
    cases = list(itertools.product(KINDS, shapes))
    if not quick:
        cases += [("degree 8", ((300, 200), 200)), ("table, few", ((300, 200), 200))]
    for name, (shape, rank) in cases:
        subject = kind(name, shape, rank, device, seed=1)
        for (dtype, precision), limits in LIMITS.items():
            if precision and device == "cpu":
                continue
            w, g = (torch.randn(shape, device=device).to(dtype) for _ in range(2))
            errors = _errors("merge", subject, w, precision=precision)
            errors += _errors("gradient", subject, g, precision=precision)
            # one by one, since max passes over a NaN
            fine = errors[0] < limits[0] and all(each < limits[1] for each in errors[1:])
            yield {
                "kind": name, "size": proxy_size(subject.proxy), "shape": shape, "rank": rank,
                "dtype": str(dtype), "precision": precision, "errors": errors, "fine": fine,
            }  # fmt: skip


def tile_errors(
    tile: Tile,
    shape: tuple[int, int],
    name: str,
    what: What,
    dtype: torch.dtype = torch.bfloat16,
    precision: str | None = None,
) -> list[float]:
    """The errors of a kernel cut by `tile` where one is too large, else an empty list."""
    subject = kind(name, shape, RANK, "cuda", seed=1)
    w = (0.02 * torch.randn(shape, device="cuda")).to(dtype)
    errors = _errors(what, subject, w, precision=precision, tile=tile)
    limit = LIMITS[dtype, precision][what == "gradient"]
    return [] if all(each < limit for each in errors) else errors


def _errors(what: What, subject: Case, w: Tensor, **options: Any) -> list[float]:
    """Errors of W', or of dB, dA and the moments of phi, with `w` for W or its gradient."""
    b, a, proxy, _ = subject
    name = "merged_weight" if what == "merge" else "merge_gradients"
    options = {key: value for key, value in options.items() if value is not None}
    module: ModuleType = merge
    if options:
        from adapters.ops.merge import fused

        module = fused
    got = getattr(module, name)(w, b, a, proxy, 1.7, **options)
    want = getattr(reference, name)(w.double(), b.double(), a.double(), proxy, 1.7)
    if what == "merge":
        got, want = [got], [want]
    return [error(one, other) for one, other in zip(got, want, strict=True)]


def _layer(device: str) -> Iterator[dict[str, Any]]:
    """y and every gradient of one layer against autograd through the definition in float64."""
    b, a, _, phi = subject = case("sinc", 0.05, (96, 160), 8, device)
    x = torch.randn(40, 160, device=device)
    w, dy = torch.randn(96, 160, device=device), torch.randn(40, 96, device=device)
    points = [t.clone().requires_grad_() for t in (x, b, a)]
    y = merged_linear(points[0], w, None, points[1], points[2], subject.proxy, 1.7)
    got = [y, *torch.autograd.grad(y, points, dy)]
    points = [t.double().requires_grad_() for t in (x, b, a)]
    update = phi.double()(points[1] @ points[2])
    y = points[0] @ (w.double() + 1.7 * update).T
    want = [y, *torch.autograd.grad(y, points, dy.double())]
    errors = [error(one, other) for one, other in zip(got, want, strict=True)]
    # tf32 is allowed to the dense products of y, x and G, as everywhere in torch
    yield {"kind": "layer", "errors": errors, "fine": max(errors) < 2e-3}


def _gradient_in_8_bits(device: str) -> Iterator[dict[str, Any]]:
    """G is off by what the rounding of both factors makes, no less and no more."""
    dy, x = (torch.randn(500, k, device=device).bfloat16() for k in (96, 160))
    off = error(in_float8(1e-4 * dy, x), (1e-4 * dy).double().T @ x.double())
    yield {"kind": "G in 8 bits", "errors": [off], "fine": 0.034 < off < 0.042}


def _repeats(device: str) -> Iterator[dict[str, Any]]:
    """Gradients twice, bit for bit."""
    b, a, proxy, _ = kind("degree 8", (1000, 900), 8, device)
    g = torch.randn(1000, 900, device=device)
    first, again = (merge.merge_gradients(g, b, a, proxy, 1.0) for _ in range(2))
    same = all(torch.equal(one, other) for one, other in zip(first, again, strict=True))
    yield {"kind": "repeated", "fine": same}
