"""`reference.py` block by block of rows in buffers that are used again: the path on a CPU.

A fresh buffer of the size of W costs ten times the arithmetic on it, since its pages are mapped
anew each time; here only the results are allocated.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from adapters.ops.merge.reference import round_up_or_down
from basis_zoo.proxy import ChebyshevProxy, TableProxy
from basis_zoo.proxy.chebyshev import HORNER_DEGREE, moment_matrix

_BLOCK = 2**16
"""Entries of a block: enough for two threads, few enough for the cache."""
_FEW_PIECES = 16

Blockable = ChebyshevProxy | TableProxy
"""Proxies that this path can evaluate."""


def can_evaluate(proxy: object) -> bool:
    """Polynomials of low degree, tables of few pieces: what adapters meet in practice."""
    if isinstance(proxy, Blockable) and proxy.copies > 1:
        return False
    if isinstance(proxy, ChebyshevProxy):
        return 0 < proxy.degree <= HORNER_DEGREE
    return isinstance(proxy, TableProxy) and proxy.pieces <= _FEW_PIECES


class _Buffers:
    """Blocks of rows of BA, and buffers of their shape."""

    def __init__(self, b: Tensor, a: Tensor, proxy: Blockable, count: int) -> None:
        self.b, self.a, self.proxy = b.detach().float(), a.detach().float(), proxy
        if isinstance(proxy, ChebyshevProxy):
            self.b = self.b / proxy.radius
        rows = max(1, _BLOCK // max(1, a.shape[1]))
        self.blocks = self.b.new_empty(count, min(rows, len(b)), a.shape[1])

    def __iter__(self) -> Iterator[tuple[slice, list[Tensor]]]:
        """Yield each block's rows, and the buffers; the first holds u (BA itself for a table)."""
        step = self.blocks.shape[1]
        for start in range(0, len(self.b), step):
            rows = slice(start, min(start + step, len(self.b)))
            buffers = [part[: rows.stop - rows.start] for part in self.blocks]
            torch.mm(self.b[rows], self.a, out=buffers[0])
            yield rows, buffers


def _horner(powers: list[float], u: Tensor, out: Tensor) -> Tensor:
    """The polynomial at u, into `out`."""
    if len(powers) == 1:
        return out.fill_(powers[0])
    torch.mul(u, powers[-1], out=out).add_(powers[-2])
    for power in reversed(powers[:-2]):
        out.mul_(u).add_(power)
    return out


class _Pieces:
    """Pieces of a table that are not empty: their edges, and columns of `records`."""

    def __init__(self, table: TableProxy) -> None:
        wide = table.edges.diff() > 0
        self.number = wide.nonzero()[:, 0] if bool(wide.any()) else torch.zeros(1, dtype=torch.long)
        self.edges = table.edges[self.number][1:].tolist()
        self.columns = table.records[self.number].T.contiguous()

    def index(self, x: Tensor) -> Tensor:
        """The piece of every entry, flat."""
        index = torch.zeros(x.numel(), dtype=torch.int32)
        for edge in self.edges:
            index += (x >= edge).view(-1)
        return index

    def pick(self, column: int, index: Tensor, out: Tensor) -> Tensor:
        """A column of the records at `index`, into `out`."""
        if not self.edges:
            return out.fill_(self.columns[column, 0])
        return torch.index_select(self.columns[column], 0, index, out=out.view(-1)).view_as(out)


def merged_weight(
    weight: Tensor | None,
    b: Tensor,
    a: Tensor,
    proxy: Blockable,
    scale: float,
    *,
    hadamard: bool = False,
    dtype: torch.dtype | None = None,
    seed: int | None = None,
) -> Tensor:
    """W' = W + scale * phi(B A); the arguments are those of `adapters.ops.merge`."""
    dtype = dtype or (torch.float32 if weight is None else weight.dtype)
    total = torch.empty(len(b), a.shape[1], dtype=torch.float32)
    if isinstance(proxy, ChebyshevProxy):
        powers = proxy.terms[0].tolist()
        for rows, (u,) in _Buffers(b, a, proxy, 1):
            _finish(_horner(powers, u, total[rows]), weight, rows, scale, hadamard)
    else:
        pieces = _Pieces(proxy)
        for rows, (v, c) in _Buffers(b, a, proxy, 2):
            y, index = total[rows], pieces.index(v)
            v.sub_(pieces.pick(4, index, c))
            pieces.pick(3, index, y)
            for power in (2, 1, 0):
                y.mul_(v).add_(pieces.pick(power, index, c))
            _finish(y, weight, rows, scale, hadamard)
    if seed is not None and dtype == torch.bfloat16:
        total = round_up_or_down(total, seed)
    return total.to(dtype)


