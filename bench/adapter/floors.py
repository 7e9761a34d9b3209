"""What this device can do at best: measured ceilings of memory traffic and of products."""

import functools
from typing import NamedTuple

import torch

from bench.adapter.record import Row, Run
from bench.adapter.timing import median_us


class Ceilings(NamedTuple):
    """Measured, not from a data sheet."""

    bytes_per_second: float
    """Read and written by a copy."""
    flops: float
    """Of a dense bfloat16 product, a multiplication and an addition counted as two."""

    @classmethod
    @functools.cache
    def measured(cls, device: str, quick: bool) -> "Ceilings":
        """A copy of 256 MiB and a product of 8192 matrices; less on a CPU."""
        size, side = (2**28, 8192) if device == "cuda" else (2**25, 512)
        source = torch.zeros(size, dtype=torch.uint8, device=device)
        copy = functools.partial(torch.empty_like(source).copy_, source)
        matrix = torch.randn(side, side, device=device).bfloat16()
        out = torch.empty_like(matrix)
        product = functools.partial(torch.mm, matrix, matrix, out=out)
        seconds = [1e-6 * median_us(call, device, quick=quick) for call in (copy, product)]
        return cls(2 * size / seconds[0], 2 * side**3 / seconds[1])


def floors(run: Run, device: str, quick: bool) -> None:
    """The two ceilings that the notes of the other rows refer to."""
    ceilings = Ceilings.measured(device, quick)
    run.add(
        Row("floors", "memory, GB/s read and written by a copy", ceilings.bytes_per_second / 1e9),
        Row("floors", "bf16 product, TFLOP/s", ceilings.flops / 1e12),
    )
