"""A phi for each block of rows, and W' = W + s W ⊙ phi(BA): every path against the definition."""

import pytest
import torch

from adapters.ops import merge
from adapters.ops.merge import blocked, merge_gradients, merged_weight, reference
from adapters.ops.merge.tiles import Tile
from basis_zoo import get_basis, get_grid, get_start
from basis_zoo.nonlinearity import Nonlinearity
from basis_zoo.proxy import ChebyshevProxy, ExactProxy, fit_proxy, range_radius

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
SMALL = Tile(16, 32, 2, 4, 1)
SCALE = 1.7


def _case(name, radius, shape, copies=1, exact=False):
    """Factors, and a proxy of `copies` phis with unlike numbers, on the range of BA."""
    torch.manual_seed(0)
    m, n, r = shape
    module = Nonlinearity(
        get_basis(name), get_grid("uniform"), get_start("anchored"), bandwidth="spacing"
    )
    module.repeat(("amplitude", "raw_bandwidth"), copies)
    torch.nn.init.normal_(module.amplitude)
    module = module.to(DEVICE)
    b, a = torch.randn(m, r, device=DEVICE), torch.randn(r, n, device=DEVICE)
    b = b * (radius / range_radius(b, a)) * 0.9999
    parameters = module.parameters_in_force()
    if exact:
        proxy = ExactProxy.of(module.phi, parameters.double())
    else:
        reach = 1.25 * range_radius(b, a)
        reach = reach if copies == 1 else reach.expand(copies)
        proxy = fit_proxy(module.phi, parameters, reach).proxy
    return b, a, proxy.rebuilt(tuple(t.detach() for t in proxy.tensors))


def _error(got, want):
    return float((got.double() - want.double()).norm() / want.double().norm().clamp_min(1e-30))


def _by_hand(b, a, proxy, weight, grad):
    """W' with a phi for each block and its gradients, block by block in float64."""
    singles = [proxy.rebuilt(t) for t in zip(*(t.unbind() for t in proxy.tensors), strict=True)]
    blocks = zip(b.double().chunk(len(singles)), weight.chunk(len(singles)), strict=True)
    merged = torch.cat(
        [
            reference.merged_weight(w.double(), of_b, a.double(), one, SCALE)
            for (of_b, w), one in zip(blocks, singles, strict=True)
        ]
    )
    parts = [
        reference.merge_gradients(g.double(), of_b, a.double(), one, SCALE)
        for of_b, g, one in zip(
            b.double().chunk(len(singles)), grad.chunk(len(singles)), singles, strict=True
        )
    ]
    db, da, dc = zip(*parts, strict=True)
    return merged, (torch.cat(db), torch.stack(da).sum(0), torch.stack(dc))


BLOCKS = [
    ("sinc", 0.05, (12, 40, 3), 3, False),
    ("sinc", 0.05, (33, 17, 2), 33, False),
    ("sinc", 3.0, (20, 35, 4), 5, False),
    ("hat", 0.3, (12, 40, 3), 3, False),
    ("hat", 0.3, (7, 19, 2), 7, False),
    ("fourier", 1.0, (10, 20, 2), 2, True),
]


@pytest.mark.parametrize("case", BLOCKS, ids=lambda case: f"{case[0]}-{case[1]}-{case[3]}")
def test_each_block_of_rows_has_its_own_phi(case):
    b, a, proxy = _case(*case)
    w, g = torch.randn(2, len(b), a.shape[1], device=DEVICE)
    want, gradients = _by_hand(b, a, proxy, w, g)
    assert proxy.copies == case[3]
    assert _error(merged_weight(w, b, a, proxy, SCALE), want) < 1e-5
    got = merge_gradients(g, b, a, proxy, SCALE)
    for name, one, other in zip(("dB", "dA", "dc"), got, gradients, strict=True):
        assert one.shape == other.shape
        assert _error(one, other) < 1e-5, name


