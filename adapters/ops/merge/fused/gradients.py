r"""The gradients of B, A and phi in one pass over G.

The walk of `weight.py` reads G and forms $H = s\,G \odot \phi'$; $dB = HA^\top$ stays in
registers over the walk, $dA = B^\top H$ is written once for each block of rows, the moments of phi
once for each program. A second kernel adds up these parts in a fixed order, so results are
repeatable bit by bit; no two programs write to one address.

Moments of a polynomial of degree up to 12 are sums of $g T_{2k}$ and $g T_{2k} u$, by the
recurrence $T_{2k+2} = (4u^2 - 2) T_{2k} - T_{2k-2}$; those of odd degree follow at the end from
$T_{2k+1} = 2 u T_{2k} - T_{2k-1}$. For a table, a program visits only the pieces that occur in
its block, and adds to its own row of the parts.
"""

from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from adapters.ops.merge.fused.evaluation import (
    Fusable,
    clenshaw,
    gather,
    gather4,
    inner_precision,
    kind_of,
    layout,
    numbers_of,
    own_terms,
    padded_rank,
    piece,
    powers,
    product,
    scalars,
)
from adapters.ops.merge.fused.launching import Constants, Launcher
from adapters.ops.merge.tiles import Tile, gradient_tile
from basis_zoo.proxy import ChebyshevProxy, proxy_size
from basis_zoo.proxy.chebyshev import HORNER_DEGREE, moment_matrix

_MOMENTS = 4


@triton.jit
def _no_sums(BM: tl.constexpr, LANES: tl.constexpr):
    """Where `_part_sums` of blocks are added up."""
    if LANES:
        sums = tl.zeros([8, 4], dtype=tl.float32)
    else:
        sums = tl.zeros([BM], dtype=tl.float32)
    return sums


@triton.jit
def _part_sums(t, LANES: tl.constexpr):
    """The sum of a block but for the last step: over what a lane holds of it, or over its rows.

    The first is for one warp and a product of the tensor cores, which spread it over 8 x 4 lanes.
    In another layout Triton 3.6 would add up wrongly.
    """
    if LANES:
        WIDE: tl.constexpr = t.shape[0] // 16
        LONG: tl.constexpr = t.shape[1] // 8
        t = tl.permute(tl.reshape(t, [WIDE, 2, 8, LONG, 4, 2]), [2, 4, 0, 1, 3, 5])
        sums = tl.sum(tl.reshape(t, [8, 4, WIDE * LONG * 4]), 2)
    else:
        sums = tl.sum(t, 1)
    return sums


@triton.jit
def _whole_sum(sums, LANES: tl.constexpr):
    """The last step."""
    if LANES:
        sums = tl.sum(sums, 1)
    return tl.sum(sums, 0)


@triton.jit
def _add_moment(total, slot, p, t, BLOCKS: tl.constexpr):
    """Add the sum of `t`, or with BLOCKS of each of its rows, to the slot `p`."""
    if BLOCKS:
        total += tl.where(slot[None, :] == p, tl.sum(t, 1)[:, None], 0.0)
    else:
        total += tl.where(slot == p, tl.sum(tl.sum(t, 1), 0), 0.0)
    return total


