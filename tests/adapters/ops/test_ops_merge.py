"""The fused merge against the float64 reference: values and all gradients."""

import contextlib
import itertools

import pytest
import torch

from adapters.ops.merge import reference
from adapters.ops.merge.tiles import Tile
from basis_zoo import get_basis, get_grid, get_start, list_bases
from basis_zoo.nonlinearity import Nonlinearity
from basis_zoo.proxy import ChebyshevProxy, TableProxy, fit_proxy, range_radius
from bench.adapter.cases import KINDS
from bench.adapter.checks import LIMITS, tile_errors
from bench.adapter.tune import CANDIDATES

pytestmark = pytest.mark.slow

ON_GPU = torch.cuda.is_available()
pytest.importorskip("triton", reason="triton is not installed: pip install triton")

OutOfResources = pytest.importorskip("triton.runtime.errors").OutOfResources
fused = pytest.importorskip("adapters.ops.merge.fused")
DEVICE = "cuda" if ON_GPU else "cpu"
KINDS_OF_PHI = ("sinc", "hat", "walsh", "rational")
"""Smooth, with kinks, with jumps, not linear: kernels see the proxy alone."""
OTHERS = [
    pytest.param(name, marks=pytest.mark.thorough)
    for name in list_bases()
    if name not in KINDS_OF_PHI
]
SMALL = Tile(16, 32, 2, 4, 1)
SHAPES = [(1, 1, 1), (5, 129, 8), (33, 70, 3), (70, 17, 20)]
TOLERANCE = {torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 8e-3}
"""Relative RMS error of W': that of one rounding, times two (the interpreter truncates)."""


def _nonlinearity(name: str, seed: int) -> Nonlinearity:
    torch.manual_seed(seed)
    basis = get_basis(name)
    module = Nonlinearity(basis, get_grid("uniform"), get_start("anchored"), bandwidth="spacing")
    torch.nn.init.normal_(module.amplitude)
    return module.to(DEVICE)


def _case(name: str, radius: float, shape: tuple, seed: int = 0):
    """Factors whose product reaches about `radius`, and the proxy."""
    module = _nonlinearity(name, seed)
    m, n, r = shape
    b, a = torch.randn(m, r, device=DEVICE), torch.randn(r, n, device=DEVICE)
    b = b * (radius / range_radius(b, a)) * 0.9999
    # off the ends of the range, where T_p' = p^2 magnifies the rounding of u
    fit = fit_proxy(module.phi, module.parameters_in_force(), 1.25 * range_radius(b, a))
    return b, a, fit.proxy.rebuilt(tuple(t.detach() for t in fit.proxy.tensors))


def _error(got, want) -> float:
    return float((got.double() - want.double()).norm() / want.double().norm().clamp_min(1e-30))


def _check(b, a, proxy, dtype, tile=SMALL):
    w = torch.randn(len(b), a.shape[1], device=DEVICE).to(dtype)
    g = torch.randn(len(b), a.shape[1], device=DEVICE).to(dtype)
    got = fused.merged_weight(w, b, a, proxy, 1.7, precision="ieee", tile=tile)
    want = reference.merged_weight(w.double(), b.double(), a.double(), proxy, 1.7)
    assert got.dtype == dtype
    assert _error(got, want) < TOLERANCE[dtype], "W'"
    got = fused.merge_gradients(g, b, a, proxy, 1.7, precision="ieee", tile=tile)
    want = reference.merge_gradients(g.double(), b.double(), a.double(), proxy, 1.7)
    for name, one, other in zip(("dB", "dA", "dc"), got, want, strict=True):
        assert one.shape == other.shape
        assert _error(one, other) < 1e-5, f"{name} of {type(proxy).__name__}"


@pytest.mark.parametrize(
    ("name", "radius", "shape"),
    [
        # a high degree on large shapes is slow in Triton's interpreter
        pytest.param(*case, shape, marks=[pytest.mark.thorough] * (case[1] == 3.0 and n > 1))
        for case in [("sinc", 0.05), ("sinc", 3.0), ("hat", 0.1)]
        for n, shape in enumerate(SHAPES)
    ],
)
def test_shapes(name, radius, shape):
    _check(*_case(name, radius, shape), torch.float32)


@pytest.mark.parametrize("dtype", list(TOLERANCE), ids=str)
@pytest.mark.parametrize(("name", "radius"), [("sinc", 0.05), ("relu", 0.3)])
def test_dtypes(name, radius, dtype):
    _check(*_case(name, radius, (18, 33, 4)), dtype)


@pytest.mark.parametrize("name", [*KINDS_OF_PHI, *OTHERS])
def test_families(name):
    for seed, radius in ((0, 0.05), (1, 1.0)):
        case = _case(name, radius, (7, 40, 2), seed)
        assert isinstance(case[2], ChebyshevProxy | TableProxy)
        _check(*case, torch.float32)


