"""Measures of spectra and of phi's use, against matrices and phis whose answer is known."""

import math
from copy import deepcopy

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from peft import LoraConfig, get_peft_model

import adapters
from adapters import BasisConfig
from adapters.export.updates import layer_updates
from adapters.spectrum import (
    ModuleSpectrum,
    effective_degree,
    effective_rank,
    grid_occupancy,
    non_affine_share,
    numerical_rank,
    phi_curves,
    phi_sizes,
    rank_statistics,
    singular_values,
    size_statistics,
    spectra,
    spectra_of_saved,
    stable_rank,
    stable_rank_by_power,
    table,
    utilization,
)
from adapters.spectrum.by_part import part_statistics
from adapters.spectrum.modules import PhiUsage
from adapters.spectrum.plots import plot_depth, plot_phi, plot_spectra
from adapters.spectrum.weight_changes import weight_changes


def test_ranks_of_known_spectra():
    equal = torch.ones(7, dtype=torch.float64)
    assert stable_rank(equal) == pytest.approx(7) and effective_rank(equal) == pytest.approx(7)
    one = torch.tensor([3.0, 0, 0], dtype=torch.float64)
    assert stable_rank(one) == 1 and effective_rank(one) == pytest.approx(1)
    two = torch.tensor([2.0, 1.0], dtype=torch.float64)
    assert stable_rank(two) == pytest.approx(1.25)
    entropy = -(2 / 3) * math.log(2 / 3) - (1 / 3) * math.log(1 / 3)
    assert effective_rank(two) == pytest.approx(math.exp(entropy))
    assert stable_rank(torch.zeros(3)) == 0 == effective_rank(torch.zeros(3))
    falling = torch.tensor([2.0, 1e-4, 1e-5, 1e-6], dtype=torch.float64)
    assert numerical_rank(falling, (4, 50)) == 2  # 2 * 50 * 1.2e-7 is rounding
    assert numerical_rank(falling, (4, 4)) == 4 and numerical_rank(torch.zeros(3), (3, 3)) == 0


def test_batched_singular_values_are_those_of_each():
    g = torch.Generator().manual_seed(0)
    shapes = [(9, 5), (5, 9), (9, 5), (4, 4)]
    matrices = [torch.randn(shape, generator=g) for shape in shapes]
    got = singular_values(shapes, lambda i: matrices[i])
    for values, matrix in zip(got, matrices, strict=True):
        torch.testing.assert_close(values, torch.linalg.svdvals(matrix.double()))


@pytest.mark.parametrize("decay", [0.3, 0.9])
def test_power_iteration_finds_the_stable_rank(decay):
    g = torch.Generator().manual_seed(0)
    u = torch.linalg.qr(torch.randn(60, 20, generator=g)).Q
    v = torch.linalg.qr(torch.randn(40, 20, generator=g)).Q
    s = decay ** torch.arange(20.0)
    got = stable_rank_by_power((u * s) @ v.T)
    assert got == pytest.approx(stable_rank(s), rel=0.02)
    assert stable_rank_by_power(torch.zeros(3, 4)) == 0


def phi(basis="hat", num_basis=9, **options):
    return BasisConfig(
        basis=basis, num_basis=num_basis, interval=(-1.0, 1.0), start="small", **options
    ).phi.build_nonlinearity()


def test_utilization_counts_the_functions_that_matter_where_x_lies():
    """Hats on nine points: 0.25 apart, each reaches its neighbours."""
    nonlinear = phi()
    x = torch.linspace(-1, 1, 401)
    assert utilization(nonlinear, x) == 0
    with torch.no_grad():
        nonlinear.amplitude[2], nonlinear.amplitude[5] = 1.0, -0.5
        nonlinear.amplitude[7] = 0.004
    assert utilization(nonlinear, x) == pytest.approx(2 / 9)
    assert utilization(nonlinear, x, share=0.001) == pytest.approx(3 / 9)
    with torch.no_grad():
        nonlinear.amplitude.fill_(1.0)
    assert utilization(nonlinear, x) == 1
    near_zero = torch.linspace(-0.2, 0.2, 101)
    assert utilization(nonlinear, near_zero) == pytest.approx(3 / 9)


def test_grid_occupancy_counts_cells():
    nonlinear = phi()
    assert grid_occupancy(nonlinear, torch.tensor([0.1, 0.2])) == pytest.approx(1 / 8)
    assert grid_occupancy(nonlinear, torch.linspace(-0.99, 0.99, 400)) == 1
    assert grid_occupancy(nonlinear, torch.tensor([5.0, -5.0])) == 0


