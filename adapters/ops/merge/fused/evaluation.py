"""phi and its slope on a block in registers, and what the kernels must know of a proxy."""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from adapters.ops.merge.tiles import Tile
from basis_zoo.proxy import ChebyshevProxy, TableProxy
from basis_zoo.proxy.chebyshev import HORNER_DEGREE

Fusable = ChebyshevProxy | TableProxy
"""Proxies that there are kernels for."""

_SCAN = 16
"""Tables up to this many pieces are looked up by comparing with every edge."""


@triton.jit
def halves(x):
    """The bits of x that tf32 keeps, and the rest."""
    high = (x.to(tl.uint32, bitcast=True) & 0xFFFFE000).to(tl.float32, bitcast=True)
    return high, x - high


@triton.jit
def rounded_halves(x, ASM: tl.constexpr):
    """x rounded to bfloat16, and the rest rounded likewise: 16 bits of x in all."""
    high = x.to(tl.bfloat16)
    low = (x - high.to(tl.float32)).to(tl.bfloat16)
    if not ASM:  # Triton's interpreter would multiply their bits
        high, low = high.to(tl.float32), low.to(tl.float32)
    return high, low


@triton.jit
def product(b_b, b_a, PRECISION: tl.constexpr, ASM: tl.constexpr):
    """The product of two blocks: by three products of halves, without `tl.dot`'s care for inf."""
    if PRECISION == "bf16x3" or PRECISION == "tf32x3":
        if PRECISION == "bf16x3":
            b_high, b_low = rounded_halves(b_b, ASM)
            a_high, a_low = rounded_halves(b_a, ASM)
        else:
            b_high, b_low = halves(b_b)
            a_high, a_low = halves(b_a)
        x = tl.dot(b_low, a_high, input_precision="tf32")
        x = tl.dot(b_high, a_low, x, input_precision="tf32")
        x = tl.dot(b_high, a_high, x, input_precision="tf32")
    else:
        x = tl.dot(b_b, b_a, input_precision=PRECISION)
    return x


@triton.jit
def scalars(terms, COUNT: tl.constexpr):
    """A tuple of the first terms: read once, not in every block of the walk."""
    values = (tl.load(terms),)
    for p in tl.static_range(1, COUNT):
        # Triton knows no unpacking, and mypy no tuple that grows
        values = values + (tl.load(terms + p),)  # type: ignore[assignment]  # noqa: RUF005
    return values