@triton.jit
def _gradient_kernel(
    g, w, b, a, db, da, moments, radius, terms, edges, scale,
    M, N, K, b_row, b_col, a_row, a_col, PER,
    TABLE: tl.constexpr, SIZE: tl.constexpr, STEPS: tl.constexpr, HORNER: tl.constexpr,
    BLOCKS: tl.constexpr, TIMES: tl.constexpr, EVEN: tl.constexpr, PRECISION: tl.constexpr,
    OUTER: tl.constexpr, ASM: tl.constexpr, RANK: tl.constexpr, WIDTH: tl.constexpr,
    BM: tl.constexpr, BN: tl.constexpr, CHUNKS: tl.constexpr, STAGES: tl.constexpr,
    LANES: tl.constexpr,
):  # fmt: skip
    first_row = tl.program_id(0).to(tl.int64) * BM
    rows = tl.arange(0, BM)
    rank = tl.arange(0, RANK)
    row_in = rows[:, None] < M - first_row
    in_rank = rank[None, :] < K
    b_block = b + (first_row + rows[:, None]) * b_row + rank[None, :] * b_col
    b_b = tl.load(b_block, mask=row_in & in_rank, other=0.0).to(tl.float32)
    undo = 1.0
    if not TABLE:
        undo = tl.load(radius)
        b_b = b_b / undo
    if BLOCKS:
        terms = own_terms(terms, first_row + rows, M, PER, 2 * SIZE + 2)
    if HORNER:
        derivative = scalars(terms + (SIZE + 1), SIZE)
        sums = (tl.zeros([BM], dtype=tl.float32),)
        for p in tl.static_range(1, SIZE + 1):  # noqa: B007
            sums = sums + (_no_sums(BM, LANES),)  # type: ignore[assignment]  # noqa: RUF005
    b_bt = tl.trans(b_b) * (undo * scale)
    b_db = tl.zeros([BM, RANK], dtype=tl.float32)
    program = (tl.program_id(0) * tl.num_programs(1) + tl.program_id(1)).to(tl.int64)
    own = moments + program * WIDTH
    slot = tl.arange(0, WIDTH)
    if BLOCKS:
        total = tl.zeros([BM, WIDTH], dtype=tl.float32)
    else:
        total = tl.zeros([WIDTH], dtype=tl.float32)
    for chunk in tl.range(0, CHUNKS, num_stages=STAGES):
        columns = (tl.program_id(1) * CHUNKS + chunk) * BN + tl.arange(0, BN)
        inside = columns[None, :] < N
        a_block = a + rank[:, None] * a_row + columns[None, :].to(tl.int64) * a_col
        b_a = tl.load(a_block, mask=(rank[:, None] < K) & inside, other=0.0).to(tl.float32)
        at = first_row * N + (rows[:, None] * N + columns[None, :])
        if EVEN:
            b_g = tl.load(g + at).to(tl.float32)
        else:
            b_g = tl.load(g + at, mask=row_in & inside, other=0.0).to(tl.float32)
        if TIMES:
            b_g *= tl.load(w + at, mask=row_in & inside, other=0.0).to(tl.float32)
        x = product(b_b, b_a, PRECISION, ASM)
        if TABLE:
            index = piece(x, edges, SIZE, STEPS, ASM)
            _, c1, c2, c3 = gather4(terms, 8 * index, ASM)
            v = x - gather(terms, 8 * index + 4, ASM)
            u = v * gather(terms, 8 * index + 5, ASM)
            h = b_g * (c1 + v * (2 * c2 + v * (3 * c3)))
            for j in range(tl.min(index), tl.max(index) + 1):
                g0 = tl.where(index == j, b_g, 0.0)
                g1 = g0 * u
                g2 = g1 * u
                four = tl.join(tl.join(g0, g2), tl.join(g1, g2 * u))
                four = tl.reshape(tl.sum(tl.sum(four, 1), 0), [4]) * scale
                tl.atomic_add(own + 4 * j + tl.arange(0, 4), four, sem="relaxed")
        else:
            if HORNER:
                h = b_g * powers(x, derivative, SIZE - 1)
                double = 4 * x * x - 2
                before = b_g * (2 * x * x - 1)  # T_{-2} = T_2
                term = b_g
                # G keeps the layout of its load, which is not that of a product
                grown = (sums[0] + tl.sum(b_g, 1),)
                for p in tl.static_range(0, SIZE + 1, 2):
                    if p > 0:
                        even = _part_sums(term, LANES)
                        grown = grown + (sums[p] + even,)  # type: ignore[assignment]  # noqa: RUF005
                    if p + 1 <= SIZE:
                        odd = _part_sums(term * x, LANES)
                        grown = grown + (sums[p + 1] + odd,)  # type: ignore[assignment]  # noqa: RUF005
                    if p + 2 <= SIZE:
                        after = double * term - before
                        before = term
                        term = after
                sums = grown
            else:
                h = b_g * clenshaw(x, terms + (SIZE + 1), SIZE - 1)
                before = tl.zeros_like(x) + 1.0
                now = x
                total = _add_moment(total, slot, 0, b_g, BLOCKS)
                for p in range(1, SIZE + 1):
                    total = _add_moment(total, slot, p, b_g * now, BLOCKS)
                    after = 2 * x * now - before
                    before = now
                    now = after
        b_db = tl.dot(h, tl.trans(b_a), b_db, input_precision=OUTER)
        b_da = tl.dot(b_bt, h, input_precision=OUTER)
        da_block = da + (tl.program_id(0).to(tl.int64) * K + rank[:, None]) * N + columns[None, :]
        tl.store(da_block, b_da, mask=(rank[:, None] < K) & inside)
    db_block = db + (tl.program_id(1).to(tl.int64) * M + first_row + rows[:, None]) * K
    tl.store(db_block + rank[None, :], b_db * scale, mask=row_in & in_rank)
    if BLOCKS:
        row = tl.program_id(1).to(tl.int64) * M + first_row + rows
        if HORNER:
            for p in tl.static_range(SIZE + 1):
                tl.store(moments + row * WIDTH + p, sums[p] * scale, mask=rows < M - first_row)
        else:
            tl.store(moments + row[:, None] * WIDTH + slot[None, :], total * scale, mask=row_in)
    elif HORNER:
        tl.store(own, tl.sum(sums[0], 0) * scale)
        for p in tl.static_range(1, SIZE + 1):
            tl.store(own + p, _whole_sum(sums[p], LANES) * scale)
    elif not TABLE:
        tl.store(own + slot, total * scale)