def test_shape_of_known_polynomials():
    nonlinear = phi("polynomial", 6)
    x = torch.linspace(-1, 1, 501)
    amplitudes = {1: [0, 1.0], 3: [0, 1, 0, 0.5], 0: [2.0], 5: [0, 0, 0, 0, 0, 1.0]}
    for degree, values in amplitudes.items():
        with torch.no_grad():
            nonlinear.amplitude.zero_()
            nonlinear.amplitude[: len(values)] = torch.tensor(values)
        assert effective_degree(nonlinear, x) == degree
        share = non_affine_share(nonlinear, x)
        assert share < 1e-6 if degree < 2 else share > 0.05
    square = phi("polynomial", 4)
    with torch.no_grad():
        square.amplitude[2] = 1.0
    assert non_affine_share(square, x) == pytest.approx(1.0, abs=1e-3)  # x^2 is even


def adapted(family, **options):
    torch.manual_seed(1)
    config = BasisConfig(
        r=2, num_basis=8, interval=(-1, 1), target_modules="all", b_std=0.3, **options
    )
    return get_peft_model(family.model(), config).eval()


def test_spectra_of_a_model_are_those_of_its_updates(family, tmp_path):
    bert = family("bert")
    model = adapted(bert, init_weights=False, input_scale=2.0)
    found = spectra(model)
    assert [m.block for m in found] == [0] * 6 + [1] * 6
    assert {m.kind for m in found} >= {"attention.self.query", "output.dense"}
    layers = {n: m for n, m in model.named_modules() if hasattr(m, "basis_A")}
    for module, layer in zip(found, layers.values(), strict=True):
        want = torch.linalg.svdvals(layer.get_delta_weight("default").double())
        torch.testing.assert_close(module.values, want, rtol=1e-5, atol=1e-7 * float(want[0]))
        b, a, _ = layer.member("default")
        torch.testing.assert_close(
            module.product_values, torch.linalg.svdvals(b.double() @ a.double())[:2]
        )
        assert module.usage.product_stable_rank <= 2 + 1e-9
        assert module.usage.largest_product == pytest.approx(float((b @ a).abs().max()))
    assert max(m.stable_rank for m in found) > 2, "phi raises the rank above r"
    model.save_pretrained(tmp_path)
    again = spectra_of_saved(bert.model(), tmp_path)
    assert all(torch.equal(a.values, b.values) for a, b in zip(found, again, strict=True))
    lines = table(found).splitlines()
    assert len(lines) == 1 + 6 + 1 and lines[-1].startswith("all") and "±" in lines[-1]


