"""How far each family is from its oracle, its conditioning, and what its proxies cost in error."""

from typing import Any

import torch

from basis_zoo.basis import Basis, LinearBasis, get_basis_class, list_bases
from basis_zoo.conformance import Subject
from basis_zoo.listing import first_line
from basis_zoo.phi import PhiParameters
from basis_zoo.proxy import fit_proxy

_POINTS = 2001

_PAGE = """# Accuracy

Written by `python -m basis_zoo accuracy --out docs/accuracy.md`; errors differ a little between
processors. Each family has its own number of functions by default (50 for most), on a uniform grid
of [-3, 3] with bandwidths near one over the spacing.

- **float64**, **float32**: largest distance of φ with random amplitudes from the oracle at {points}
  points, as a share of the largest Σ |a_i ψ_i|.
- **condition**: of the design matrix, columns as they are; large means that amplitudes of a fit
  cancel each other, and that float32 fits lose as many digits. Families that are not linear in
  their amplitudes have none.
- **proxy**: which proxy `fit_proxy` takes at tolerance 1e-6 and its largest error, as a share of
  max |φ|, for |x| up to 0.06 (where LoRA's products lie) and up to 2.7.

| family | options | float64 | float32 | condition | proxy, 0.06 | proxy, 2.7 | oracle |
|---|---|---|---|---|---|---|---|
{rows}
"""


def accuracy_page() -> str:
    """The page of measured errors, in Markdown."""
    rows = [
        _row(get_basis_class(name)(**options), options)
        for name in list_bases()
        for options in get_basis_class(name).variants
    ]
    return _PAGE.format(points=_POINTS, rows="\n".join(rows))


def _row(basis: Basis, options: dict[str, Any]) -> str:
    s = Subject(basis)
    words = ", ".join(f"{k} {v}" for k, v in options.items()) or "-"
    cells = [
        basis.name,
        words,
        *(f"{e:.0e}" for e in oracle_errors(s)),
        f"{condition(s):.0e}" if isinstance(basis, LinearBasis) else "-",
        *(_proxy(s, share) for share in (0.02, 0.9)),
        _oracle(basis),
    ]
    return f"| {' | '.join(cells)} |"


def oracle_errors(s: Subject) -> tuple[float, float]:
    """Relative distance to the oracle in float64 and in float32, at points float32 holds."""
    x = s.inside(_POINTS).float().double()
    low, high = s.basis.interval
    x = x[(x >= low) & (x <= high)]
    p = s.numbers
    numbers = (q.numpy() for q in (x, p.amplitude, p.grid, p.bandwidth))
    want = torch.from_numpy(s.basis.phi_oracle(*numbers))
    single = s.phi(x.float(), PhiParameters(*(q.float() for q in p)))
    scale = s.scale(x, p)
    in_double, in_single = (
        (value.double() - want).abs().max().item() / scale for value in (s.phi(x, p), single)
    )
    return in_double, in_single


def condition(s: Subject) -> float:
    """The condition number of the design matrix at many points of the interval."""
    x = torch.linspace(*s.basis.interval, _POINTS, dtype=torch.float64)
    number: float = torch.linalg.cond(s.design(x, s.natural)).item()
    return number


def _proxy(s: Subject, share: float) -> str:
    radius = torch.tensor(share * s.half, dtype=torch.float32)
    fit = fit_proxy(s.rule, s.numbers, radius, tolerance=1e-6)
    x = torch.linspace(-1, 1, _POINTS, dtype=torch.float64) * radius.double() * 0.9999
    x = x.float().double()  # the rounding of x is not the proxy's
    kinks = s.rule.breakpoints(s.numbers)
    if len(kinks) and s.basis.smoothness < 0:  # a jump is where float32 puts it
        x = x[(x[:, None] - kinks).abs().amin(dim=1) > 1e-6 * s.half]
    want = s.rule(x, s.numbers)
    error = (fit.proxy.value(x.float()).double() - want).abs().max() / want.abs().max()
    kind = type(fit.proxy).__name__.removesuffix("Proxy").lower()
    return f"{kind} {error.item():.0e}"


def _oracle(basis: Basis) -> str:
    for name in ("psi_oracle", "oracle", "phi_oracle"):
        own = vars(type(basis)).get(name)
        if own is not None:
            return first_line(own).rstrip(".")
    return "-"
