"""Every check catches a fault planted for it: a family that is right but for one thing."""

import math
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from basis_zoo import Basis, Claim, get_grid
from basis_zoo.conformance import Subject
from basis_zoo.conformance.check import ALL_CHECKS
from basis_zoo.conformance.run import run_one
from basis_zoo.families.chebyshev import Chebyshev
from basis_zoo.families.fourier import Fourier
from basis_zoo.families.gaussian_rbf import GaussianRBF
from basis_zoo.families.hat import Hat
from basis_zoo.families.matern import Matern
from basis_zoo.families.mexican_hat import MexicanHat
from basis_zoo.families.polynomial import Polynomial
from basis_zoo.families.sinc import Sinc
from basis_zoo.families.wendland import Wendland


class _WrongFactor(torch.autograd.Function):
    """exp(-z^2/2) whose backward is off by a factor, as faster-kan's RSWAF is."""

    @staticmethod
    def forward(ctx, z):
        ctx.save_for_backward(z)
        return torch.exp(-z.square() / 2)

    @staticmethod
    def backward(ctx, grad):
        (z,) = ctx.saved_tensors
        return -2 * grad * z * torch.exp(-z.square() / 2)


class _OnceOnly(torch.autograd.Function):
    """exp(-z^2/2) whose backward is right but forgets that it depends on z."""

    @staticmethod
    def forward(ctx, z):
        ctx.save_for_backward(z)
        return torch.exp(-z.square() / 2)

    @staticmethod
    def backward(ctx, grad):
        z = ctx.saved_tensors[0].detach()
        return -grad * z * torch.exp(-z.square() / 2)


def gaussian(psi=None, **members) -> Basis:
    """A Gaussian with one thing changed."""
    if psi is not None:
        members["psi"] = lambda self, z: psi(z)
    return make(GaussianRBF, **members)


def make(parent: type[Basis], **members) -> Basis:
    """An instance of `parent` with some members replaced."""
    return dataclass(frozen=True)(type(parent.__name__, (parent,), members))(num_basis=12)


def claiming(parent: type[Basis], *claims: Claim) -> Basis:
    return make(parent, claims=frozenset({*parent.claims, *claims}))


def _first_batch(self, x: Tensor, grid: Tensor, bandwidth: Tensor) -> Tensor:
    return self.psi((x[..., :, None] - grid.flatten()[: self.num_basis]) * bandwidth.flatten()[0])


def _cpu_design(self, x: Tensor, grid: Tensor, bandwidth: Tensor) -> Tensor:
    left = torch.arange(self.num_basis).to(x.dtype)  # stays on the CPU
    return x[..., None] * left


def _noisy(self, x: Tensor, amplitude: Tensor, grid: Tensor, bandwidth: Tensor) -> Tensor:
    return GaussianRBF.phi(self, x, amplitude, grid, bandwidth) + 1e-3 * torch.randn_like(x)


def _branching(z: Tensor) -> Tensor:
    return torch.exp(-z.square() / 2) if z.sum() > 0 else torch.exp(z.square() / -2)


def _monomial_chebyshev(self, x: Tensor, grid: Tensor, bandwidth: Tensor) -> Tensor:
    coefficients = torch.zeros(20, 20, dtype=torch.float64)
    coefficients[0, 0] = coefficients[1, 1] = 1
    for k in range(2, 20):
        coefficients[k, 1:] = 2 * coefficients[k - 1, :-1]
        coefficients[k] -= coefficients[k - 2]
    powers = self.unit(x)[..., None] ** torch.arange(20).to(x)
    return (powers @ coefficients.T.to(x))[..., : self.num_basis]


@dataclass(frozen=True, eq=False)
class _ByIdentity(GaussianRBF):
    """Compares by identity, so that a copy is another family."""

    __eq__ = object.__eq__
    __hash__ = object.__hash__

    def __deepcopy__(self, memo: dict) -> Basis:
        return _ByIdentity(self.num_basis, self.interval)


@dataclass(frozen=True)
class _Late(Chebyshev):
    num_basis: int = 20
    design_matrix = _monomial_chebyshev


