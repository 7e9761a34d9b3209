"""G = dYᵀX in 8 bits: its arithmetic, and where layers use it."""

import json
import math

import pytest
import torch
from peft import PeftModel, get_peft_model
from torch import Tensor, nn

import adapters
from adapters import BasisConfig
from adapters.basis.config import GRADIENT_DTYPES
from adapters.ops import dense_gradient as op
from adapters.ops import operators
from adapters.ops.dense_gradient import dense_gradient, emulated, takes_float8
from adapters.ops.linear import merged_linear
from adapters.ops.operators import gradients_of_factors
from bench.adapter.cases import case
from tests.adapters.older import saved_by

HALF_STEP, LEAST_HALF_STEP = 2.0**-4, 2.0**-10
"""Of e4m3: of a number itself, and of the smallest numbers, which have no more digits."""


@pytest.fixture
def small_ones_too(monkeypatch):
    """As if 8 bits paid for every size."""
    monkeypatch.setattr(op, "LEAST", 0)


def factors(
    n: int = 37, outputs: int = 48, inputs: int = 32, dtype: torch.dtype = torch.float32
) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(0)
    dy, x = (torch.randn(n, k, generator=draw) for k in (outputs, inputs))
    return (1e-4 * dy).to(dtype), x.to(dtype)


def off(got: Tensor, want: Tensor) -> float:
    return float((got.double() - want.double()).norm() / want.double().norm())


@pytest.mark.usefixtures("small_ones_too")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("sizes", [(1, 16, 16), (37, 48, 32), (300, 16, 112)], ids=str)
def test_each_entry_is_off_by_no_more_than_rounding(sizes, dtype):
    dy, x = factors(*sizes, dtype)
    x[:, 0] *= 1e-4  # down to where e4m3 runs out of digits
    wide, steps = [t.double().abs() for t in (dy, x)], []
    for t in wide:
        scale = float(t.max()) / 448
        steps.append((HALF_STEP * t).clamp(min=LEAST_HALF_STEP * scale))
    (of_dy, of_x), (step_dy, step_x) = wide, steps
    bound = step_dy.T @ of_x + of_dy.T @ step_x + step_dy.T @ step_x
    want = dy.double().T @ x.double()
    got = dense_gradient(dy, x, float8=True)
    assert got.dtype == dtype and got.shape == want.shape
    last = torch.finfo(dtype)
    bound += last.eps * want.abs() + 1e-5 * (of_dy.T @ of_x) + last.tiny
    assert ((got.double() - want).abs() <= bound).all()
    assert not torch.equal(got, dy.T @ x)


@pytest.mark.usefixtures("small_ones_too")
@pytest.mark.parametrize("size", [1.0, 1.3, 1e-4, 1e4])
def test_the_noise_of_both_factors_is_that_of_their_digits_and_no_bias(size):
    dy, x = factors(2048, 128, 96)
    want = dy.double().T @ x.double()
    got = dense_gradient(dy * size, x / size, float8=True).double()
    assert 0.0362 < off(got, want) < 0.0390  # sqrt(2) times 0.0265 of each factor
    assert abs(float((got * want).sum() / want.square().sum()) - 1) < 2e-3
    for draw in range(3):  # what is made of G is no farther off
        a = torch.randn(96, 4, generator=torch.Generator().manual_seed(draw)).double()
        assert 0.030 < off(got @ a, want @ a) < 0.045


@pytest.mark.parametrize(
    ("sizes", "dtype"),
    [
        ((5, 48, 32), torch.bfloat16),
        ((2, 3072, 3064), torch.float32),
        ((2, 3080, 3072), torch.float32),
        ((2, 3072, 3072), torch.float64),
    ],
    ids=["too small", "inputs", "outputs", "float64"],
)
def test_elsewhere_it_is_the_plain_product(sizes, dtype):
    dy, x = factors(*sizes, dtype)
    assert torch.equal(dense_gradient(dy, x, float8=True), dy.T @ x)


def test_the_default_is_the_plain_product():
    dy, x = factors(2, 3072, 3072)
    assert takes_float8(3072, 3072)
    assert torch.equal(dense_gradient(dy, x), dy.T @ x)
    assert not torch.equal(dense_gradient(dy, x, float8=True), dy.T @ x)


