"""G = dYᵀX by a GPU's 8-bit products: the cast bit for bit, the product, graphs of both kinds."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from adapters.ops import dense_gradient as op
from adapters.ops.dense_gradient import dense_gradient, emulated
from adapters.ops.linear import merged_linear
from bench.adapter.cases import case
from bench.adapter.timing import captured

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(
        not (torch.cuda.is_available() and op.has_products(torch.device("cuda"))),
        reason="needs a CUDA device with 8-bit products: capability 8.9 or higher",
    ),
]
DTYPES = [torch.bfloat16, torch.float16, torch.float32]


@pytest.fixture(autouse=True)
def small_ones_too(monkeypatch):
    monkeypatch.setattr(op, "LEAST", 0)


def drawn(*shape: int, dtype: torch.dtype = torch.bfloat16, size: float = 1.0) -> Tensor:
    draw = torch.Generator().manual_seed(sum(shape))
    return (size * torch.randn(shape, generator=draw)).to(dtype).cuda()


def off(got: Tensor, want: Tensor) -> float:
    return float((got.double() - want.double()).norm() / want.double().norm())


def same_cast(x: Tensor) -> None:
    from adapters.ops.dense_gradient import fused

    n = len(x)
    (got, scale), (want, other) = fused.cast(x), emulated.cast(x)
    assert torch.equal(scale, other)
    assert torch.equal(got[:, :n].view(torch.uint8), want.T.contiguous().view(torch.uint8))
    assert got.shape[1] % 16 == 0 and not got[:, n:].float().any()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(1, 16), (7, 16), (33, 70), (64, 128), (130, 257), (1000, 896)])
def test_the_cast_has_torchs_bits(shape, dtype):
    x = drawn(*shape, dtype=dtype)
    same_cast(x)
    same_cast(x.T.contiguous().T)
    same_cast(x[:1].expand(shape))
    same_cast(0 * x)
    spread = torch.logspace(-14, 4, x.numel(), base=2, device="cuda").view(shape)
    same_cast((spread * x.float().sign()).to(dtype))  # into the numbers with fewer digits, and zero


@pytest.mark.parametrize("size", [1e-36, 1e-20, 1e30])
def test_the_cast_of_tiny_and_huge_numbers_has_torchs_bits(size):
    same_cast(drawn(33, 70, size=size))
    same_cast(drawn(33, 70, size=size, dtype=torch.float32))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("sizes", [(1, 16, 16), (37, 48, 32), (515, 256, 1008)], ids=str)
def test_the_product_is_the_emulated_one(sizes, dtype):
    n, outputs, inputs = sizes
    dy, x = drawn(n, outputs, dtype=dtype, size=1e-2), drawn(n, inputs, dtype=dtype)
    got = dense_gradient(dy, x, float8=True)
    assert got.dtype == dtype and got.shape == (outputs, inputs)
    # products are added up with fewer bits than float32's, and rounded to dtype
    assert off(got, emulated.dense_gradient(dy.float(), x.float())) < 1e-2
    batched = dense_gradient(dy[None], x[None], float8=True)
    assert torch.equal(got, batched), "the same bits again, and of three dimensions"


def test_the_noise_is_that_of_both_roundings():
    dy, x = drawn(8192, 512, size=1e-4), drawn(8192, 768)
    want = dy.double().T @ x.double()
    got = dense_gradient(dy, x, float8=True).double()
    assert 0.035 < off(got, want) < 0.040
    assert abs(float((got * want).sum() / want.square().sum()) - 1) < 1e-2


@pytest.mark.parametrize("tokens", [512, 8192, 32768])
def test_sums_without_cancellation_keep_their_digits(tokens):
    """Fast accumulation is 18 % short at 32768 tokens."""
    dy, x = drawn(tokens, 256).abs(), drawn(tokens, 256).abs()
    assert off(dense_gradient(dy, x, float8=True), dy.double().T @ x.double()) < 5e-3


@pytest.mark.parametrize("bad", [math.inf, -math.inf, math.nan])
@pytest.mark.parametrize("which", [0, 1])
def test_what_is_not_finite_shows_and_zero_is_zero(which, bad):
    pair = [drawn(64, 48), drawn(64, 32)]
    pair[which][3, 4] = bad
    assert dense_gradient(*pair, float8=True).isnan().all()
    pair[which].zero_()
    assert not dense_gradient(*pair, float8=True).any()


def test_repeatable_bits_are_allowed():
    dy, x = drawn(100, 48), drawn(100, 32)
    want = dense_gradient(dy, x, float8=True)
    torch.use_deterministic_algorithms(True, warn_only=True)  # fills what is empty
    try:
        got = dense_gradient(dy, x, float8=True)
    finally:
        torch.use_deterministic_algorithms(False)
    assert torch.equal(got, want)


def test_a_graph_measures_its_scale_anew():
    dy, x = drawn(100, 48), drawn(100, 32)
    held: list[Tensor] = []

    def step() -> None:
        held[:] = [dense_gradient(dy, x, float8=True)]

    replay = captured(step)
    for size in (1.0, 1e-3, 1e4):
        dy.mul_(size)
        x.copy_(x.roll(1, 0))
        replay()
        assert off(held[0], dense_gradient(dy, x, float8=True)) < 2e-3
    dy[0, 0] = math.inf
    replay()
    assert held[0].isnan().all()


@pytest.mark.usefixtures("fresh_compiler")
@pytest.mark.parametrize("mode", ["default", "reduce-overhead"])
def test_a_compiled_layer_has_eagers_gradients(mode):
    made = case("sinc", 0.05, (96, 160), 8, "cuda")
    w, x = drawn(96, 160), drawn(3, 50, 160).requires_grad_()
    leaves = [x, *(t.detach().clone().requires_grad_() for t in (made.b, made.a))]
    leaves.append(made.proxy.coefficients.detach().clone().requires_grad_())

    def layer(x: Tensor, b: Tensor, a: Tensor, coefficients: Tensor) -> Tensor:
        proxy = made.proxy.rebuilt((coefficients, *made.proxy.tensors[1:]))
        return merged_linear(x, w, None, b, a, proxy, 0.7, float8=True)

    def told(function: Callable[..., Tensor]) -> list[Tensor]:
        torch.compiler.cudagraph_mark_step_begin()
        y = function(*leaves)
        dy = drawn(3, 50, 96)
        return [t.clone() for t in (y.detach(), *torch.autograd.grad(y, leaves, dy))]

    want = told(layer)
    compiled = torch.compile(layer, fullgraph=True, mode=mode)
    for _ in range(4):  # warmed up, recorded, replayed
        for one, other in zip(told(compiled), want, strict=True):
            assert off(one, other) < 1e-3
