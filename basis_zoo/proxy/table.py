r"""A table of cubics in place of a phi with kinks, or of one on a wide range.

The range is cut at equally spaced edges and at the breakpoints of phi inside it, so that phi is
smooth on each piece; there it is the cubic through its values at four Chebyshev points.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from basis_zoo.phi import PERIODS, Phi, PhiParameters
from basis_zoo.proxy.chebyshev import EPSILON, analysis_matrix, points, power_matrix
from basis_zoo.proxy.constants import constant

_NODES = 4
_BETWEEN = 1.5
"""Factor on the error at u = 0 and +-0.7: a phi that varies within a piece is worse elsewhere."""
SAME_POINT = 2.0**-22
"""Breakpoints nearer than this share of R are one: float32 cannot tell x between them."""


class TableProxy(NamedTuple):
    """phi as a piecewise cubic; several are stacked along `*batch`. Made by `of`."""

    coefficients: Tensor
    """(*batch, pieces, 4) float32: powers of u in [-1, 1] on each piece; differentiable."""
    edges: Tensor
    """(*batch, pieces + 1) float32, increasing; pieces may be empty."""
    records: Tensor
    """(*batch, pieces, 8) float32, what is evaluated: the powers c0..c3 of v = x - middle, then
    the middle, the inverse half width (u = v * inverse), and two zeros."""

    @classmethod
    def of(cls, coefficients: Tensor, edges: Tensor) -> "TableProxy":
        """The proxy with the powers `coefficients` between `edges`."""
        low, high = edges[..., :-1].double(), edges[..., 1:].double()
        inverse = torch.where(high > low, 2 / (high - low), 0)[..., None]
        scaling = inverse ** _exponents(edges.device)
        parts = [coefficients.detach() * scaling, middles(edges)[..., None], inverse]
        records = torch.cat([*parts, torch.zeros_like(coefficients[..., :2])], dim=-1)
        return cls(coefficients.float(), edges.float(), records.float().contiguous())

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """All numbers, the coefficients first."""
        return tuple(self)

    def rebuilt(self, tensors: tuple[Tensor, ...]) -> "TableProxy":
        """The same proxy of other tensors, in the order of `tensors`."""
        return TableProxy(*tensors)

    @property
    def copies(self) -> int:
        """How many proxies are stacked."""
        return self.edges.shape[:-1].numel()

    @property
    def pieces(self) -> int:
        """How many cubics."""
        return self.coefficients.shape[-2]

    def _locate(self, x: Tensor) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Index of the piece, v, and the columns of `records`; those of a stack in a row."""
        if self.edges.ndim == 1:
            index = torch.bucketize(x, self.edges[1:-1], right=True, out_int32=True)
        else:
            inner = self.edges[..., 1:-1].to(x.dtype).contiguous()
            index = torch.searchsorted(inner, x.contiguous(), right=True)
            first = torch.arange(self.copies, device=x.device).view(self.edges.shape[:-1])
            index = index + self.pieces * first[..., None]
        columns = self.records.to(x.dtype).flatten(0, -2).unbind(-1)
        return index, x - columns[4][index], list(columns)

    def value(self, x: Tensor) -> Tensor:
        """phi(x), elementwise; of a stack, each proxy at its own points, x (*batch, n)."""
        index, v, (c0, c1, c2, c3, *_) = self._locate(x)
        y = torch.addcmul(c2[index], v, c3[index])
        return torch.addcmul(c0[index], v, torch.addcmul(c1[index], v, y))

    def slope(self, x: Tensor) -> Tensor:
        """phi'(x), as `value`."""
        index, v, (_, c1, c2, c3, *_) = self._locate(x)
        y = torch.addcmul((2 * c2)[index], v, (3 * c3)[index])
        return torch.addcmul(c1[index], v, y)

    def pullback(self, x: Tensor, grad: Tensor) -> Tensor:
        """The moments of each piece, sum(grad * u^m): dL/d coefficients, float32."""
        index, v, columns = self._locate(x)
        u = (v * columns[5][index]).flatten().double()
        flat, term = index.flatten(), grad.flatten().double()
        moments, pieces = [], self.copies * self.pieces
        for _ in range(_NODES):
            moments.append(torch.bincount(flat, weights=term, minlength=pieces))
            term = term * u
        return torch.stack(moments, dim=-1).float().view(self.coefficients.shape)


def inner_breakpoints(phi: Phi, parameters: PhiParameters, radius: Tensor) -> Tensor:
    """The breakpoints of phi inside (-R, R), each once, then R; (*batch, k) float64."""
    reach = radius.double()[..., None]
    kinks = phi.breakpoints(parameters).detach().double()
    kinks = torch.where(kinks.abs() < reach, kinks, reach).sort(dim=-1).values
    kinks = torch.where(_repeated(kinks, reach), reach, kinks)
    return kinks.sort(dim=-1).values


