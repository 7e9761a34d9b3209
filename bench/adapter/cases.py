"""Factors and proxies to measure with."""

from typing import NamedTuple

import torch
from torch import Tensor

from basis_zoo import Nonlinearity, get_basis, get_grid, get_start
from basis_zoo.proxy import Proxy, fit_proxy, range_radius

RANK = 16
"""Of a single weight, unless a case says otherwise."""
KINDS = {
    "degree 4": ("sinc", 0.005),
    "degree 8": ("sinc", 0.05),
    "degree 12": ("sinc", 0.15),
    "degree 48": ("sinc", 0.9),
    "table, few": ("hat", 0.1),
    "table, 16": ("hat", 0.5),
    "table, many": ("hat", 2.0),
}
"""Family and radius that lead to a kind of proxy, at bandwidth 1 / spacing."""


class Case(NamedTuple):
    """What a merge takes beside W."""

    b: Tensor
    a: Tensor
    proxy: Proxy
    nonlinearity: Nonlinearity


def case(
    name: str,
    radius: float,
    shape: tuple[int, int],
    rank: int,
    device: str,
    *,
    num_basis: int = 50,
    bandwidth: float | str = "spacing",
    seed: int = 0,
    **options: object,
) -> Case:
    """Factors whose product stays within `radius`, and the proxy of a random phi there."""
    torch.manual_seed(seed)
    basis = get_basis(name, num_basis=num_basis, **options)
    phi = Nonlinearity(basis, get_grid("uniform"), get_start("anchored"), bandwidth=bandwidth)
    torch.nn.init.normal_(phi.amplitude)
    phi.to(device)
    m, n = shape
    b, a = torch.randn(m, rank, device=device), torch.randn(rank, n, device=device)
    b *= radius / range_radius(b, a)
    with torch.no_grad():
        fit = fit_proxy(phi.phi, phi.parameters_in_force(), 1.01 * range_radius(b, a))
    return Case(b, a, fit.proxy, phi)


def kind(name: str, shape: tuple[int, int], rank: int, device: str, seed: int = 0) -> Case:
    """The case of one of `KINDS`."""
    return case(*KINDS[name], shape, rank, device, seed=seed)