@triton.jit
def _add_parts(parts, count, size, block, place, BLOCK: tl.constexpr, DEEP: tl.constexpr):
    """Add `count` parts of `size` numbers at one block of BLOCK; DEEP parts are read at a time."""
    at = block * BLOCK + tl.arange(0, BLOCK)
    deep = tl.arange(0, DEEP)[:, None]
    inside = at[None, :] < size
    total = tl.zeros([DEEP, BLOCK], dtype=tl.float32)
    for start in range(0, count, DEEP):
        part = parts + (start + deep).to(tl.int64) * size + at[None, :]
        total += tl.load(part, mask=(start + deep < count) & inside, other=0.0)
    tl.store(place + at, tl.sum(total, 0), mask=at < size)


@triton.jit
def _finish_kernel(
    db_parts, da_parts, moment_parts, db, da, dc,
    DB, DA, MOMENTS, STRIDE, db_count, da_count, programs,
    HORNER: tl.constexpr, WIDTH: tl.constexpr, BLOCK: tl.constexpr,
    FEW: tl.constexpr, MANY: tl.constexpr, DEEP: tl.constexpr,
):  # fmt: skip
    program = tl.program_id(0).to(tl.int64)
    moment_blocks = tl.cdiv(MOMENTS, WIDTH)
    da_blocks = tl.cdiv(DA, BLOCK)
    if program < moment_blocks:  # first, since it takes longest
        column = program * WIDTH + tl.arange(0, WIDTH)
        deep = tl.arange(0, DEEP)
        sums = tl.zeros([DEEP, WIDTH], dtype=tl.float64)
        for start in range(0, programs, DEEP):
            row = start + deep
            place_in = moment_parts + row[:, None].to(tl.int64) * STRIDE + column[None, :]
            mask_in = (row[:, None] < programs) & (column[None, :] < MOMENTS)
            sums += tl.load(place_in, mask=mask_in, other=0.0).to(tl.float64)
        moment = tl.sum(sums, 0)
        if HORNER:
            of, to = tl.arange(0, WIDTH)[:, None], tl.arange(0, WIDTH)[None, :]
            # `moment_matrix`: T_{2k+1} = 2 u T_2k - 2 u T_{2k-2} + ... to the end, u T_0
            odd = ((of & to & 1) == 1) & (of <= to)
            sign = 1 - (to - of) % 4
            matrix = tl.where(odd, tl.where(of == 1, sign, 2 * sign), 0)
            matrix = tl.where((of == to) & ((of & 1) == 0), 1, matrix).to(tl.float64)
            moment = tl.sum(matrix * moment[:, None], 0)
        tl.store(dc + column, moment.to(tl.float32), mask=column < MOMENTS)
    elif program < moment_blocks + da_blocks:
        _add_parts(da_parts, da_count, DA, program - moment_blocks, da, BLOCK, MANY)
    else:
        block = program - moment_blocks - da_blocks
        _add_parts(db_parts, db_count, DB, block, db, BLOCK, FEW)


_walk, _finish = Launcher(_gradient_kernel), Launcher(_finish_kernel)


class _Plan(NamedTuple):
    """How the two kernels are launched."""

    grid: tuple[int, int, int]
    constants: Constants
    width: int
    """Numbers of a program's own row of moments."""
    blocks: tuple[int, int, int]
    sizes: tuple[int, ...]
    """Sizes for the second kernel."""
    to_finish: Constants

    @property
    def across(self) -> int:
        """Blocks of rows, each with a part of dA."""
        return self.grid[0]

    @property
    def down(self) -> int:
        """Walks along a row, each with a part of dB."""
        return self.grid[1]


_PLANS: dict[tuple[Any, ...], _Plan] = {}
"""Plans by what they depend on, kept because a layer asks in every step."""


