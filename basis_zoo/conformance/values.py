"""Checks of the values of phi: oracle, linearity, finite everywhere, metadata."""

import math

import torch

from basis_zoo.basis import Basis, Claim, LinearBasis
from basis_zoo.conformance.check import ConformanceError, at_most, check, require
from basis_zoo.conformance.subject import Subject
from basis_zoo.phi import EXTRAPOLATIONS, PhiParameters


@check()
def check_metadata(s: Subject) -> str:
    """The family has a name and a docstring, and its fields make sense."""
    b = s.basis
    require(bool(b.name), "the family has no name: decorate it with register_basis")
    own = type(b).__doc__ or ""
    described = len(own) > 20 and not own.startswith(f"{type(b).__name__}(")  # a dataclass's own
    require(described, f"the docstring must say what the family is in over 20 letters, got {own!r}")
    require(b.parity in (None, "even", "odd"), f"`parity` is {b.parity!r}")
    require(b.support > 0, f"`support` is {b.support}")
    require(b.smoothness >= -1, f"`smoothness` is {b.smoothness}")
    require(b.extrapolation in EXTRAPOLATIONS, f"`extrapolation` is {b.extrapolation!r}")
    require(all(isinstance(c, Claim) for c in b.claims), f"`claims` is {b.claims}")
    p = s.numbers
    counts = (len(p.amplitude), len(p.grid), len(p.bandwidth))
    require(min(counts[0], 1) == 1, "the family has no amplitude")
    require(hash(b) == hash(type(b)(**vars(b))), "equal families have different hashes")
    return f"{counts[0]} amplitudes, {counts[1]} points, {counts[2]} bandwidths"


@check(lambda basis: basis.has_oracle, per_grid=True)
def check_oracle(s: Subject) -> str:
    """phi agrees with the family's oracle from numpy or scipy."""
    try:
        import numpy as np
    except ModuleNotFoundError as error:
        raise ConformanceError("oracles need numpy and scipy: install them") from error
    p = s.numbers
    worst = 0.0
    ends = torch.tensor(s.basis.interval, dtype=torch.float64)
    for x in (s.inside(201), ends, (p.grid if s.basis.smoothness >= 0 else ends)):
        x = x[(x >= ends[0]) & (x <= ends[1])]
        if not len(x):
            continue
        numbers = (q.numpy() for q in (x, p.amplitude, p.grid, p.bandwidth))
        want = torch.from_numpy(np.asarray(s.basis.phi_oracle(*numbers)))
        require(want.shape == x.shape, f"the oracle gives shape {tuple(want.shape)} at {x.shape}")
        worst = max(worst, ((s.phi(x) - want).abs().max() / s.scale(x)).item())
    return at_most(worst, 1e-10, "relative distance to the oracle")


@check(lambda basis: isinstance(basis, LinearBasis))
def check_linear(s: Subject) -> str:
    """phi is linear in its amplitudes and is the design matrix times them."""
    x, p = s.inside(64, margin=0.2), s.numbers
    other = p.amplitude.flip(0).square() - 1
    of_sum = s.phi(x, p._replace(amplitude=2.5 * p.amplitude - other))
    sum_of = 2.5 * s.phi(x) - s.phi(x, p._replace(amplitude=other))
    scale = s.scale(x) + s.scale(x, p._replace(amplitude=other))
    error = (of_sum - sum_of).abs().max().item() / scale
    design = s.design(x) @ p.amplitude
    error = max(error, (s.phi(x) - design).abs().max().item() / scale)
    return at_most(error, 1e-12, "relative departure from linearity")


@check(per_grid=True)
def check_finite(s: Subject) -> str:
    """Values and gradients are finite at kinks, centers, ends, tiny x and far outside."""
    low, high = s.basis.interval
    special = [0.0, 1e-30, -1e-30, 1e-8, low, high, math.nextafter(high, math.inf)]
    special += [sign * far * s.half for sign in (-1, 1) for far in (1.5, 1e2, 1e4)]
    for dtype in (torch.float64, torch.float32):
        p = PhiParameters(*(q.to(dtype, copy=True).requires_grad_() for q in s.numbers))
        x = torch.tensor(special, dtype=torch.float64)
        x = torch.cat([x, s.kinks, s.numbers.grid]).to(dtype).requires_grad_()
        y = s.rule(x, p)
        _finite(y, x, f"phi in {dtype}")
        names = ("x", *p._fields)
        grads = torch.autograd.grad(y.sum(), [x, *p], allow_unused=True)
        for name, grad in zip(names, grads, strict=True):
            if grad is not None:
                _finite(grad, x, f"gradient to {name} in {dtype}")
        if _is_location_scale(s.basis):
            far = torch.tensor([-1e4, 1e4], dtype=dtype)
            z = torch.cat([torch.linspace(-5, 5, 4001, dtype=dtype), far]).requires_grad_()
            psi = s.psi(z)
            _finite(psi, z, f"psi of z in {dtype}")
            _finite(torch.autograd.grad(psi.sum(), z)[0], z, f"gradient of psi to z in {dtype}")
    return f"{len(x)} points, to {1e4 * s.half:.0e}"


def _finite(value: torch.Tensor, x: torch.Tensor, what: str) -> None:
    bad = ~value.isfinite()
    if bad.any():
        where = f" at {x[bad][0].item():.6g}" if value.shape == x.shape else ""
        require(False, f"{what} is {value[bad][0].item()}{where}")


def _is_location_scale(basis: Basis) -> bool:
    return hasattr(basis, "psi")


@check(lambda basis: basis.parity is not None and _is_location_scale(basis))
def check_parity(s: Subject) -> str:
    """psi(-z) is psi(z) or -psi(z), as declared."""
    z = torch.linspace(0.013, 9, 500, dtype=torch.float64)
    sign = 1 if s.basis.parity == "even" else -1
    error = (s.psi(-z) - sign * s.psi(z)).abs().max().item()
    return at_most(error, 1e-14, f"departure from {s.basis.parity}")


@check(lambda basis: basis.support < math.inf and _is_location_scale(basis))
def check_support(s: Subject) -> str:
    """psi is zero outside the declared support and not before its end."""
    edge = s.basis.support
    outside = torch.linspace(1 + 1e-9, 50, 500, dtype=torch.float64) * edge
    worst = torch.cat([s.psi(outside), s.psi(-outside)]).abs().max()
    just_inside = torch.tensor([-0.97, 0.97], dtype=torch.float64) * edge
    largest = s.psi(just_inside).abs().max().item()
    require(largest > 0, f"psi is zero at 0.97 of the declared support {edge}: declare less")
    return at_most(worst.item(), 0.0, "psi outside its support")
