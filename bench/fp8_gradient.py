"""Whether 8-bit products pay for the dense gradient G = dYᵀX, the product that LoRA does not have.

    python bench/fp8_gradient.py

Casting is part of it: on Hopper an 8-bit product wants both factors with the tokens last, so dY and
X are cast and transposed, with one scale a tensor that is known beforehand (of the step before, so
no pass for the maximum is counted). Prints microseconds, and how far G and the gradients of A and B
that come from it are from float32's.
"""

import torch
import triton
import triton.language as tl
from triton.testing import do_bench

SHAPES = ((2048, 4096, 4096), (8192, 4096, 4096), (8192, 14336, 4096), (8192, 896, 896))
"""Tokens, outputs, inputs."""
LARGEST = torch.finfo(torch.float8_e4m3fn).max


@triton.jit
def _cast_kernel(x, y, scale, rows, columns, R: tl.constexpr, C: tl.constexpr):
    """Y (columns, rows) in 8 bits from X (rows, columns), divided by `scale`."""
    row = tl.program_id(0) * R + tl.arange(0, R)
    column = tl.program_id(1) * C + tl.arange(0, C)
    inside = (row[:, None] < rows) & (column[None] < columns)
    tile = tl.load(x + row[:, None] * columns + column[None], mask=inside, other=0.0)
    tile = (tile.to(tl.float32) / scale).to(y.dtype.element_ty)
    tl.store(y + column[:, None] * rows + row[None], tl.trans(tile), mask=tl.trans(inside))


def cast(x: torch.Tensor, scale: float) -> torch.Tensor:
    """Xᵀ in 8 bits."""
    y = x.new_empty(x.shape[1], x.shape[0], dtype=torch.float8_e4m3fn)
    grid = (triton.cdiv(x.shape[0], 64), triton.cdiv(x.shape[1], 128))
    _cast_kernel[grid](x, y, scale, *x.shape, R=64, C=128)
    return y


def product(
    a: torch.Tensor, b: torch.Tensor, scale_a: torch.Tensor, scale_b: torch.Tensor
) -> torch.Tensor:
    """G from both factors in 8 bits with the tokens last."""
    return torch._scaled_mm(a, b.T, scale_a, scale_b, out_dtype=torch.bfloat16, use_fast_accum=True)


def measure(tokens: int, outputs: int, inputs: int, r: int = 16) -> None:
    """Print a row of the table."""
    torch.manual_seed(0)
    x = torch.randn(tokens, inputs, device="cuda", dtype=torch.bfloat16)
    dy = torch.randn(tokens, outputs, device="cuda", dtype=torch.bfloat16) * 1e-4
    scales = [float(t.abs().max()) / LARGEST for t in (dy, x)]
    on_device = [torch.tensor(s, device="cuda") for s in scales]
    small = cast(dy, scales[0]), cast(x, scales[1])
    found = product(*small, *on_device).float()
    exact = dy.float().T @ x.float()
    factors = [torch.randn(n, r, device="cuda") for n in (inputs, outputs)]
    errors = [found - exact, (found - exact) @ factors[0], (found - exact).T @ factors[1]]
    sizes = [exact, exact @ factors[0], exact.T @ factors[1]]
    shares = [float(e.norm() / s.norm()) for e, s in zip(errors, sizes, strict=True)]
    times = [
        do_bench(work, warmup=50, rep=300, return_mode="median") * 1000
        for work in (
            lambda: dy.T @ x,
            lambda: product(*small, *on_device),
            lambda: (cast(dy, scales[0]), cast(x, scales[1])),
            lambda: product(cast(dy, scales[0]), cast(x, scales[1]), *on_device),
        )
    ]
    figures = " ".join(f"{t:>10.1f}" for t in times) + " " + " ".join(f"{s:>8.4f}" for s in shares)
    print(f"{tokens:>6} {outputs:>6} {inputs:>6} {figures} {times[3] / times[0]:>6.2f}")


def main() -> None:
    """A row for each of `SHAPES`."""
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}, triton {triton.__version__}")
    print(f"{'tokens':>6} {'out':>6} {'in':>6} {'bfloat16':>10} {'8 bits':>10} {'casts':>10} "
          f"{'with casts':>10} {'of G':>8} {'of B':>8} {'of A':>8} {'ratio':>6}")  # fmt: skip
    for shape in SHAPES:
        measure(*shape)


if __name__ == "__main__":
    main()