@pytest.mark.parametrize(
    ("sizes", "pays"),
    [((4096, 4096), True), ((14336, 4096), True), ((8192, 2048), True),
     ((1024, 4096), False), ((2048, 2048), False), ((896, 896), False), ((4864, 896), False)],
    ids=str,
)  # fmt: skip
def test_large_layers_take_8_bits_whichever_side_is_longer(sizes, pays):
    assert takes_float8(*sizes) == takes_float8(*sizes[::-1]) == pays


@pytest.mark.usefixtures("small_ones_too")
def test_nothing_gives_nothing():
    dy, x = factors()
    for zero in ((0 * dy, x), (dy, 0 * x), (0 * dy, 0 * x), (dy[:0], x[:0])):
        assert torch.equal(dense_gradient(*zero, float8=True), torch.zeros(48, 32))


@pytest.mark.usefixtures("small_ones_too")
@pytest.mark.parametrize("bad", [math.inf, -math.inf, math.nan])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("which", [0, 1])
def test_what_is_not_finite_shows(which, dtype, bad):
    pair = factors(dtype=dtype)
    pair[which][3, 4] = bad
    assert dense_gradient(*pair, float8=True).isnan().all()
    assert all(part.float().isnan().all() for part in emulated.cast(pair[which]))


@pytest.mark.usefixtures("small_ones_too")
@pytest.mark.parametrize("sizes", [(1e-24, 1.0), (1e30, 1e-20), (1e34, 1e3), (1e-20, 1e-10)])
def test_tiny_and_huge_factors_lose_no_more(sizes):
    dy, x = factors()
    want = dy.double().T @ x.double()
    got = dense_gradient(dy * sizes[0], x * sizes[1], float8=True)
    assert off(got.double() / sizes[0] / sizes[1], want) < 0.045


@pytest.mark.usefixtures("small_ones_too")
def test_below_the_least_scale_it_fades_and_nothing_else():
    dy, x = factors()
    got = dense_gradient(dy * 1e-36, x, float8=True)
    assert got.isfinite().all() and got.abs().max() < 1e-36


def layer_case(dtype: torch.dtype = torch.float32) -> tuple:
    made = case("sinc", 0.05, (48, 32), 4, "cpu")
    b, a = (t.detach().requires_grad_() for t in (made.b, made.a))
    coefficients = made.proxy.coefficients.detach().requires_grad_()
    proxy = made.proxy.rebuilt((coefficients, *made.proxy.tensors[1:]))
    w = torch.randn(48, 32).to(dtype)
    dy, x = factors(3 * 7, dtype=dtype)
    return dy.view(3, 7, 48), x.view(3, 7, 32).requires_grad_(), w, b, a, proxy


@pytest.mark.usefixtures("small_ones_too")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_gradients_of_b_a_and_phi_are_made_of_it_and_all_else_is_as_it_was(dtype):
    dy, x, w, b, a, proxy = layer_case(dtype)
    leaves = [x, b, a, proxy.coefficients]
    told = []
    for float8 in (False, True):
        y = merged_linear(x, w, torch.ones(48, dtype=dtype), b, a, proxy, 0.7, float8=float8)
        told.append([y, *torch.autograd.grad(y, leaves, dy)])
    for one, other in zip(told[0][:2], told[1][:2], strict=True):
        assert torch.equal(one, other)
    with torch.no_grad():
        for found, float8 in zip(told, (False, True), strict=True):
            grad = dense_gradient(dy, x, float8=float8)
            want = gradients_of_factors(grad, b, a, proxy, 0.7)
            for one, other in zip(found[2:], want, strict=True):
                assert torch.equal(one, other)
    assert not torch.equal(told[0][2], told[1][2])


