"""The time of every candidate tile on this GPU; correctness first."""

import itertools
import multiprocessing
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from typing import TYPE_CHECKING, Any, cast

import torch

from adapters.ops.merge.tiles import Tile
from basis_zoo.proxy import proxy_size
from bench.adapter.cases import KINDS, RANK, kind
from bench.adapter.checks import What, tile_errors
from bench.adapter.kernels import SQUARE, TALL
from bench.adapter.timing import median_us

if TYPE_CHECKING:
    from adapters.ops.merge.fused.evaluation import Fusable

SHAPES = (SQUARE, TALL, (4864, 896), (896, 896))
_SIZES: dict[What, tuple[tuple[int, int, int, int, int], ...]] = {
    "merge": (
        (64, 128, 1, 8, 1), (64, 128, 1, 4, 1), (64, 64, 1, 4, 1), (32, 64, 1, 4, 1),
        (64, 64, 4, 4, 1), (64, 64, 4, 4, 3), (64, 128, 4, 8, 2), (64, 128, 4, 8, 3),
        (32, 128, 4, 4, 3), (32, 256, 4, 4, 2), (16, 256, 4, 4, 3), (128, 64, 4, 8, 3),
        (128, 128, 2, 8, 2), (32, 64, 8, 2, 3), (64, 64, 8, 4, 4), (16, 128, 8, 2, 3),
        (32, 128, 1, 4, 1), (32, 128, 2, 4, 2), (32, 128, 4, 4, 2), (32, 128, 8, 4, 3),
        (32, 128, 8, 4, 2), (32, 64, 4, 2, 2), (64, 128, 2, 4, 2), (32, 256, 4, 8, 2),
    ),
    "gradient": (
        (64, 16, 16, 1, 3), (64, 16, 8, 1, 3), (64, 16, 32, 1, 3), (64, 16, 16, 1, 2),
        (32, 32, 16, 1, 3), (32, 32, 8, 1, 3), (32, 16, 32, 1, 3), (32, 16, 16, 1, 3),
        (32, 16, 8, 1, 3), (64, 32, 16, 4, 3), (64, 32, 8, 4, 3), (64, 16, 4, 1, 3),
        (128, 32, 16, 4, 3), (128, 32, 8, 4, 3), (64, 64, 8, 4, 1), (64, 64, 8, 4, 2),
        (64, 64, 8, 4, 3), (64, 64, 4, 4, 3), (64, 16, 2, 1, 2), (64, 64, 16, 4, 3),
        (32, 32, 4, 1, 3), (64, 32, 8, 1, 3), (32, 16, 4, 1, 3), (64, 32, 2, 4, 1),
    ),
}  # fmt: skip
CANDIDATES = {what: tuple(Tile(*each) for each in sizes) for what, sizes in _SIZES.items()}
_BEST = 6
"""Tiles of the first shape that are tried at the others."""


_COMPILERS = 16
"""Processes that compile at once, at most."""


def tune(quick: bool) -> Iterator[list[dict[str, Any]]]:
    """All candidates at 4096 x 4096, the best at other shapes; prints the fastest of each.

    Yields what is known so far after each line.
    """
    rows_so_far: list[dict[str, Any]] = []
    kinds = list(KINDS)[1:2] if quick else list(KINDS)
    compile_all(kinds)
    for shape, name, what in itertools.product(SHAPES, kinds, CANDIDATES):
        tiles = CANDIDATES[what]
        if shape != SHAPES[0]:
            own_rows = [r for r in rows_so_far if r["kind"] == name and r["what"] == what]
            best = sorted(
                (r for r in own_rows if r["shape"] == list(SHAPES[0])), key=lambda r: r["us"]
            )
            # the winner of a large matrix may leave a small one idle: those of few blocks stay in
            short = [tile for tile in tiles if tile.chunks <= (1 if what == "merge" else 4)]
            tiles = tuple(dict.fromkeys([Tile(*r["tile"]) for r in best[:_BEST]] + short))
        rows = [_timed(tile, shape, name, what, quick) for tile in tiles]
        rows.sort(key=lambda r: r["us"])
        rows_so_far += rows
        fastest = "  ".join(f"{r['us']:.1f} {tuple(r['tile'])}" for r in rows[:4])
        print(f"{shape[0]} x {shape[1]}, {what}, {name} ({rows[0]['size']}): {fastest}", flush=True)
        yield rows_so_far


def compile_all(kinds: list[str]) -> None:
    """Fill Triton's cache from several processes: compiling one by one takes most of the time."""
    jobs = [(t, name, what) for name in kinds for what, tiles in CANDIDATES.items() for t in tiles]
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(_COMPILERS, os.cpu_count() or 1), spawn) as pool:
        list(pool.map(_compile, jobs))


def _compile(job: tuple[Tile, str, What]) -> None:
    tile, name, what = job
    _calls(tile, SHAPES[0], name, what, lambda call: call())


def _timed(
    tile: Tile, shape: tuple[int, int], name: str, what: What, quick: bool
) -> dict[str, Any]:
    """Microseconds with one tile; infinite where it is wrong or needs more than the GPU has."""
    us, size = _calls(tile, shape, name, what, lambda call: median_us(call, "cuda", quick=quick))
    if shape == SHAPES[0] and us is not None and (errors := tile_errors(tile, shape, name, what)):
        print(f"WRONG {what}, {name}, {tuple(tile)}: {errors}", flush=True)
        us = None
    return {
        "shape": list(shape), "kind": name, "what": what, "size": size, "tile": list(tile),
        "us": float("inf") if us is None else us,
    }  # fmt: skip


def _calls(
    tile: Tile,
    shape: tuple[int, int],
    name: str,
    what: What,
    use: Callable[[Callable[[], Any]], Any],
) -> tuple[Any, int]:
    """What `use` makes of a kernel's call, None where it does not fit, and the proxy's size."""
    from triton.runtime.errors import OutOfResources

    from adapters.ops.merge import fused

    b, a, any_proxy, _ = kind(name, shape, RANK, "cuda")
    proxy = cast("Fusable", any_proxy)  # no kind needs phi itself
    w = (0.02 * torch.randn(shape, device="cuda")).bfloat16()
    op = fused.merged_weight if what == "merge" else fused.merge_gradients
    try:
        return use(lambda: op(w, b, a, proxy, 1.0, tile=tile)), proxy_size(proxy)
    except OutOfResources:
        return None, proxy_size(proxy)