def _finish(y: Tensor, weight: Tensor | None, rows: slice, scale: float, hadamard: bool) -> None:
    y.mul_(scale)
    if weight is not None:
        if hadamard:
            y.mul_(weight[rows])
        y.add_(weight[rows])


def merge_gradients(
    grad: Tensor, b: Tensor, a: Tensor, proxy: Blockable, scale: float, weight: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients with respect to B, A and phi; arguments and results as in `adapters.ops.merge`."""
    b, a = b.detach().float(), a.detach().float()
    db, da = torch.empty_like(b), torch.zeros_like(a)
    moments = torch.zeros(proxy.coefficients.numel(), dtype=torch.float64)
    if isinstance(proxy, ChebyshevProxy):
        walk = _polynomial_blocks(grad, b, a, proxy, moments, weight)
    else:
        walk = _table_blocks(grad, b, a, proxy, moments, weight)
    for rows, h in walk:
        torch.mm(h, a.T, out=db[rows])
        da.addmm_(b[rows].T, h)
    moments *= scale
    if isinstance(proxy, ChebyshevProxy):
        moments = moment_matrix(proxy.degree, b.device) @ moments
    return db.mul_(scale), da.mul_(scale), moments.float().view_as(proxy.coefficients)


def _polynomial_blocks(
    grad: Tensor, b: Tensor, a: Tensor, proxy: ChebyshevProxy, sums: Tensor, weight: Tensor | None
) -> Iterator[tuple[slice, Tensor]]:
    """H / s by blocks; on the way the sums over g T_2k and g T_2k u are added to `sums`."""
    powers = proxy.terms[1, : proxy.degree].tolist()
    for rows, (u, g, h, before, twice) in _Buffers(b, a, proxy, 5):
        g.copy_(grad[rows])
        if weight is not None:
            g.mul_(weight[rows])
        _horner(powers, u, h).mul_(g)
        flat, parts = u.view(-1), []
        torch.mul(u, u, out=twice).mul_(4).sub_(2)
        now = g
        for k in range(proxy.degree // 2 + 1):
            parts += [now.sum(), torch.dot(now.view(-1), flat)]
            if k == 0:
                torch.mul(now, twice, out=before).mul_(0.5)
                before, now = now, before
            else:  # T_2k+2 = (4 u^2 - 2) T_2k - T_2k-2
                torch.addcmul(before.neg_(), now, twice, out=before)
                before, now = now, before
        sums += torch.stack(parts[: len(sums)]).double()
        yield rows, h


def _table_blocks(
    grad: Tensor, b: Tensor, a: Tensor, proxy: TableProxy, sums: Tensor, weight: Tensor | None
) -> Iterator[tuple[slice, Tensor]]:
    """H / s by blocks; on the way the moments of each piece are added to `sums`."""
    pieces = _Pieces(proxy)
    total = torch.zeros(len(pieces.number), 4, dtype=torch.float64)
    for rows, (v, g, h, c) in _Buffers(b, a, proxy, 4):
        g.copy_(grad[rows])
        if weight is not None:
            g.mul_(weight[rows])
        index = pieces.index(v)
        v.sub_(pieces.pick(4, index, c))
        pieces.pick(3, index, h).mul_(3).mul_(v)
        h.add_(pieces.pick(2, index, c), alpha=2).mul_(v).add_(pieces.pick(1, index, c)).mul_(g)
        v.mul_(pieces.pick(5, index, c))
        for power in range(4):
            total[:, power] += pieces_sum(index, g, len(total))
            if power < 3:
                g.mul_(v)
        yield rows, h
    sums.view(-1, 4)[pieces.number] += total


def pieces_sum(index: Tensor, values: Tensor, count: int) -> Tensor:
    """The sum of `values` over each piece, float64 (count,)."""
    if count == 1:
        return values.sum(dtype=torch.float64)[None]
    return torch.bincount(index, weights=values.view(-1).double(), minlength=count)