@pytest.mark.parametrize(("name", "radius"), [("sinc", 0.05), ("sinc", 1.0), ("hat", 0.05)])
def test_the_default_precision_is_enough_for_bfloat16(name, radius):
    b, a, proxy = _case(name, radius, (48, 40, 16))
    g = torch.randn(48, 40, device=DEVICE).bfloat16()
    wide = (g.double(), b.double(), a.double(), proxy, 1.7)
    assert _error(fused.merged_weight(g, b, a, proxy, 1.7), reference.merged_weight(*wide)) < 8e-3
    want = reference.merge_gradients(*wide)
    for one, other in zip(fused.merge_gradients(g, b, a, proxy, 1.7), want, strict=True):
        assert _error(one, other) < 1e-3


@pytest.mark.gpu
@pytest.mark.skipif(not ON_GPU, reason="needs a CUDA device")
@pytest.mark.parametrize("name", list(KINDS))
@pytest.mark.parametrize("what", ["merge", "gradient"])
def test_every_tile_that_is_tried_is_right(name, what):
    """A compiler can be wrong at one tile: Triton 3.6 was, in sums over lanes."""
    for tile, (dtype, precision) in itertools.product(CANDIDATES[what], LIMITS):
        with contextlib.suppress(OutOfResources):
            errors = tile_errors(tile, (256, 1024), name, what, dtype, precision)
            assert not errors, (tile, dtype, precision)


@pytest.mark.parametrize("tile", [SMALL, None], ids=["small", "chosen"])
@pytest.mark.parametrize(
    "rank", [1, 17, 64, *(pytest.param(n, marks=pytest.mark.thorough) for n in (16, 100, 256))]
)
def test_ranks(rank, tile):
    _check(*_case("sinc", 0.3, (19, 35, rank)), torch.float32, tile)


@pytest.mark.parametrize("seed", range(3))
def test_random_cases(seed):
    g = torch.Generator().manual_seed(seed)

    def draw(low, high):
        return int(torch.randint(low, high, (), generator=g))

    names = list_bases()
    name, radius = names[draw(0, len(names))], 10 ** (draw(-35, 5) / 10)
    shape = (draw(1, 60), draw(1, 60), draw(1, 33))
    case = _case(name, radius, shape, seed)
    if isinstance(case[2], ChebyshevProxy | TableProxy):
        _check(*case, torch.float32)


def test_wide_tables_are_searched():
    b, a, proxy = _case("relu", 2.5, (20, 40, 3))
    assert isinstance(proxy, TableProxy) and proxy.pieces > 16
    _check(b, a, proxy, torch.float32)


def test_repeatable():
    b, a, proxy = _case("sinc", 0.05, (50, 60, 4))
    g = torch.randn(50, 60, device=DEVICE)
    first, again = (fused.merge_gradients(g, b, a, proxy, 1.0, tile=SMALL) for _ in range(2))
    assert all(torch.equal(one, other) for one, other in zip(first, again, strict=True))


def test_transposed_weight_and_gradient():
    b, a, proxy = _case("sinc", 0.05, (20, 40, 4))
    w = torch.randn(40, 20, device=DEVICE).t()
    got = fused.merged_weight(w, b, a, proxy, 1.0, tile=SMALL)
    assert got.stride() == w.stride()
    assert _error(got, reference.merged_weight(w, b, a, proxy, 1.0)) < 1e-6
    got = fused.merge_gradients(w, b, a, proxy, 1.0, tile=SMALL)
    want = reference.merge_gradients(w, b, a, proxy, 1.0)
    assert all(_error(one, other) < 1e-5 for one, other in zip(got, want, strict=True))


def test_update_alone():
    b, a, proxy = _case("sinc", 0.05, (20, 40, 4))
    got = fused.merged_weight(None, b, a, proxy, 2.0, tile=SMALL)
    assert got.dtype == torch.float32
    assert _error(got, 2 * proxy.value(b.double() @ a.double())) < 1e-5


def test_stochastic_rounding_has_the_same_bits():
    b, a, proxy = _case("sinc", 0.05, (20, 40, 4))
    w = torch.randn(20, 40, device=DEVICE).bfloat16()
    got = fused.merged_weight(w, b, a, proxy, 1.0, seed=7, precision="ieee", tile=SMALL)
    want = reference.merged_weight(w, b, a, proxy, 1.0, seed=7)
    assert (got == want).float().mean() > 0.995  # x differs in the last bit of float32
    other = fused.merged_weight(w, b, a, proxy, 1.0, seed=8, precision="ieee", tile=SMALL)
    assert (got == other).float().mean() < 0.95


def test_nan_reaches_the_weight():
    b, a, proxy = _case("sinc", 0.05, (20, 40, 4))
    b[3, 1] = torch.nan
    w = torch.randn(20, 40, device=DEVICE)
    got = fused.merged_weight(w, b, a, proxy, 1.0, tile=SMALL)
    assert got[3].isnan().all() and got[4].isfinite().all()