def _repeated(increasing: Tensor, reach: Tensor) -> Tensor:
    """Whether an entry is the same as the one before it."""
    first = torch.zeros_like(increasing[..., :1], dtype=torch.bool)
    return torch.cat([first, increasing.diff(dim=-1) <= SAME_POINT * reach], dim=-1)


def count_breakpoints(kinks: Tensor, phi: Phi, parameters: PhiParameters, radius: Tensor) -> Tensor:
    """How many of `inner_breakpoints` there are, (*batch,) float64; inf where not all are known."""
    inside = (kinks < radius[..., None]).sum(-1).double()
    if phi.extrapolation != "periodic":
        return inside
    low, high = phi.basis.ends(parameters.grid).detach().unbind(-1)
    reach = torch.minimum(-low, high) + PERIODS * (high - low)
    return torch.where(radius > reach, torch.inf, inside)


def rounding_error(table: TableProxy, coefficients: Tensor, edges: Tensor) -> Tensor:
    """What float32 loses at most when `table`, made of the other two, is evaluated, (*batch,)."""
    widths = (edges.diff(dim=-1) / 2)[..., None] ** _exponents(edges.device)
    stored = table.records[..., :_NODES] * widths
    errors = torch.add((stored - coefficients).abs(), coefficients.abs(), alpha=EPSILON)
    return errors.sum(-1).amax(-1)


def table_edges(kinks: Tensor, radius: Tensor, pieces: int, room: int) -> Tensor:
    """`pieces` equal pieces of [-R, R], cut again at the first `room` of `kinks`.

    Returns:
        (*batch, pieces + room + 1) float64, each exact in float32; left-over room makes empty
        pieces at R.
    """
    even = torch.linspace(-1, 1, pieces + 1, dtype=torch.float64, device=radius.device)
    reach = radius.double()[..., None]
    edges = torch.cat([even * reach, kinks[..., :room]], dim=-1).sort(dim=-1).values
    # slivers between an even edge and a kink become empty
    before = torch.cat([edges[..., :1], edges[..., :-1]], dim=-1)
    # edges as evaluation sees them: a kink rounded to float32 is cut where it is looked up
    return torch.where(_repeated(edges, reach), before, edges).float().double()


def middles(edges: Tensor) -> Tensor:
    """The points between `edges` that the cubics are about, (*batch, n - 1) float64.

    Exact in float32, as evaluation reads them: a middle rounded after the fit would move each
    cubic by that much, which a steep phi shows.
    """
    return ((edges[..., 1:].double() + edges[..., :-1].double()) / 2).float().double()


@constant
def _exponents(device: torch.device) -> Tensor:
    return torch.arange(_NODES).to(device)


@constant
def _places(device: torch.device) -> Tensor:
    """u of the nodes of a cubic, then those at which it is checked: where T_4 is extreme."""
    cpu = torch.device("cpu")
    middle = torch.zeros(1, dtype=torch.float64)
    return torch.cat([points(_NODES, cpu), points(2, cpu), middle]).to(device)


@constant
def _to_powers(device: torch.device) -> Tensor:
    """Values at the nodes to powers of u, from the right; (4, 4)."""
    cpu = torch.device("cpu")
    return (power_matrix(_NODES - 1, cpu) @ analysis_matrix(_NODES, cpu)).T.to(device)


@constant
def _at_checks(device: torch.device) -> Tensor:
    """Powers of u to values where a cubic is checked, from the right; (4, 3)."""
    checks = _places(torch.device("cpu"))[_NODES:]
    return (checks ** _exponents(torch.device("cpu"))[:, None]).to(device)


class Cubics(NamedTuple):
    """Cubics between edges, and how far they are from phi."""

    powers: Tensor
    """(*batch, n - 1, 4) float64, of u."""
    off: Tensor
    """(*batch,) largest error: by points at which that of a smooth phi is extreme."""
    size: Tensor
    """(*batch,) largest |phi|, at those points and the ends of the pieces."""


def fit_cubics(phi: Callable[[Tensor], Tensor], edges: Tensor) -> Cubics:
    """The cubics between `edges` (*batch, n).

    Args:
        phi: Points (*batch, k) to values (*lead, *batch, k), which leads the result too; called
            once.
        edges: Edges as `table_edges` returns them.
    """
    half, middle = edges.diff(dim=-1)[..., None] / 2, middles(edges)[..., None]
    places = _places(edges.device)
    values = phi((middle + half * places).flatten(-2)).unflatten(-1, (-1, len(places)))
    cubics = values[..., :_NODES] @ _to_powers(edges.device)
    with torch.no_grad():
        want = values[..., _NODES:]
        got = cubics @ _at_checks(edges.device)
        even, odd = cubics[..., 0] + cubics[..., 2], cubics[..., 1] + cubics[..., 3]
        size = torch.maximum(want.abs().amax(-1), even.abs() + odd.abs()).amax(-1)
        return Cubics(cubics, _BETWEEN * (got - want).abs().amax((-2, -1)), size)
