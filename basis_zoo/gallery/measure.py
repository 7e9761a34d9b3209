"""The numbers behind the pictures: functions on grids, fits to targets, errors against G."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from basis_zoo.basis import Basis, LinearBasis, get_basis_class
from basis_zoo.conformance.subject import resized
from basis_zoo.fit import fit_amplitudes
from basis_zoo.grids import get_grid
from basis_zoo.nonlinearity import Nonlinearity, spacing_bandwidth
from basis_zoo.phi import Phi, PhiParameters
from basis_zoo.starts import get_start

TARGETS: dict[str, Callable[[Tensor], Tensor]] = {
    "wave": lambda x: torch.sin(2 * x) * torch.exp(-x.square() / 6) + x / 3,
    "kink": lambda x: x.abs() - 1.5,
    "step": lambda x: torch.tanh(8 * (x - 0.5)),
}
"""What phi is fitted to: a smooth function, one with a kink, one with a steep step."""

SIZES = (4, 6, 8, 12, 16, 24, 32, 48, 64)
"""G for which errors are shown."""

_SAMPLES = 2000  # for the quantile grid: as peaked at 0 as the entries of a product BA


def sized(name: str, count: int) -> Basis:
    """The family with its own options and `count` functions, or as many as it needs."""
    return resized(get_basis_class(name)(), count)


def bandwidths(basis: Basis, points: Tensor) -> Tensor:
    """1 / spacing; for frequencies that belong to no point, half a period on the interval."""
    if basis.num_points:
        return spacing_bandwidth(basis, points)
    low, high = basis.interval
    return torch.full((basis.num_bandwidths,), math.pi / (high - low), dtype=torch.float64)


def place(basis: Basis, grid: str) -> Tensor:
    """The grid's points: quantiles of a normal sample, learned ones after training on the step."""
    if grid == "learned" and basis.num_points:
        return _trained_grid(basis)
    generator = torch.Generator().manual_seed(0)
    samples = 0.8 * torch.randn(_SAMPLES, generator=generator, dtype=torch.float32)
    return get_grid(grid).place(basis.num_points, basis.interval, samples)


def _trained_grid(basis: Basis) -> Tensor:
    module = Nonlinearity(
        basis, get_grid("learned"), get_start("small"), bandwidth="spacing", linear=True
    )
    x = torch.linspace(*basis.interval, 200, dtype=torch.float32)
    y = TARGETS["step"](x)
    optimiser = torch.optim.Adam(module.parameters(), lr=0.03)
    for _ in range(150):
        optimiser.zero_grad()
        (module(x) - y).square().mean().backward()
        optimiser.step()
    return module.grid.detach().double()


def functions(basis: Basis, x: Tensor, points: Tensor) -> Tensor:
    """Every function at `x`, under the family's own extrapolation, `(G, n)`.

    A family that is not linear has no such functions: then phi for G draws of its amplitudes.
    """
    count = basis.num_amplitudes
    amplitudes = torch.eye(count, dtype=torch.float64)
    if not isinstance(basis, LinearBasis):
        generator = torch.Generator().manual_seed(3)
        draw = torch.randn(count, count, generator=generator, dtype=torch.float32)
        amplitudes = draw.double() / 2
    zero = torch.zeros(count, dtype=torch.float64)
    omega = bandwidths(basis, points)
    p = PhiParameters(amplitudes, omega.expand(count, -1), points.expand(count, -1), zero, zero)
    return Phi(basis, extrapolation=basis.extrapolation)(x.expand(count, -1), p)


def fitted(basis: Basis, target: str, x: Tensor) -> tuple[Tensor, float]:
    """phi fitted to a target on a uniform grid, at `x`, and its largest error on the interval."""
    points = place(basis, "uniform")
    omega = bandwidths(basis, points)
    dense = torch.linspace(*basis.interval, 801, dtype=torch.float64)
    y = TARGETS[target](dense)
    amplitude = fit_amplitudes(basis, dense, y, points, omega).amplitude
    if not isinstance(basis, LinearBasis):
        amplitude = _descend(basis, amplitude, dense, y, points, omega)
    zero = torch.zeros((), dtype=torch.float64)
    phi = Phi(basis, extrapolation=basis.extrapolation)
    p = PhiParameters(amplitude, omega, points, zero, zero)
    return phi(x, p), (phi(dense, p) - y).abs().max().item()


def _descend(
    basis: Basis, amplitude: Tensor, x: Tensor, y: Tensor, points: Tensor, omega: Tensor
) -> Tensor:
    """Least squares that is not linear, from where the linear one ends."""
    amplitude = amplitude.clone().requires_grad_()
    optimiser = torch.optim.LBFGS(
        [amplitude], max_iter=200, line_search_fn="strong_wolfe", tolerance_grad=1e-12
    )

    def loss() -> Tensor:
        optimiser.zero_grad()
        value = (basis.phi(x, amplitude, points, omega) - y).square().mean()
        value.backward()
        return value

    optimiser.step(loss)
    return amplitude.detach()


def errors(name: str) -> dict[str, list[tuple[int, float]]]:
    """For each target, (G, largest error) of the fit."""
    curves: dict[str, list[tuple[int, float]]] = {target: [] for target in TARGETS}
    for basis in {sized(name, count).num_basis: sized(name, count) for count in SIZES}.values():
        for target in TARGETS:
            none = torch.zeros(0, dtype=torch.float64)
            curves[target].append((basis.num_basis, fitted(basis, target, none)[1]))
    return curves
