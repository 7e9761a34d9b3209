"""W' in one pass over W.

A program owns BM rows and walks over `CHUNKS` blocks of BN columns: it forms the block of
$u = BA / R$ on the tensor cores, evaluates phi there, reads W and writes $W'$.
"""

from typing import Any

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
from adapters.ops.merge.tiles import Tile, merge_tile
from basis_zoo.proxy import proxy_size


@triton.jit
def _hash(index, seed):
    """32 well mixed bits for each element; the constants are those of `lowbias32`."""
    h = (index ^ (index >> 32)).to(tl.uint32) ^ seed.to(tl.uint32)
    h = (h ^ (h >> 16)) * 0x7FEB352D
    h = (h ^ (h >> 15)) * 0x846CA68B
    return h ^ (h >> 16)


@triton.jit
def _round_up_or_down(y, index, seed):
    """Float32 whose upper half is `y` rounded to bfloat16 with the odds of its distance."""
    bits = y.to(tl.uint32, bitcast=True)
    noise = _hash(index, seed) & 0xFFFF
    finite = (bits & 0x7F800000) != 0x7F800000
    bits = tl.where(finite, bits + noise, bits) & 0xFFFF0000
    return bits.to(tl.float32, bitcast=True)


@triton.jit(do_not_specialize=["seed"])
def _merge_kernel(
    w, b, a, out, radius, terms, edges, scale, seed,
    M, N, K, b_row, b_col, a_row, a_col, PER,
    TABLE: tl.constexpr, SIZE: tl.constexpr, STEPS: tl.constexpr, HORNER: tl.constexpr,
    BLOCKS: tl.constexpr, HAS_W: tl.constexpr, TIMES: tl.constexpr, STOCHASTIC: tl.constexpr,
    EVEN: tl.constexpr, PRECISION: tl.constexpr, ASM: tl.constexpr, RANK: tl.constexpr,
    BM: tl.constexpr, BN: tl.constexpr, CHUNKS: tl.constexpr,
    STAGES: tl.constexpr,
):  # fmt: skip
    first_row = tl.program_id(0).to(tl.int64) * BM
    rows = tl.arange(0, BM)
    rank = tl.arange(0, RANK)
    row_in = rows[:, None] < M - first_row
    b_block = b + (first_row + rows[:, None]) * b_row + rank[None, :] * b_col
    b_b = tl.load(b_block, mask=row_in & (rank[None, :] < K), other=0.0).to(tl.float32)
    if not TABLE:
        b_b = b_b / tl.load(radius)
    if BLOCKS:
        terms = own_terms(terms, first_row + rows, M, PER, 2 * SIZE + 2)
    if HORNER:
        coefficients = scalars(terms, SIZE + 1)
    for chunk in tl.range(0, CHUNKS, num_stages=STAGES):
        columns = (tl.program_id(1) * CHUNKS + chunk) * BN + tl.arange(0, BN)
        inside = columns[None, :] < N
        a_block = a + rank[:, None] * a_row + columns[None, :].to(tl.int64) * a_col
        b_a = tl.load(a_block, mask=(rank[:, None] < K) & inside, other=0.0).to(tl.float32)
        at = first_row * N + (rows[:, None] * N + columns[None, :])
        mask = None if EVEN else row_in & inside
        x = product(b_b, b_a, PRECISION, ASM)
        if TABLE:
            index = piece(x, edges, SIZE, STEPS, ASM)
            c0, c1, c2, c3 = gather4(terms, 8 * index, ASM)
            v = x - gather(terms, 8 * index + 4, ASM)
            y = c0 + v * (c1 + v * (c2 + v * c3))
        elif HORNER:
            y = powers(x, coefficients, SIZE)
        else:
            y = clenshaw(x, terms, SIZE)
        y = y * scale
        if HAS_W:
            b_w = tl.load(w + at, mask=mask).to(tl.float32)
            if TIMES:
                y = y * b_w
            y += b_w
        if STOCHASTIC:
            y = _round_up_or_down(y, at, seed)
        tl.store(out + at, y.to(out.dtype.element_ty), mask=mask)


_merge = Launcher(_merge_kernel)
_PLANS: dict[tuple[Any, ...], tuple[tuple[int, int, int], Constants]] = {}
"""Plans by what they depend on, kept because a layer asks in every step."""


def merged_weight(
    weight: Tensor | None,
    b: Tensor,
    a: Tensor,
    proxy: Fusable,
    scale: float,
    *,
    hadamard: bool = False,
    dtype: torch.dtype | None = None,
    seed: int | None = None,
    precision: str | None = None,
    tile: Tile | None = None,
) -> Tensor:
    """`reference.merged_weight` on the device of `b`.

    Args:
        precision: Precision of the product BA: `bf16x3`, `tf32x3` or `ieee`; see `inner_precision`.
        tile: Block sizes instead of the measured ones.
    """
    (m, k), n = b.shape, a.shape[1]
    if weight is not None and not weight.is_contiguous():
        if weight.t().is_contiguous() and proxy.copies == 1:
            turned = merged_weight(
                *(weight.t(), a.t(), b.t(), proxy, scale), hadamard=hadamard,
                dtype=dtype, seed=seed, precision=precision, tile=tile,
            )  # fmt: skip
            return turned.t()
        weight = weight.contiguous()
    dtype = dtype or (weight.dtype if weight is not None else torch.float32)
    out = torch.empty(m, n, dtype=dtype, device=b.device)
    if not out.numel():
        return out
    has_weight, stochastic = weight is not None, seed is not None and dtype == torch.bfloat16
    times = hadamard and has_weight
    kind = (proxy_size(proxy), type(proxy), proxy.copies)
    key = (m, n, k, dtype, *kind, has_weight, times, stochastic, precision, tile)
    plan = _PLANS.get(key)
    if plan is None:
        precision = precision or inner_precision(proxy, dtype)
        grid, layout_ = layout(m, n, k, tile or merge_tile(m, n, padded_rank(k), proxy))
        constants = Constants(
            **kind_of(proxy), HAS_W=has_weight, TIMES=times, STOCHASTIC=stochastic,
            PRECISION=precision, ASM=b.is_cuda, **layout_,
        )  # fmt: skip
        plan = _PLANS[key] = grid, constants
    grid, constants = plan
    tensors = (out if weight is None else weight, b, a, out, *numbers_of(proxy))
    sizes = (m, n, k, *b.stride(), *a.stride(), m // proxy.copies)
    _merge(grid, tensors, (float(scale), seed or 0), sizes, constants)
    return out
