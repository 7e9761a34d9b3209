"""Checks of what a family claims, one for each claim; all by measurement."""

import itertools
import math
from collections.abc import Callable

import torch
from torch import Tensor

from basis_zoo.basis import Basis, Claim
from basis_zoo.conformance.check import at_most, check, require
from basis_zoo.conformance.subject import Subject, resized


def _claims(claim: Claim) -> Callable[[Basis], bool]:
    return lambda basis: claim in basis.claims


def _design(s: Subject, x: Tensor) -> Tensor:
    return s.design(x, s.natural)


def _interval(s: Subject, count: int = 997) -> Tensor:
    return torch.linspace(*s.basis.interval, count, dtype=torch.float64)


@check(_claims(Claim.PARTITION_OF_UNITY))
def check_partition_of_unity(s: Subject) -> str:
    """The functions sum to one on the closed interval."""
    error = (_design(s, _interval(s)).sum(dim=-1) - 1).abs().max().item()
    return at_most(error, 1e-12, "distance of the sum to one")


@check(_claims(Claim.NON_NEGATIVE))
def check_non_negative(s: Subject) -> str:
    """No function is negative on the interval."""
    return at_most(max(0.0, -_design(s, _interval(s)).min().item()), 1e-14, "magnitude below zero")


@check(_claims(Claim.BOUNDED))
def check_bounded(s: Subject) -> str:
    """No function exceeds one in magnitude on the interval."""
    return at_most(_design(s, _interval(s)).abs().max().item(), 1 + 1e-12, "largest magnitude")


@check(_claims(Claim.INTERPOLATING))
def check_interpolating(s: Subject) -> str:
    """Each function is one at its own grid point and zero at all others."""
    points = s.natural.grid
    require(len(points) == s.basis.num_basis, "interpolation needs one grid point a function")
    design = _design(s, points)
    error = (design - torch.eye(len(points), dtype=design.dtype)).abs().max().item()
    return at_most(error, 1e-12, "distance to the unit matrix")


@check(_claims(Claim.ZERO_MEAN))
def check_zero_mean(s: Subject) -> str:
    """psi integrates to zero over the real line."""
    z = torch.linspace(-60, 60, 12001, dtype=torch.float64)
    psi = s.psi(z)
    mean = (psi.sum() / psi.abs().sum()).abs().item()
    return at_most(mean, 1e-10, "mean over mean magnitude")


@check(_claims(Claim.REPRODUCES_LINES))
def check_reproduces_lines(s: Subject) -> str:
    """Every straight line on the interval is a sum of the functions."""
    x = _interval(s)
    errors = [_best_error(s.medium, line) for line in (torch.ones_like, lambda x: x)]
    return at_most(max(errors) / (1 + x.abs().max().item()), 1e-9, "distance to lines")


@check(_claims(Claim.ORTHOGONAL))
def check_orthogonal(s: Subject) -> str:
    """The weighted integrals of products of two different functions are zero."""
    s = s.medium
    x, weights = _quadrature(s)
    design = _design(s, x)
    gram = design.T @ (design * weights[:, None])
    size = gram.diagonal().sqrt()
    require(bool((size > 0).all()), "a function is zero everywhere")
    cosines = gram / size / size[:, None]
    error = (cosines - torch.eye(len(gram), dtype=gram.dtype)).abs().max().item()
    return at_most(error, 1e-9, "largest cosine between two functions")


def _quadrature(s: Subject, nodes: int = 40) -> tuple[Tensor, Tensor]:
    """Points and weights of Gauss-Legendre in the angle, piece by piece.

    With $x = m - l \\cos\\theta$ a weight may be infinite at both ends, as Chebyshev's is.
    """
    low, high = s.basis.orthogonality_interval
    middle, length = (low + high) / 2, (high - low) / 2
    kinks = s.basis.breakpoints(s.natural.grid, s.natural.bandwidth)
    kinks = kinks[(kinks > low) & (kinks < high)]
    even = torch.linspace(0, math.pi, 33, dtype=torch.float64)
    edges = torch.cat([even, torch.arccos((middle - kinks) / length)]).sort().values
    u, w = _gauss_legendre(nodes)
    wide = edges.diff()[:, None] / 2
    theta = ((edges[:-1, None] + wide) + wide * u).flatten()
    x = middle - length * torch.cos(theta)
    return x, (wide * w).flatten() * length * torch.sin(theta) * s.basis.weight(x)


def _gauss_legendre(count: int) -> tuple[Tensor, Tensor]:
    """Golub & Welsch (1969): nodes and weights from the Jacobi matrix."""
    k = torch.arange(1, count, dtype=torch.float64)
    off = k / (4 * k * k - 1).sqrt()
    nodes, vectors = torch.linalg.eigh(torch.diag(off, 1) + torch.diag(off, -1))
    return nodes, 2 * vectors[0].square()


@check(lambda basis: basis.order is not None)
def check_order(s: Subject) -> str:
    """The error for a smooth target falls with the grid spacing at the order claimed."""
    claimed = s.basis.order or 0.0
    return _faster_than_any(s.basis) if claimed == math.inf else _fitted_order(s.basis, claimed)


def _faster_than_any(basis: Basis) -> str:
    sizes = (12, 24, 48)
    errors = [_best_error(Subject(resized(basis, n)), _wave(basis)) for n in sizes]
    first, last = (math.log2(a / b) for a, b in itertools.pairwise(errors))
    listing = ", ".join(f"{e:.1e}" for e in errors) + " at 12, 24, 48"
    require(
        errors[-1] < 1e-9 or last > max(first, 4), f"not faster than any order: errors {listing}"
    )
    return f"errors {listing}"


def _fitted_order(basis: Basis, claimed: float) -> str:
    measured = []
    for n in (8, 16, 32, 64, 128):
        sized = resized(basis, n + basis.min_basis if basis.num_points else n)
        error = _best_error(Subject(sized), _wave(basis))
        if error > 1e-11:  # below, rounding hides the order
            measured.append((sized.num_points - 1 if sized.num_points else n, error))
    require(len(measured) >= 2, "errors are below rounding from the start: claim inf")
    (pieces, error), (more, less) = measured[-2:]
    order = math.log(error / less) / math.log(more / pieces)
    what = f"fitted order {order:.2f}, claimed {claimed}, distance"
    # above order 6, errors reach rounding while they still fall faster than they will in the end
    distance = abs(order - claimed) if claimed <= 6 else max(claimed - order, 0.0)
    at_most(distance, 0.25 + 0.03 * claimed, what)
    return f"order {order:.2f} measured, {claimed} claimed"


def _wave(basis: Basis) -> Callable[[Tensor], Tensor]:
    return lambda x: torch.exp(torch.sin(3 * basis.unit(x) + 0.5))


def _best_error(s: Subject, target: Callable[[Tensor], Tensor]) -> float:
    """Largest error of the least squares fit on the interval, unrounded."""
    x = _interval(s, 1501)
    y = target(x)
    design = _design(s, x)
    size = design.square().sum(dim=0).sqrt().clamp_min(1e-300)
    solution = torch.linalg.lstsq(design / size, y[:, None], rcond=1e-14, driver="gelsd").solution
    error: float = (design @ (solution / size[:, None]) - y[:, None]).abs().max().item()
    return error
