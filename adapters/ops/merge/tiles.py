"""Block sizes of the fused kernels, and the measurement that chose them."""

from typing import NamedTuple

from basis_zoo.proxy import ChebyshevProxy, Proxy, proxy_size
from basis_zoo.proxy.chebyshev import HORNER_DEGREE


class Tile(NamedTuple):
    """One way to cut a matrix into programs."""

    rows: int
    """Rows of a block; a power of two."""
    columns: int
    """Columns of a block; a power of two."""
    chunks: int
    """Blocks that a program walks over, from left to right."""
    warps: int
    stages: int
    """Depth of the software pipeline over the walk."""


# The choices below follow bench/results/tiles_h100.json (bf16, r 16), which `python -m
# bench.adapter tune` writes. Above rank 16 no times are known: tiles are those that fit into
# registers and 96 KiB of shared memory.


def merge_tile(rows: int, columns: int, rank: int, proxy: Proxy) -> Tile:
    """The tile for W of (rows, columns) and a padded rank."""
    if rank > 64:
        return Tile(16, 32, 8, 8, 1)
    if rank > 32 or not _is_light(proxy):
        return Tile(32, 64, 1, 4, 1)  # 4096 x 4096, degree 48: 96.2 us, (32, 128, 4, 4, 3): 102.5
    if rows * columns >= _MIDDLE:
        return Tile(32, 128, 4, 4, 3)  # 4096 x 4096: 32.0 us; 14336 x 4096: 92.4
    if rows * columns >= _SMALL:
        return Tile(32, 128, 1, 4, 1)  # 4864 x 896: 13.9 us, (32, 64, 1, 4, 1): 14.2
    return Tile(32, 64, 1, 4, 1)  # 896 x 896: 7.6 us


def gradient_tile(rows: int, columns: int, rank: int, proxy: Proxy) -> Tile:
    """The tile for G of (rows, columns) and a padded rank."""
    size = rows * columns
    chunks = 16 if size >= _MIDDLE else 8
    if rank > 64:
        return Tile(16, 16, chunks, 8, 1)
    if rank > 16:
        return Tile(32, 32, chunks, 4, 1)
    if isinstance(proxy, ChebyshevProxy) and proxy.degree > HORNER_DEGREE:
        return Tile(32, 16, chunks, 1, 3)  # 4096 x 4096, degree 48: 307 us, (64, 64, 16, 4, 3): 346
    if not _is_light(proxy):
        return Tile(32, 32, chunks, 1, 3)  # 4096 x 4096, 16 pieces: 161 us, (64, 16, 16, 1, 3): 167
    if size >= _MIDDLE:
        return Tile(64, 16, chunks, 1, 3)  # 4096 x 4096: 52.9 us, (32, 32, 16, 1, 3): 58.5
    if size >= _SMALL:
        return Tile(64, 16, 4, 1, 3)  # 4864 x 896: 30.5 us, of 8 blocks 32.6
    return Tile(32, 16, 4, 1, 3)  # 896 x 896: 15.2 us, 128 x 896: 14.0


def _is_light(proxy: Proxy) -> bool:
    """Whether phi costs little beside the traffic, so that a pipeline over a walk pays."""
    if isinstance(proxy, ChebyshevProxy):
        return proxy.degree <= HORNER_DEGREE
    return proxy_size(proxy) <= _FEW


_FEW = 8
"""Pieces of a table that is looked up by few comparisons."""
_SMALL, _MIDDLE = 2**22, 2**23
"""Entries of W between which shapes were measured."""