@pytest.mark.parametrize(("r", "degree"), [(1, 3), (2, 1), (2, 2), (2, 3), (3, 2), (3, 3)])
def test_a_polynomial_raises_the_rank_to_all_monomials_of_r_variables(r: int, degree: int) -> None:
    """phi(BA) of degree d spans the products of at most d of BA's r factors: C(r + d, d)."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(60, 50))
    options = {"basis": "polynomial", "num_basis": degree + 1, "interval": (-1.0, 1.0)}
    config = BasisConfig(r=r, target_modules=["0"], start="identity", **options)
    model = get_peft_model(model, config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.requires_grad and "phi" not in name:
                parameter.uniform_(-1, 1).div_(r if "_B" in name else 1)  # |BA| <= 1
        layer = next(m for m in model.modules() if hasattr(m, "basis_A"))
        _, _, nonlinear = layer.member("default")
        nonlinear.amplitude.copy_(torch.linspace(1.0, 2.0, degree + 1))
    [module] = spectra(model)
    assert module.rank == math.comb(r + degree, degree)


def test_ranks_are_told_by_part_and_by_depth(family) -> None:
    bert = adapted(family("bert"))
    made = []
    for module in spectra(bert):  # blocks 0 and 1, in each four modules of attention and two others
        is_mlp = module.name.split(".layer.")[1][2:] in ("intermediate.dense", "output.dense")
        size = (1 + is_mlp) * (1 + 2 * module.block)  # 1 and 2 before, 3 and 6 after
        usage = PhiUsage(1.0, 2.5, *[0.0] * 4)
        values = torch.tensor([1.0] * size + [0.0], dtype=torch.float64)
        made.append(
            ModuleSpectrum(module.name, module.kind, module.block, (7, 7), values, None, usage)
        )
    found = rank_statistics(bert, made)
    for measure in ("stable_rank", "effective_rank", "rank"):
        assert found[f"attention/{measure}"] == pytest.approx(2)
        assert found[f"attention/{measure}_spread"] == pytest.approx(1)
        assert found[f"mlp/{measure}"] == pytest.approx(4)
        assert found[f"mlp/{measure}_early"] == pytest.approx(2)
        assert found[f"mlp/{measure}_late"] == pytest.approx(6)
        assert found[f"mlp/{measure}_rise"] == pytest.approx(4)
        assert found[f"mlp/{measure}_slope"] == pytest.approx(4)
        assert found[f"all/{measure}"] == pytest.approx((4 * 2 + 2 * 4) / 6)
    assert found["all/raised_share"] == pytest.approx(6 / 12)
    only = rank_statistics(bert, [m for m in made if ".intermediate." in m.name and m.block == 0])
    ends = {f"{name}{end}" for name in ("stable_rank", "effective_rank", "rank")
            for end in ("", "_spread")}  # fmt: skip
    both = {f"{part}/{end}" for part in ("all", "mlp") for end in ends}
    assert set(only) == both | {"all/raised_share"}


@torch.no_grad()
def test_sizes_of_phi_are_told_by_part_depth_and_time(family) -> None:
    bert = adapted(family("bert"))
    phis = {
        name: layer.member("default")[2]
        for name, layer in bert.named_modules()
        if hasattr(layer, "basis_A")
    }
    for phi in phis.values():
        phi.amplitude.copy_(torch.tensor([3.0, 4.0, *[0.0] * (len(phi.amplitude) - 2)]))
    start = phi_sizes(bert)
    for name, phi in phis.items():
        block, is_mlp = int(name.split(".layer.")[1][0]), ".attention." not in name
        phi.amplitude.mul_((1 + is_mlp) * (1 + 2 * block))  # norms of 5 and 10, then 15 and 30
        phi.raw_bandwidth.fill_(math.log(math.expm1(1.0 + block)))  # softplus gives 1 and 2
    count = len(phi.amplitude)
    found = size_statistics(bert, start)
    assert found["attention/amplitude_norm"] == pytest.approx(10)
    assert found["attention/amplitude_norm_slope"] == pytest.approx(10)
    assert found["mlp/amplitude_norm_spread"] == pytest.approx(10)
    assert found["mlp/amplitude_norm_early"] == pytest.approx(10)
    assert found["mlp/amplitude_norm_start"] == pytest.approx(5)
    assert found["mlp/amplitude_norm_change"] == pytest.approx(15)
    assert found["all/bandwidth_mean"] == pytest.approx(1.5)
    assert found["all/bandwidth_mean_slope"] == pytest.approx(1)
    assert found["all/bandwidth_norm_late"] == pytest.approx(2 * count**0.5)
    curve = phi_curves(bert)[0]
    assert curve.numbers() == pytest.approx({
        "amplitude_norm": 5, "bandwidth_norm": count**0.5, "bandwidth_mean": 1
    })  # fmt: skip
    assert curve._replace(parameters=None).numbers() == {}


def test_a_slope_over_depth_is_numpys_and_stacks_are_apart(family) -> None:
    names = [f"encoder.layer.{i}.attention.self.query" for i in range(4)]
    values = [3.0, 1.0, 4.0, 1.5]
    made = {name: {"size": value} for name, value in zip(names, values, strict=True)}
    found = part_statistics(adapted(family("bert")), made | {"pooler": {"size": 9.0}})
    slope = np.polyfit([0, 1 / 3, 2 / 3, 1], values, 1)[0]  # the pooler is in no block
    assert found["all/size_slope"] == pytest.approx(slope)
    assert found["all/size"] == pytest.approx((sum(values) + 9) / 5)


def test_a_family_without_bandwidths_has_none(family) -> None:
    config = BasisConfig(r=2, target_modules=["query"], basis="polynomial", num_basis=3)
    model = get_peft_model(family("bert").model(), config)
    assert {name for own in phi_sizes(model).values() for name in own} == {"amplitude_norm"}
    assert not any("bandwidth" in name for name in size_statistics(model, phi_sizes(model)))


def test_lora_has_a_spectrum_without_phi(family):
    config = LoraConfig(r=3, target_modules=["query"], init_lora_weights=False)
    found = spectra(get_peft_model(family("bert").model(), config))
    assert [m.usage for m in found] == [None, None]
    assert all(float(m.values[3] / m.values[0]) < 1e-7 for m in found)
    assert set(found[0].numbers()) == {"stable_rank", "effective_rank"}


CHANGING = [m for m in adapters.list_methods() if adapters.get_method(m).changes_weights]


def test_all_methods_but_those_beside_the_weights_change_them() -> None:
    assert set(adapters.list_methods()) - set(CHANGING) == {"aurora", "bitfit", "head_only"}


@pytest.mark.slow
@pytest.mark.parametrize("method", CHANGING)
@torch.no_grad()
def test_a_change_of_weights_is_what_the_model_computes_with(family, method: str) -> None:
    bert = family("bert")
    torch.manual_seed(0)
    before = bert.model().eval()
    options = {} if method == "full" else {"target_modules": "all"}
    model = adapters.attach(deepcopy(before), {"method": method, **options}).eval()
    for name, parameter in model.named_parameters():
        if parameter.requires_grad and "classifier" not in name and "embed" not in name:
            adapted_weight = method != "full" or ("layer" in name and parameter.ndim == 2)
            parameter.add_(torch.randn_like(parameter) * 0.05 * adapted_weight)
    changes = weight_changes(model, before)
    assert len(changes) == 12 and all(change.energy > 0 for change in changes)
    if adapters.get_method(method).convertible:
        for change, update in zip(changes, layer_updates(model), strict=True):
            torch.testing.assert_close(change.dense(), update.dense(), rtol=1e-4, atol=1e-5)
    batch = bert.batch()
    start, want = before(**batch).logits, model(**batch).logits
    modules = dict(before.named_modules())
    for change in changes:
        modules[change.name].weight += change.dense()
    assert (before(**batch).logits - want).norm() < 1e-3 * (want - start).norm()
    assert [m.rank > 0 for m in spectra(model, before=bert.model())] == [True] * 12


def test_monitor_agrees_with_the_full_measures(family, few_steps):
    bert = family("bert")
    model = adapted(bert)
    fresh = adapters.monitor(model)
    assert fresh["update/stable_rank"] == 0 == fresh["phi/utilization"]
    few_steps(model, bert.batch())
    got, found = adapters.monitor(model), spectra(model)
    ranks = torch.tensor([m.stable_rank for m in found])
    assert got["update/stable_rank"] == pytest.approx(float(ranks.mean()), rel=0.05)
    assert got["update/stable_rank_std"] == pytest.approx(float(ranks.std(correction=0)), abs=0.1)
    assert got["phi/utilization"] > 0 and got["phi/effective_degree"] >= 1
    for name in ("utilization", "grid_occupancy", "non_affine_share", "effective_degree"):
        mean = sum(getattr(m.usage, name) for m in found) / len(found)
        assert got[f"phi/{name}"] == pytest.approx(mean, rel=1e-4)
    assert adapters.monitor(bert.model()) == {}


@pytest.mark.slow
def test_figures(family, tmp_path):
    model = adapted(family("bert"), init_weights=False)
    found = spectra(model)
    depth = plot_depth({"φ": found, "again": found})
    assert len(depth.axes) == 6
    line = depth.axes[0].lines[0]
    assert list(line.get_xdata()) == [0, 1]
    assert list(line.get_ydata()) == [m.stable_rank for m in found if m.kind == found[0].kind]
    with pytest.raises(ValueError, match="unknown measure 'rank'"):
        plot_depth({"φ": found}, "rank")
    lines = plot_spectra({"φ": found}).axes[0].lines
    assert lines[0].get_ydata()[0] == 1.0
    curves = phi_curves(model, radius=1.0)
    assert len(curves) == 12 and curves[0].x[0] == -1
    layer = next(m for m in model.modules() if hasattr(m, "basis_A"))
    torch.testing.assert_close(curves[0].y, layer.basis_phi["default"](curves[0].x).detach())
    figure = plot_phi({"step 0": curves, "step 1": phi_curves(model)})
    assert isinstance(figure, Figure) and len(figure.axes) == 18
    first = [curve for curve in curves if curve.block == 0]
    once = plot_phi({"end": first}).axes
    assert [axes.get_title(loc="left") for axes in once] == [
        f"{curve.kind}, block 0" for curve in first
    ]
    alone = plot_depth({"φ": [module for module in found if module.block == 0]}).axes
    assert all(list(axes.get_xticks()) == [0] for axes in alone)
    figure.savefig(tmp_path / "phi.png")
    assert (tmp_path / "phi.png").stat().st_size > 0