FAULTS: dict[str, list[Basis]] = {
    "metadata": [gaussian(parity="evne"), gaussian(extrapolation="wrap")],
    "oracle": [
        make(MexicanHat, psi=lambda self, z: -MexicanHat.psi(self, z)),
        gaussian(lambda z: torch.exp(-z.square())),
    ],
    "linear": [
        gaussian(phi=lambda self, x, a, g, w: GaussianRBF.phi(self, x, a.square(), g, w)),
        gaussian(phi=lambda self, x, a, g, w: GaussianRBF.phi(self, x, a, g, w) + 0.1),
    ],
    "finite": [
        gaussian(lambda z: torch.cos(3 * torch.acos(torch.tanh(z)))),  # ChebyKAN
        gaussian(lambda z: torch.where(z.abs() < 1, torch.exp(-1 / (1 - z * z)), 0)),  # bump
        gaussian(lambda z: 1 / torch.cosh(z)),  # overflows: 1 / inf is 0, its gradient NaN
    ],
    "parity": [gaussian(parity="odd"), make(Sinc, psi=lambda self, z: torch.sinc(z + 0.1))],
    "support": [make(Wendland, support=2.0), make(Wendland, support=4.0)],
    "shape": [
        make(GaussianRBF, design_matrix=_first_batch),
        gaussian(lambda z: torch.exp(-z.square() / 2)[..., :-1]),
    ],
    "elementwise": [gaussian(lambda z: torch.exp(-((z - z.mean()) ** 2)))],
    "empty": [gaussian(lambda z: torch.exp(-z.square() / z.abs().max()))],
    "strided": [
        make(
            GaussianRBF,
            phi=lambda self, x, a, g, w: GaussianRBF.phi(
                self, torch.as_strided(x, x.shape, (1,)), a, g, w
            ),
        )
    ],
    "dtype": [_Late(), gaussian(lambda z: torch.exp(-z.double().square() / 2))],
    "device": [make(Polynomial, design_matrix=_cpu_design)],
    "gradient": [gaussian(_WrongFactor.apply), gaussian(lambda z: torch.exp(-z.detach().square()))],
    "second_gradient": [gaussian(_OnceOnly.apply)],
    "second_derivative_at_centers": [
        make(Sinc, psi=lambda self, z: torch.sinc(z)),
        make(Matern, psi=lambda self, z: (1 + z.abs() + z.abs() ** 2 / 3) * torch.exp(-z.abs())),
    ],
    "smoothness": [make(Hat, smoothness=1), make(Matern, smoothness=2), make(Hat, smoothness=-1)],
    "breakpoints": [
        make(Hat, smoothness=math.inf, breakpoints=Basis.breakpoints),
        make(Hat, breakpoints=lambda self, grid, w: grid[..., 1:-2]),
        gaussian(lambda z: torch.exp(-z.abs())),
        gaussian(lambda z: torch.exp(-z.square() / 2) * (1 + torch.floor(z))),
        gaussian(lambda z: torch.exp(-(z.abs() ** 3))),
    ],
    "gradient_reaches_x": [
        gaussian(lambda z: torch.exp(-torch.floor(z).square())),
        claiming(Hat, Claim.ZERO_GRADIENT),
    ],
    "partition_of_unity": [claiming(GaussianRBF, Claim.PARTITION_OF_UNITY)],
    "non_negative": [claiming(MexicanHat, Claim.NON_NEGATIVE)],
    "bounded": [gaussian(lambda z: 1.01 * torch.exp(-z.square() / 2))],
    "interpolating": [claiming(GaussianRBF, Claim.INTERPOLATING)],
    "zero_mean": [claiming(GaussianRBF, Claim.ZERO_MEAN)],
    "reproduces_lines": [claiming(Fourier, Claim.REPRODUCES_LINES)],
    "orthogonal": [
        claiming(Polynomial, Claim.ORTHOGONAL),
        make(Chebyshev, weight=Basis.weight),
        make(Fourier, orthogonality_interval=(-3.0, 3.0)),
    ],
    "order": [make(Hat, order=3), make(Hat, order=1), make(Hat, order=math.inf)],
    "starts": [
        gaussian(phi=lambda self, x, a, g, w: GaussianRBF.phi(self, x, a.detach(), g, w) + 0 * a[0])
    ],
    "extrapolation": [
        gaussian(_OnceOnly.apply),  # has no forward derivative, which the rule `linear` needs
        make(GaussianRBF, phi=_noisy),
    ],
    "state_dict": [make(GaussianRBF, phi=_noisy)],
    "copy": [_ByIdentity(num_basis=12)],
    "proxy": [gaussian(lambda z: torch.exp(-(((z - 0.234) * 3000) ** 2)))],
    "compile": [gaussian(_branching)],
}

CASES = [
    pytest.param(name, basis, id=f"{name}-{i}")
    for name, bases in FAULTS.items()
    for i, basis in enumerate(bases)
]


@pytest.mark.parametrize(("name", "basis"), CASES)
def test_the_planted_fault_is_caught(name: str, basis: Basis) -> None:
    (check,) = [c for c in ALL_CHECKS if c.name == name]
    assert check.applies(basis)
    outcome = run_one(check, basis, get_grid("uniform"))
    assert not outcome.passed, outcome.detail
    assert outcome.detail


def test_every_check_has_a_planted_fault() -> None:
    assert {c.name for c in ALL_CHECKS} == set(FAULTS)


QUICK = [check for check in ALL_CHECKS if not check.slow]
"""Compiling takes seven functions of a family, here as in `test_conformance.py`."""


@pytest.mark.slow
@pytest.mark.parametrize("check", QUICK, ids=lambda check: check.name)
def test_the_families_that_faults_are_made_from_are_healthy(check) -> None:
    for parent in (GaussianRBF, Hat, Chebyshev, Sinc, Wendland, Matern, MexicanHat, Fourier):
        basis = parent(num_basis=12)
        if check.applies(basis):
            assert check(Subject(basis))


def test_the_order_of_a_fault_is_told_in_numbers() -> None:
    (check,) = [c for c in ALL_CHECKS if c.name == "order"]
    outcome = run_one(check, make(Hat, order=3), get_grid("uniform"))
    assert outcome.detail.startswith("fitted order 1.89, claimed 3")


CLAIMS_CHECKED = {claim.name.lower() for claim in Claim} - {"zero_gradient"}


def test_every_claim_has_a_check() -> None:
    names = {c.name for c in ALL_CHECKS}
    assert names >= CLAIMS_CHECKED
    assert "gradient_reaches_x" in names  # measures ZERO_GRADIENT, claimed or not


@pytest.mark.parametrize("name", ["gradient", "second_gradient"])
def test_a_wrong_derivative_is_told_as_such(name: str) -> None:
    (check,) = [c for c in ALL_CHECKS if c.name == name]
    outcome = run_one(check, FAULTS[name][0], get_grid("uniform"))
    assert "derivatives: Jacobian mismatch" in outcome.detail
