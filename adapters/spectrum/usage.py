r"""How much of phi an adapter uses, on the values x = B A that its module really has.

Every function takes one `Nonlinearity` and a sample of x, and returns a 0-d tensor on the CPU.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from adapters.basis.layers import BasisLayer
from basis_zoo import Nonlinearity, PhiParameters
from basis_zoo.proxy.chebyshev import analysis_matrix, points

_SAMPLES = 2048
_NODES = 257
_COPIES = 8
"""Copies of a phi that are looked at, of those of a module."""
Measure = Callable[[Nonlinearity, Tensor], Tensor]


@torch.no_grad()
def phis(layer: BasisLayer, adapter: str) -> list[tuple[Nonlinearity, Tensor]]:
    """The phi of a module with all x that it is asked at; of many copies, eight at equal steps."""
    phi, x = layer.member(adapter).nonlinearity, layer.points(adapter)
    if phi.copies == 1:
        return [(phi, x)]
    chosen = range(0, phi.copies, max(1, -(-phi.copies // _COPIES)))
    return [(phi.single(k), x[k]) for k in chosen]


def sample(x: Tensor) -> Tensor:
    """Up to some 2,000 entries of x at equal steps, and the largest in magnitude; flat."""
    flat = x.detach().flatten()
    stepped = flat[:: max(1, flat.numel() // _SAMPLES)]
    return torch.cat([stepped, flat[flat.abs().argmax()][None]])


@torch.no_grad()
def utilization(phi: Nonlinearity, x: Tensor, share: float = 0.01) -> Tensor:
    r"""The share of the basis functions that are in use.

    Function i is in use if leaving it out changes phi somewhere on the sample by at least `share`
    of the largest such change:
    $\max_x |\phi(x) - \phi_{a_i = 0}(x)| \ge \text{share} \cdot \max_j \max_x |\dots|$.
    The paper reports utilization without a definition; this one needs no scale, counts a function
    that no entry of B A reaches as unused, and works for families that are not linear in their
    amplitudes. 0 where all amplitudes are zero.
    """
    p = phi.parameters_in_force().double()
    count = p.amplitude.shape[-1]
    without = p.amplitude * (1 - torch.eye(count, dtype=torch.float64, device=p.amplitude.device))
    # one row of amplitudes a function; grid and bandwidths are shared, so that every function is
    # evaluated once, not once a row
    each = PhiParameters(without, *(number[None] for number in p[1:]))
    flat = x.detach().flatten().double()
    change = phi.phi(flat[None], each) - phi.phi(flat, p)
    largest = change.abs().amax(-1)
    if not largest.max() > 0:
        return torch.tensor(0.0)
    return (largest >= share * largest.max()).float().mean().cpu()


@torch.no_grad()
def grid_occupancy(phi: Nonlinearity, x: Tensor) -> Tensor:
    """The share of the cells between grid points (of G - 1 equal cells without a grid) in use."""
    low, high = phi.phi.basis.interval
    edges = phi.grid if phi.grid.numel() > 1 else torch.linspace(low, high, phi.phi.basis.num_basis)
    cells = torch.bucketize(x.detach().flatten(), edges.to(x))
    inside = cells[(cells > 0) & (cells < len(edges))]
    return torch.tensor(len(inside.unique()) / max(1, len(edges) - 1))


@torch.no_grad()
def non_affine_share(phi: Nonlinearity, x: Tensor) -> Tensor:
    """The part of phi over x that no affine function explains, as a ratio of deviations."""
    x = x.detach().flatten().double()
    y = phi(x)
    x, y = x - x.mean(), y - y.mean()
    spread = y.norm()
    if spread == 0:
        return torch.tensor(0.0)
    # sums, not a library's least squares, whose last bits depend on where memory lies
    slope = (x * y).sum() / x.square().sum().clamp_min(torch.finfo(x.dtype).tiny)
    share: Tensor = (y - slope * x).norm() / spread
    return share.cpu()


@torch.no_grad()
def effective_degree(phi: Nonlinearity, x: Tensor, tolerance: float = 1e-2) -> Tensor:
    r"""The degree of polynomial that phi amounts to on $[-\max|x|, \max|x|]$.

    The lowest d whose Chebyshev coefficients beyond d sum to at most `tolerance` of those beyond
    0: 1 for anything close to a line, `_NODES` - 1 at most. 0 for a constant.
    """
    radius = x.detach().abs().max().double().clamp_min(1e-12)
    nodes = radius * points(_NODES, radius.device)
    size = (analysis_matrix(_NODES, radius.device) @ phi(nodes)).abs()
    beyond = size.flip(0).cumsum(0).flip(0) - size  # entry d: the sum over degrees above d
    if beyond[0] <= 1e-12 * size.sum().clamp_min(1e-300):
        return torch.tensor(0.0)
    degree: Tensor = (beyond <= tolerance * beyond[0]).int().argmax()
    return degree.float().cpu()


def measures(of: Sequence[tuple[Nonlinearity, Tensor]]) -> list[Tensor]:
    """Each of the four above on samples of x, in their order: the mean over the copies of phi."""
    every: tuple[Measure, ...] = (utilization, grid_occupancy, non_affine_share, effective_degree)
    return [torch.stack([measure(phi, sample(x)) for phi, x in of]).mean() for measure in every]
