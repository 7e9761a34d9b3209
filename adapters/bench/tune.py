"""The time of every candidate tile on this GPU; correctness first."""

import itertools
from typing import Any

import torch

from adapters.bench.cases import KINDS, kind
from adapters.bench.kernels import RANK, SQUARE, TALL
from adapters.bench.timing import median_us
from adapters.ops.merge.tiles import GRADIENT_CANDIDATES, MERGE_CANDIDATES, Tile
from basis_zoo.proxy import proxy_size

SHAPES = (SQUARE, TALL, (4864, 896), (896, 896))
_KEPT = 6
"""Tiles of the first shape that are tried at the others."""


def tune(quick: bool) -> list[dict[str, Any]]:
    """All candidates at 4096 x 4096, the best at other shapes; prints the fastest of each."""
    told: list[dict[str, Any]] = []
    kinds = list(KINDS)[1:2] if quick else list(KINDS)
    for shape, name, what in itertools.product(SHAPES, kinds, ("merge", "gradient")):
        tiles = MERGE_CANDIDATES if what == "merge" else GRADIENT_CANDIDATES
        if shape != SHAPES[0]:
            seen = [r for r in told if r["kind"] == name and r["what"] == what]
            best = sorted((r for r in seen if r["shape"] == SHAPES[0]), key=lambda r: r["us"])
            # the winner of a large matrix may leave a small one idle: those of one block stay in
            plain = [tile for tile in tiles if tile.chunks == 1]
            tiles = tuple(dict.fromkeys([Tile(*r["tile"]) for r in best[:_KEPT]] + plain))
        rows = [_timed(tile, shape, name, what, quick) for tile in tiles]
        rows.sort(key=lambda r: r["us"])
        told += rows
        shown = "  ".join(f"{r['us']:.1f} {tuple(r['tile'])}" for r in rows[:4])
        print(f"{shape[0]} x {shape[1]}, {what}, {name} ({rows[0]['size']}): {shown}", flush=True)
    return told


def _timed(tile: Tile, shape: tuple[int, int], name: str, what: str, quick: bool) -> dict[str, Any]:
    """Microseconds with one tile; infinite where it needs more than the GPU has."""
    from triton.runtime.errors import OutOfResources

    from adapters.ops.merge import fused

    b, a, proxy, _ = kind(name, shape, RANK, "cuda")
    w = (0.02 * torch.randn(shape, device="cuda")).bfloat16()
    op = fused.merged_weight if what == "merge" else fused.merge_gradients
    try:
        us = median_us(lambda: op(w, b, a, proxy, 1.0, tile=tile), "cuda", quick=quick)
    except OutOfResources:
        us = float("inf")
    return {
        "shape": list(shape), "kind": name, "what": what, "size": proxy_size(proxy),
        "tile": list(tile), "us": us,
    }  # fmt: skip
