"""Block sizes of the fused kernels, and the measurement that chose them."""

from typing import NamedTuple

from basis_zoo.proxy import ChebyshevProxy, Proxy


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


MERGE_CANDIDATES = tuple(
    Tile(*sizes)
    for sizes in (
        (64, 128, 1, 8, 1), (64, 128, 1, 4, 1), (64, 64, 1, 4, 1), (32, 64, 1, 4, 1),
        (64, 64, 4, 4, 1), (64, 64, 4, 4, 3), (64, 128, 4, 8, 2), (64, 128, 4, 8, 3),
        (32, 128, 4, 4, 3), (32, 256, 4, 4, 2), (16, 256, 4, 4, 3), (128, 64, 4, 8, 3),
        (128, 128, 2, 8, 2), (32, 64, 8, 2, 3), (64, 64, 8, 4, 4), (16, 128, 8, 2, 3),
        (32, 128, 1, 4, 1), (32, 128, 2, 4, 2), (32, 128, 4, 4, 2), (32, 128, 8, 4, 3),
        (32, 128, 8, 4, 2), (32, 64, 4, 2, 2), (64, 128, 2, 4, 2), (32, 256, 4, 8, 2),
    )
)  # fmt: skip
"""What the tuning run tries."""

GRADIENT_CANDIDATES = tuple(
    Tile(*sizes)
    for sizes in (
        (64, 64, 8, 4, 1), (64, 64, 8, 4, 2), (64, 64, 8, 4, 3), (32, 64, 8, 4, 2),
        (64, 32, 8, 4, 3), (128, 64, 4, 8, 2), (128, 32, 8, 4, 3), (128, 32, 8, 8, 3),
        (64, 128, 4, 8, 2), (32, 128, 8, 4, 2), (64, 64, 16, 4, 3), (64, 64, 4, 4, 3),
        (32, 32, 16, 1, 3), (64, 64, 8, 8, 3), (32, 64, 8, 2, 3), (128, 64, 8, 4, 2),
    )
)  # fmt: skip


# The choices below follow bench/results/tiles_h200.json (bf16, r 16, BA in plain tf32, before the
# kernels went over to tf32x3); `python -m adapters.bench tune` measures them anew. Above rank 16 no
# times are known: tiles are those that fit into registers and 96 KiB of shared memory.


def merge_tile(rows: int, columns: int, rank: int, proxy: Proxy) -> Tile:
    """The tile for W of (rows, columns) and a padded rank."""
    if rank > 64:
        return Tile(16, 32, 8, 8, 1)
    if rank > 32:
        return Tile(32, 64, 1, 4, 1)
    if _MIDDLE <= rows * columns < _LARGE:
        return Tile(32, 64, 8, 2, 3)  # 4096 x 4096: 25.3 us, table 32.5 (one chunk: 34.6)
    if isinstance(proxy, ChebyshevProxy) and rows * columns < _MIDDLE:
        return Tile(64, 64, 1, 4, 1)  # 4864 x 896: 12.0 us, (64, 128, 1, 8, 1): 14.0
    return Tile(32, 64, 1, 4, 1)  # 14336 x 4096: 84.1 us, (64, 128, 1, 4, 1): 98.1


def gradient_tile(rows: int, columns: int, rank: int, proxy: Proxy) -> Tile:
    """The tile for G of (rows, columns) and a padded rank."""
    size = rows * columns
    chunks = 8 if size >= _SMALL else 2
    if rank > 64:
        return Tile(16, 16, chunks, 8, 1)
    if rank > 16:
        return Tile(32, 32, chunks, 4, 1)
    if _MIDDLE <= size < _LARGE:
        return Tile(32, 32, 16, 1, 3)  # 4096 x 4096: 71.2 us, (64, 64, 8, 4, 1): 79.0
    if isinstance(proxy, ChebyshevProxy) and _SMALL <= size < _MIDDLE:
        return Tile(64, 32, 8, 4, 3)  # 4864 x 896: 38.6 us, (64, 64, 8, 4, 1): 41.7
    return Tile(64, 64, chunks, 4, 1)  # 14336 x 4096: 255 us, the best of all 253


_SMALL, _MIDDLE, _LARGE = 2**22, 2**23, 2**25
"""Entries of W between which shapes were measured."""