@pytest.mark.usefixtures("small_ones_too")
def test_under_autocast_it_is_of_autocasts_numbers():
    dy, x, w, b, a, proxy = layer_case()
    with torch.autocast("cpu", torch.bfloat16):
        y = merged_linear(x, w, None, b, a, proxy, 0.7, float8=True)
        inside = torch.autograd.grad(y, [b, a], dy.bfloat16(), retain_graph=True)
    outside = torch.autograd.grad(y, [b, a], dy.bfloat16())
    with torch.no_grad():
        grad = emulated.dense_gradient(dy.bfloat16().flatten(0, 1), x.bfloat16().flatten(0, 1))
        want = gradients_of_factors(grad, b, a, proxy, 0.7)
    for one, other, third in zip(inside, outside, want, strict=False):
        assert torch.equal(one, other) and torch.equal(one, third)


@pytest.mark.usefixtures("small_ones_too")
def test_a_trained_weight_has_all_its_digits():
    dy, x, w, b, a, proxy = layer_case()
    leaves = [w.requires_grad_(), b, a, proxy.coefficients]
    told = []
    for float8 in (False, True):
        y = merged_linear(x, w, None, b, a, proxy, 0.7, float8=float8)
        told.append(torch.autograd.grad(y, leaves, dy))
    assert all(torch.equal(one, other) for one, other in zip(*told, strict=True))


@pytest.mark.slow
@pytest.mark.usefixtures("small_ones_too", "fresh_compiler")
def test_a_full_graph_has_eagers_bits():
    dy, x, w, b, a, proxy = layer_case()
    leaves = [x, b, a, proxy.coefficients]

    def layer(x: Tensor, b: Tensor, a: Tensor, coefficients: Tensor) -> Tensor:
        own = proxy.rebuilt((coefficients, *proxy.tensors[1:]))
        return merged_linear(x, w, None, b, a, own, 0.7, float8=True)

    told = []
    for function in (layer, torch.compile(layer, fullgraph=True, backend="aot_eager")):
        y = function(*leaves)
        told.append([y, *torch.autograd.grad(y, leaves, dy)])
    for one, other in zip(*told, strict=True):
        assert torch.equal(one, other)
    with torch.no_grad():
        rest = (x, w, b, a, *operators.numbers(proxy), 0.7, None, True, False, True)
        torch.library.opcheck(operators.linear_backward, (dy, *rest))