@pytest.mark.slow
@pytest.mark.parametrize("hadamard", [False, True])
@pytest.mark.parametrize("tile", [SMALL, None], ids=["small", "chosen"])
@pytest.mark.parametrize(
    "case",
    [*BLOCKS[:2], pytest.param(BLOCKS[2], marks=pytest.mark.thorough)],
    ids=lambda case: f"{case[0]}-{case[1]}-{case[3]}",
)
def test_the_kernel_has_a_phi_for_each_block(case, tile, hadamard):
    fused = pytest.importorskip("adapters.ops.merge.fused")
    b, a, proxy = _case(*case)
    assert isinstance(proxy, ChebyshevProxy)
    w, g = torch.randn(2, len(b), a.shape[1], device=DEVICE)
    how = {"precision": "ieee", "tile": tile}
    wide = (b.double(), a.double(), proxy, SCALE)
    got = fused.merged_weight(w, b, a, proxy, SCALE, hadamard=hadamard, **how)
    want = reference.merged_weight(w.double(), *wide, hadamard=hadamard)
    assert _error(got, want) < 1e-5
    times = w if hadamard else None
    got = fused.merge_gradients(g, b, a, proxy, SCALE, times, **how)
    want = reference.merge_gradients(g.double(), *wide, times)
    for name, one, other in zip(("dB", "dA", "dc"), got, want, strict=True):
        assert one.shape == other.shape
        assert _error(one, other) < 1e-5, name


def test_the_definition_of_hadamard_has_autograds_gradients():
    b, a, proxy = _case("sinc", 0.5, (9, 14, 3), exact=True)
    b, a = b.double().requires_grad_(), a.double().requires_grad_()
    w, g = torch.randn(2, 9, 14, device=DEVICE, dtype=torch.float64)
    numbers = proxy.coefficients.detach().requires_grad_()
    y = w + SCALE * w * proxy.rebuilt((numbers,))._phi((b @ a).flatten(), numbers).view(9, 14)
    want = torch.autograd.grad(y, (b, a, numbers), g)
    merged = reference.merged_weight(w, b.detach(), a.detach(), proxy, SCALE, hadamard=True)
    assert torch.allclose(merged, y, rtol=1e-12)
    got = reference.merge_gradients(g, b.detach(), a.detach(), proxy, SCALE, w)
    assert all(_error(one, other) < 1e-10 for one, other in zip(got, want, strict=True))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", ["sinc", "hat"])
def test_the_paths_of_hadamard_agree(name, dtype):
    b, a, proxy = _case(name, 0.05, (33, 70, 3))
    w, g = torch.randn(2, 33, 70, device=DEVICE).to(dtype)
    paths = [reference]
    if DEVICE == "cpu":
        assert blocked.can_evaluate(proxy)
        paths.append(blocked)
    wide = (b.double(), a.double(), proxy, SCALE)
    want = reference.merged_weight(w.double(), *wide, hadamard=True)
    gradients = reference.merge_gradients(g.double(), *wide, w.double())
    for path in (*paths, merge):
        got = path.merged_weight(w, b, a, proxy, SCALE, hadamard=True)
        assert got.dtype == dtype
        assert _error(got, want) < (1e-5 if dtype == torch.float32 else 4e-3)
        got = path.merge_gradients(g, b, a, proxy, SCALE, w)
        assert all(_error(one, other) < 1e-3 for one, other in zip(got, gradients, strict=True))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "radius"),
    [("sinc", 0.05), pytest.param("sinc", 3.0, marks=pytest.mark.thorough), ("hat", 0.1)],
)
def test_the_kernel_multiplies_by_the_weight(name, radius):
    fused = pytest.importorskip("adapters.ops.merge.fused")
    b, a, proxy = _case(name, radius, (20, 40, 4))
    w, g = torch.randn(40, 20, device=DEVICE).t(), torch.randn(20, 40, device=DEVICE)
    wide = (b.double(), a.double(), proxy, SCALE)
    got = fused.merged_weight(w, b, a, proxy, SCALE, hadamard=True, tile=SMALL)
    assert _error(got, reference.merged_weight(w.double(), *wide, hadamard=True)) < 1e-5
    for grad in (g, w):  # turned around where it lies by columns
        got = fused.merge_gradients(grad, b, a, proxy, SCALE, w, precision="ieee", tile=SMALL)
        want = reference.merge_gradients(grad.double(), *wide, w.double())
        assert all(_error(one, other) < 1e-5 for one, other in zip(got, want, strict=True))
