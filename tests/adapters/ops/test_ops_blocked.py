"""The CPU's path against the float64 reference: values and all gradients, on odd shapes."""

import pytest
import torch

from adapters.ops import merge
from adapters.ops.merge import blocked, reference
from basis_zoo import get_basis, get_grid, get_start, list_bases
from basis_zoo.nonlinearity import Nonlinearity
from basis_zoo.proxy import fit_proxy, range_radius

TOLERANCE = {torch.float32: 1e-5, torch.float16: 1e-3, torch.bfloat16: 4e-3}
"""Relative RMS error of W': that of one rounding."""


def _case(name: str, radius: float, shape: tuple[int, int, int], seed: int = 0):
    torch.manual_seed(seed)
    grid, start = get_grid("uniform"), get_start("anchored")
    module = Nonlinearity(get_basis(name), grid, start, bandwidth="spacing")
    torch.nn.init.normal_(module.amplitude)
    m, n, r = shape
    b, a = torch.randn(m, r), torch.randn(r, n)
    b = b * (radius / range_radius(b, a)) * 0.9999
    fit = fit_proxy(module.phi, module.parameters_in_force(), 1.25 * range_radius(b, a))
    return b, a, fit.proxy.rebuilt(tuple(t.detach() for t in fit.proxy.tensors))


def _error(got, want) -> float:
    return float((got.double() - want.double()).norm() / want.double().norm().clamp_min(1e-30))


@pytest.mark.parametrize("dtype", list(TOLERANCE), ids=str)
@pytest.mark.parametrize("shape", [(1, 1, 1), (33, 70, 3), (700, 129, 8), (3, 70_001, 2)])
@pytest.mark.parametrize("name", ["sinc", "hat", "fourier"])
def test_blocks_give_what_the_definition_gives(name, shape, dtype):
    b, a, proxy = _case(name, 0.05, shape)
    assert blocked.can_evaluate(proxy)
    w, g = torch.randn(2, *shape[:2]).to(dtype)
    got = blocked.merged_weight(w, b, a, proxy, 1.7)
    want = reference.merged_weight(w.double(), b.double(), a.double(), proxy, 1.7)
    assert got.dtype == dtype
    assert _error(got, want) < TOLERANCE[dtype]
    got = blocked.merge_gradients(g, b, a, proxy, 1.7)
    want = reference.merge_gradients(g.double(), b.double(), a.double(), proxy, 1.7)
    for name_of, one, other in zip(("dB", "dA", "dc"), got, want, strict=True):
        assert _error(one, other) < 1e-5, name_of


@pytest.mark.parametrize("name", list_bases())
def test_every_family(name):
    for seed, radius in enumerate((1e-3, 0.05)):
        b, a, proxy = _case(name, radius, (19, 41, 3), seed)
        if not blocked.can_evaluate(proxy):
            continue
        w, g = torch.randn(2, 19, 41)
        want = reference.merged_weight(w.double(), b.double(), a.double(), proxy, 0.3)
        assert _error(blocked.merged_weight(w, b, a, proxy, 0.3), want) < 1e-5
        got = blocked.merge_gradients(g, b, a, proxy, 0.3)
        want = reference.merge_gradients(g.double(), b.double(), a.double(), proxy, 0.3)
        assert all(_error(one, other) < 2e-5 for one, other in zip(got, want, strict=True))


def test_the_update_alone_and_rounding_by_chance():
    b, a, proxy = _case("sinc", 0.05, (20, 40, 4))
    got = blocked.merged_weight(None, b, a, proxy, 2.0)
    assert _error(got, 2 * proxy.value(b.double() @ a.double())) < 1e-5
    w = torch.randn(20, 40).bfloat16()
    first, again, other = (
        blocked.merged_weight(w, b, a, proxy, 1.0, seed=seed) for seed in (7, 7, 8)
    )
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_a_float64_weight_keeps_its_digits():
    b, a, proxy = _case("sinc", 0.05, (6, 5, 2))
    w = torch.randn(6, 5, dtype=torch.float64)
    zero = merge.merged_weight(w, torch.zeros_like(b), a, proxy, 1.7)
    assert zero.dtype == torch.float64
    torch.testing.assert_close(
        zero, w + 1.7 * proxy.value(torch.zeros(())).double(), rtol=0, atol=1e-15
    )
    want = reference.merged_weight(w, b.double(), a.double(), proxy, 1.7)
    torch.testing.assert_close(merge.merged_weight(w, b, a, proxy, 1.7), want, rtol=0, atol=1e-6)