class Net(nn.Module):
    """Three linear layers, one of a size that 8-bit products do not take, and an embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(10, 16)
        self.one, self.two, self.odd = nn.Linear(16, 32), nn.Linear(32, 16), nn.Linear(16, 7)

    def forward(self, ids: Tensor) -> Tensor:
        return self.odd(self.two(torch.tanh(self.one(self.words(ids)))))


IDS = torch.arange(12).view(2, 6) % 10
NAMES = ["words", "one", "two", "odd"]


def net(dtype: torch.dtype = torch.float32, names: list[str] = NAMES, **options) -> PeftModel:
    torch.manual_seed(0)
    options = {"r": 2, "target_modules": names, "init_weights": False, **options}
    return get_peft_model(Net().to(dtype), BasisConfig(**options)).train()


@pytest.mark.usefixtures("small_ones_too")
@pytest.mark.parametrize(
    "options",
    [{}, {"path": "split"}, {"dropout": 0.1}, {"merge_once": True}, {"rounding": "stochastic"}],
    ids=str,
)
def test_every_path_of_linear_layers_takes_it(monkeypatch, options):
    calls, true = [], emulated.dense_gradient

    def counted(dy: Tensor, x: Tensor) -> Tensor:
        calls.append((dy.shape[1], x.shape[1]))
        return true(dy, x)

    monkeypatch.setattr(emulated, "dense_gradient", counted)
    for dtype, expected in (("working", []), ("float8", [(16, 32), (32, 16)])):
        calls.clear()
        net(torch.bfloat16, gradient_dtype=dtype, **options)(IDS).square().sum().backward()
        assert calls == expected


def test_it_is_saved_and_loaded_and_read_from_a_flat_mapping(small_ones_too, tmp_path):
    mapping = {"method": "basis", "target_modules": NAMES, "gradient_dtype": "float8"}
    torch.manual_seed(0)
    model = adapters.attach(Net(), mapping)
    model.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "adapter_config.json").read_text())["gradient_dtype"] == "float8"
    torch.manual_seed(0)
    again = PeftModel.from_pretrained(Net(), tmp_path, is_trainable=True)
    assert again.base_model.model.one.execution["default"].float8
    assert torch.equal(again(IDS), model(IDS))


def test_settings_from_before_8_bits_still_load(tmp_path):
    model = net()
    model.save_pretrained(tmp_path)
    saved_by(tmp_path, 3, "gradient_dtype")
    torch.manual_seed(0)
    again = PeftModel.from_pretrained(Net(), tmp_path)
    assert torch.equal(again(IDS), model(IDS))
    assert not again.base_model.model.one.execution["default"].float8


def test_a_model_without_a_layer_for_it_is_refused(monkeypatch, tmp_path):
    with pytest.raises(ValueError, match=r"the largest is 32 x 16\. Take gradient_dtype 'working'"):
        net(gradient_dtype="float8")
    monkeypatch.setattr(op, "LEAST", 0)
    with pytest.raises(ValueError, match="adapted ones, there is none"):
        net(names=["words"], gradient_dtype="float8")
    with pytest.raises(ValueError, match="the largest is 7 x 16"):
        net(names=["words", "odd"], gradient_dtype="float8")
    net(gradient_dtype="float8").save_pretrained(tmp_path)
    monkeypatch.undo()
    PeftModel.from_pretrained(Net(), tmp_path)  # what answers has no gradients


@pytest.mark.parametrize("given", ["float8_e4m3fn", "bfloat16"])
def test_another_dtype_is_refused(given):
    with pytest.raises(ValueError, match="`gradient_dtype` must be one of working, float8, got"):
        BasisConfig(gradient_dtype=given)


def trained(dtype: str, seed: int) -> float:
    """The loss of the last steps towards another layer, on batches of a seed; 1 at first."""
    torch.manual_seed(0)
    base = nn.Sequential(nn.Linear(48, 32, bias=False))
    config = BasisConfig(r=4, alpha=8, target_modules=["0"], gradient_dtype=dtype, num_basis=8)
    model = get_peft_model(base, config).train()
    target = base[0].base_layer.weight + 0.1 * torch.randn(32, 3) @ torch.randn(3, 48)
    optimizer = torch.optim.AdamW(adapters.parameter_groups(model, 1e-2))
    draw, told = torch.Generator().manual_seed(seed), []
    for _ in range(100):
        x = torch.randn(64, 48, generator=draw)
        loss = (model(x) - x @ target.detach().T).square().mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        told.append(loss.item())
    return sum(told[-20:]) / 20 / told[0]


@pytest.mark.usefixtures("small_ones_too")
def test_training_ends_at_the_loss_of_full_products():
    plain, small = ([trained(dtype, seed) for seed in range(2)] for dtype in GRADIENT_DTYPES)
    spread = max(plain) - min(plain)
    assert max(plain) < 1e-2
    assert abs(sum(small) - sum(plain)) / 2 < spread / 10


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU runs the kernel itself")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("shape", [(1, 1), (33, 70), (130, 257)], ids=str)
def test_the_kernel_transposes_and_fills_up(shape, dtype):
    """In the interpreter, whose rounding is wrong: so with numbers that e4m3 has."""
    pytest.importorskip("triton")
    from adapters.ops.dense_gradient import fused

    x = torch.randn(shape).clamp(-2, 2).to(emulated.E4M3).to(dtype)
    x[0, 0] = 448 / 2**7
    for given in (x, x.T.contiguous().T, x[:, :1].expand(shape)):
        got, scale = fused.cast(given)
        want, other = emulated.cast(given)
        assert torch.equal(scale, other)
        assert torch.equal(got[:, : shape[0]].float(), want.T.float())
        assert got.shape[1] % 16 == 0 and not got[:, shape[0] :].float().any()
    dy = x.roll(1, 0)[:, :1].repeat(1, 16)
    wide = x[:, :1].repeat(1, 32)
    torch.testing.assert_close(
        fused.dense_gradient(dy, wide), emulated.dense_gradient(dy, wide), rtol=1e-2, atol=0
    )
    x[0, 0] = math.inf
    assert fused.cast(x)[1].isnan()