def _plan(
    shape: tuple[int, int, int],
    dtype: torch.dtype,
    proxy: Fusable,
    precision: str | None,
    tile: Tile | None,
    *,
    asm: bool,
    times: bool,
) -> _Plan:
    m, n, k = shape
    kind = kind_of(proxy)
    grid, cut = layout(m, n, k, tile or gradient_tile(m, n, padded_rank(k), proxy))
    across, down, _ = grid
    count = proxy.degree + 1 if isinstance(proxy, ChebyshevProxy) else _MOMENTS * proxy.pieces
    width = max(16, triton.next_power_of_2(count))
    block, lane = 128, min(width, 64)
    # the moments of a stack belong to rows, and torch adds them up
    moments = count if proxy.copies == 1 else 0
    blocks = triton.cdiv(m * k, block) + triton.cdiv(k * n, block) + triton.cdiv(moments, lane)
    constants = Constants(
        **kind, **cut, TIMES=times, WIDTH=width, ASM=asm,
        PRECISION=precision or inner_precision(proxy, dtype),
        OUTER=precision or ("tf32x3" if dtype == torch.float32 else "tf32"),
        LANES=precision != "ieee" and cut["num_warps"] == 1 and proxy.copies == 1,
    )  # fmt: skip
    to_finish = Constants(
        HORNER=kind["HORNER"], WIDTH=lane, BLOCK=block, FEW=8, MANY=32, DEEP=4096 // lane,
        num_warps=4, enable_fp_fusion=True,
    )  # fmt: skip
    sizes = (m * k, k * n, moments, width, down, across, across * down)
    return _Plan(grid, constants, width, (blocks, 1, 1), sizes, to_finish)


def merge_gradients(
    grad: Tensor,
    b: Tensor,
    a: Tensor,
    proxy: Fusable,
    scale: float,
    weight: Tensor | None = None,
    *,
    precision: str | None = None,
    tile: Tile | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """`reference.merge_gradients` on the device of `b`; the options are those of `merged_weight`.

    Returns:
        dB (out, r), dA (r, in), d coefficients, all float32.
    """
    if not grad.is_contiguous():
        if grad.t().is_contiguous() and proxy.copies == 1:
            turned = merge_gradients(
                *(grad.t(), a.t(), b.t(), proxy, scale, None if weight is None else weight.t()),
                precision=precision, tile=tile,
            )  # fmt: skip
            return turned[1].t(), turned[0].t(), turned[2]
        grad = grad.contiguous()
    (m, n), k, times = grad.shape, b.shape[1], weight is not None
    weight = grad if weight is None else weight.contiguous()
    kind = (proxy_size(proxy), type(proxy), proxy.copies)
    key = (m, n, k, grad.dtype, *kind, times, precision, tile)
    plan = _PLANS.get(key)
    if plan is None:
        how = {"asm": b.is_cuda, "times": times}
        plan = _PLANS[key] = _plan((m, n, k), grad.dtype, proxy, precision, tile, **how)
    db_parts = b.new_empty(plan.down, m, k, dtype=torch.float32)
    da_parts = b.new_empty(plan.across, k, n, dtype=torch.float32)
    empty = b.new_empty if isinstance(proxy, ChebyshevProxy) else b.new_zeros
    rows = plan.across if proxy.copies == 1 else m
    parts = empty(plan.down * rows, plan.width, dtype=torch.float32)
    tensors = (grad, weight, b, a, db_parts, da_parts, parts, *numbers_of(proxy))
    sizes = (m, n, k, *b.stride(), *a.stride(), m // proxy.copies)
    _walk(plan.grid, tensors, (float(scale),), sizes, plan.constants)
    db = b.new_empty(m, k, dtype=torch.float32)
    da = b.new_empty(k, n, dtype=torch.float32)
    dc = torch.empty_like(proxy.coefficients, dtype=torch.float32)
    sums = (db_parts, da_parts, parts, db, da, dc)
    _finish(plan.blocks, sums, (), plan.sizes, plan.to_finish)
    if proxy.copies > 1:
        dc = _of_blocks(parts.view(plan.down, proxy.copies, -1, plan.width), proxy)
    return db, da, dc


def _of_blocks(parts: Tensor, proxy: Fusable) -> Tensor:
    """d coefficients (n, P + 1) from the moments of rows, (walks, n, rows of a block, width)."""
    assert isinstance(proxy, ChebyshevProxy), "of tables there is no stack"
    moments = parts[..., : proxy.degree + 1].sum((0, 2), dtype=torch.float64)
    if proxy.degree <= HORNER_DEGREE:
        moments = moments @ moment_matrix(proxy.degree, parts.device).T
    return moments.float()