@triton.jit
def own_terms(terms, row, M, PER, STRIDE: tl.constexpr):
    """Where the terms of each row's phi begin, a column: blocks of PER rows have one phi."""
    phi = (tl.minimum(row, M - 1) // PER).to(tl.int64)
    return terms + phi[:, None] * STRIDE


@triton.jit
def powers(u, coefficients, DEGREE: tl.constexpr):
    """The sum of coefficients[p] u^p by Horner's rule."""
    y = tl.zeros_like(u) + coefficients[DEGREE]
    for q in tl.static_range(DEGREE):
        y = y * u + coefficients[DEGREE - 1 - q]
    return y


@triton.jit
def clenshaw(u, terms, DEGREE: tl.constexpr):
    """The sum of terms[p] T_p(u) by Clenshaw's recurrence."""
    b_1 = tl.zeros_like(u) + tl.load(terms + DEGREE)
    b_2 = tl.zeros_like(u)
    for q in range(1, DEGREE):
        b_0 = tl.load(terms + (DEGREE - q)) + 2 * u * b_1 - b_2
        b_2 = b_1
        b_1 = b_0
    return tl.load(terms) + u * b_1 - b_2


@triton.jit
def gather(table, index, ASM: tl.constexpr):
    """table[index]; as inline PTX, since Triton would change the layout of x around a load."""
    if ASM:
        place = (table + index).to(tl.int64)
        value = tl.inline_asm_elementwise(
            "ld.global.nc.f32 $0, [$1];", "=f,l", [place], tl.float32, is_pure=True, pack=1
        )
    else:
        value = tl.load(table + index)
    return value


@triton.jit
def gather4(table, index, ASM: tl.constexpr):
    """table[index : index + 4], four values in one access."""
    if ASM:
        place = (table + index).to(tl.int64)
        v0, v1, v2, v3 = tl.inline_asm_elementwise(
            "ld.global.nc.v4.f32 {$0, $1, $2, $3}, [$4];", "=f,=f,=f,=f,l", [place],
            (tl.float32, tl.float32, tl.float32, tl.float32), is_pure=True, pack=1,
        )  # fmt: skip
    else:
        v0, v1 = tl.load(table + index), tl.load(table + index + 1)
        v2, v3 = tl.load(table + index + 2), tl.load(table + index + 3)
    return v0, v1, v2, v3


@triton.jit
def piece(x, edges, SIZE: tl.constexpr, STEPS: tl.constexpr, ASM: tl.constexpr):
    """Index of the piece: the number of inner edges at or below x."""
    index = tl.zeros_like(x).to(tl.int32)
    if STEPS == 0:
        for j in tl.static_range(1, SIZE):
            index += (x >= tl.load(edges + j)).to(tl.int32)
    else:
        for q in range(STEPS):  # unrolled, its loads take all registers
            ahead = index + ((1 << (STEPS - 1)) >> q)
            edge = gather(edges, tl.minimum(ahead, SIZE), ASM)
            index = tl.where((ahead < SIZE) & (x >= edge), ahead, index)
    return index


def kind_of(proxy: Fusable) -> dict[str, int | bool]:
    """What the kernels must know of a proxy when they are compiled; of tables, there is no stack.

    BLOCKS says that blocks of rows have a phi each.
    """
    if isinstance(proxy, ChebyshevProxy):
        degree = proxy.degree
        kind = {"TABLE": False, "SIZE": degree, "STEPS": 0, "HORNER": degree <= HORNER_DEGREE}
        return kind | {"BLOCKS": proxy.copies > 1}
    size = proxy.pieces
    steps = 0 if size <= _SCAN else (size - 1).bit_length()
    return {"TABLE": True, "SIZE": size, "STEPS": steps, "HORNER": False, "BLOCKS": False}


def numbers_of(proxy: Fusable) -> tuple[Tensor, Tensor, Tensor]:
    """Radius, terms, edges: what the kernels read."""
    if isinstance(proxy, ChebyshevProxy):
        return proxy.radius, proxy.terms, proxy.terms
    return proxy.edges, proxy.records, proxy.edges


def inner_precision(proxy: Fusable, dtype: torch.dtype) -> str:
    """How BA is formed beside a W or G of `dtype`: to 16 bits where phi has no kinks to cross.

    Plain tf32 moves x by 5e-4 of its size, across the kinks of phi: slopes of a hat were wrong by
    10 % (RMS).
    """
    short = dtype != torch.float32 and isinstance(proxy, ChebyshevProxy)
    return "bf16x3" if short else "tf32x3"


def padded_rank(rank: int) -> int:
    """The rank as the tensor cores take it: a power of two of at least 16."""
    power: int = triton.next_power_of_2(rank)
    return max(16, power)


def layout(
    rows: int, columns: int, rank: int, tile: Tile
) -> tuple[tuple[int, int, int], dict[str, Any]]:
    """The grid of programs and the constants of a walk over a matrix."""
    span = tile.columns * tile.chunks
    even = rows % tile.rows == 0 and columns % span == 0
    constants = {
        "EVEN": even, "RANK": padded_rank(rank), "BM": tile.rows, "BN": tile.columns,
        "CHUNKS": tile.chunks, "STAGES": tile.stages, "num_warps": tile.warps,
        "enable_fp_fusion": True,  # a product and a sum in one rounding: not what Triton 3.10 does
    }  # fmt: skip
    return (triton.cdiv(rows, tile.rows), triton.cdiv(columns, span), 1), constants
