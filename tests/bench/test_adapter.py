"""The benchmark: correctness before speed, goals, counts, tables; no assertion on a time."""

import json

import pytest
import torch
from torch.nn import functional as F

from adapters.ops import dense_gradient, merge
from adapters.ops.merge import blocked
from basis_zoo.proxy import ChebyshevProxy, TableProxy, proxy_size
from bench.adapter import cli, float8, kernels, layer, models, naive, report, steps
from bench.adapter.cases import KINDS, kind
from bench.adapter.checks import check
from bench.adapter.floors import Ceilings
from bench.adapter.launches import count
from bench.adapter.record import Row, Run, place, row_of


def test_a_wrong_kernel_is_not_timed(monkeypatch, capsys, tmp_path):
    true = blocked.merge_gradients

    def wrong(*args, **kwargs):
        db, da, dc = true(*args, **kwargs)
        return db, da * 1.01, dc

    monkeypatch.setattr(blocked, "merge_gradients", wrong)
    arguments = ["--device", "cpu", "--quick", "--out", str(tmp_path)]
    assert cli.main(arguments) == 1
    printed = capsys.readouterr().out
    assert "WRONG" in printed and "nothing is timed" in printed
    assert not list(tmp_path.iterdir())


def test_this_device_is_right():
    told = []
    assert check("cpu", told, quick=True)
    assert {row["kind"] for row in told} >= {
        "degree 8",
        "table, many",
        "layer",
        "G in 8 bits",
        "repeated",
    }


@pytest.mark.parametrize("name", list(KINDS))
def test_a_kind_is_what_it_is_called(name):
    proxy = kind(name, (128, 1024), 16, "cpu", seed=1).proxy
    called, _, size = name.partition(" ")
    assert isinstance(proxy, ChebyshevProxy) == (called == "degree")
    if size.isdigit():
        assert proxy_size(proxy) == int(size)


@pytest.mark.parametrize("label", list(kernels._KINKED))
def test_families_with_kinks_are_measured_as_tables(label):
    proxy = kernels.kinked(label, (128, 1024), "cpu").proxy
    assert isinstance(proxy, TableProxy) and proxy.pieces > 1


def test_a_run_is_written_and_reported(monkeypatch, tmp_path):
    def two(run, device, quick):
        run.add(
            Row("x", "the good one", 1.1, 1.2, ours=2.2, other=2.0, against="LoRA", unit="ms"),
            Row("x", "the bad one", 7.0, 50.0, at_least=True),
            Row("x", "no goal", 3.0),
        )

    monkeypatch.setattr(cli, "check", lambda *args, **kwargs: True)
    monkeypatch.setitem(cli.BENCHES, "floors", (two, ("cpu",)))
    assert cli.main(["--device", "cpu", "--only", "floors", "--out", str(tmp_path)]) == 0
    file = tmp_path / "bench.json"
    told = json.loads(file.read_text())
    assert [row["met"] for row in told["rows"]] == [True, False, None]
    assert set(told) >= {"device", "versions", "commit", "date"}
    assert [row_of(row).is_met for row in told["rows"]] == [True, False, None]
    document = tmp_path / "page.md"
    document.write_text("before\n")
    with pytest.raises(ValueError, match="needs a line"):
        report.write([file], document)
    document.write_text(f"before\n{report.BEGIN}\nold\n{report.END}\nafter\n")
    for _ in range(2):
        report.write([file], document)
    text = document.read_text()
    assert text.startswith("before\n") and text.endswith(f"{report.END}\nafter\n")
    assert "old" not in text and "Goals met: 1 of 2" in text
    assert "| the good one | 1.1 | ≤ 1.2: met | 2.2 ms | LoRA: 2 ms |" in text
    assert text.count("≥ 50: **missed**") == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--only", "merges"], "Did you mean 'merge'"),
        (["--device", "cpu", "--only", "qwen"], "measured on cuda only"),
        (["tune", "--device", "cpu"], "kernels of a GPU"),
        (["report"], "needs JSON files"),
    ],
)
def test_wrong_arguments_are_refused(arguments, message, capsys):
    with pytest.raises(SystemExit):
        cli.main(arguments)
    assert message in capsys.readouterr().err


@pytest.mark.slow
def test_a_step_makes_fewer_calls_than_loras():
    lora, ours = (count(steps.METHODS[name]) for name in ("LoRA", "sinc, G = 50"))
    assert ours.fused == 2 * 168 - 3 + 2 * 168  # the first layer's q, k, v need no dx
    assert ours.total < 0.85 * lora.total
    assert ours.kernels < 0.85 * lora.kernels


@pytest.mark.slow
def test_sizes_do_not_change_the_calls():
    few, many = (count({"method": "basis", "num_basis": g}) for g in (8, 512))
    assert few.operations == many.operations


@pytest.mark.parametrize("lora", [layer._LeanLora, layer._MergedLora])
def test_the_loras_by_hand_are_right(lora):
    torch.manual_seed(0)
    x, w, b, a, dy = (
        torch.randn(shape, dtype=torch.float64)
        for shape in ((7, 5), (6, 5), (6, 2), (2, 5), (7, 6))
    )
    points = [t.requires_grad_() for t in (x, b, a)]
    y = lora.apply(x, w, b, a, 1.7)
    want = F.linear(x, w) + 1.7 * F.linear(F.linear(x, a), b)
    torch.testing.assert_close(y, want)
    for one, other in zip(
        torch.autograd.grad(y, points, dy), torch.autograd.grad(want, points, dy), strict=True
    ):
        torch.testing.assert_close(one, other)


def test_the_three_ways_agree():
    told = {}
    for name, make in naive.WAYS.items():
        made = naive.case("sinc", 0.05, (20, 30), 4, "cpu", num_basis=8, bandwidth=1.0)
        (update, *_), leaves = make([made])()
        told[name] = update - update.mean(), torch.autograd.grad(update.sum(), leaves[:2])[1]
    for name in ("naive", "direct"):  # anchored or not: the same up to a constant
        for one, other in zip(told[name], told["ours"], strict=True):
            torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5)


@pytest.fixture
def small(monkeypatch):
    """Everything a GPU would measure, at sizes for this test, its clock replaced."""
    monkeypatch.setattr(kernels, "SQUARE", (32, 48))
    monkeypatch.setattr(kernels, "TALL", (64, 48))
    monkeypatch.setattr(layer, "SIDE", 32)
    monkeypatch.setattr(layer, "TOKENS", 16)
    monkeypatch.setattr(Ceilings, "measured", lambda *_: Ceilings(1e12, 1e15))

    def once(call, device, quick=False):
        call()
        return 1.0

    for module in (kernels, layer, float8):
        monkeypatch.setattr(module, "median_us", once)
    monkeypatch.setattr(steps, "seconds", lambda call, *_, **__: [call() or 1.0])
    monkeypatch.setattr(steps, "busy_ms", lambda step: step() or 1.0)
    monkeypatch.setattr(steps, "captured", lambda step: step)
    monkeypatch.setattr(torch, "compile", lambda model, **_: model)
    tiny = models.SHAPES["24 narrow layers"]
    tiny.config.num_hidden_layers = 2
    monkeypatch.setitem(models.SHAPES, "Qwen2-0.5B", tiny)
    for name in ("synchronize", "reset_peak_memory_stats", "empty_cache"):
        monkeypatch.setattr(torch.cuda, name, lambda: None)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda: 2**30)
    yield
    tiny.config.num_hidden_layers = 24


@pytest.mark.slow
@pytest.mark.parametrize(
    "bench",
    [
        "merge",
        "gradient",
        *(
            pytest.param(n, marks=pytest.mark.thorough)
            for n in ("table", "layer", "qwen", "methods")
        ),
    ],
)
def test_every_benchmark_of_a_gpu_runs(small, bench):
    run = Run(place("cpu"))
    cli.BENCHES[bench][0](run, "cpu", False)
    assert run.rows and len({row.bench for row in run.rows}) == 1
    assert bench == "methods" or any(row.goal is not None for row in run.rows)
    assert all(row.value is not None for row in run.rows if row.goal is not None)
    assert json.loads(json.dumps(run.as_json()))["rows"]


@pytest.mark.thorough
def test_gradients_in_8_bits_are_measured_where_layers_are_large(small, monkeypatch):
    assert not steps._is_large(models.SHAPES["Qwen2-0.5B"])
    monkeypatch.setattr(dense_gradient, "LEAST", 0)
    run = Run(place("cpu"))
    cli.BENCHES["qwen"][0](run, "cpu", True, ["captured"])
    goals = [row.what for row in run.rows if row.goal is not None]
    assert [steps.FLOAT8 in what for what in goals] == [False, True]


def test_the_8_bit_product_is_measured_by_shape(small, monkeypatch):
    run = Run(place("cpu"))
    cli.BENCHES["float8"][0](run, "cpu", False)
    assert "no 8-bit products" in run.rows[0].note
    pytest.importorskip("triton")
    monkeypatch.setattr(dense_gradient, "has_products", lambda _: True)
    monkeypatch.setattr(float8, "SHAPES", ((20, 48, 32), (7, 16, 16)))
    cli.BENCHES["float8"][0](run, "cpu", False)
    assert len(run.rows) == 3 and all("not used by" in row.note for row in run.rows[1:])


def test_the_stand_in_goes_away():
    before = merge._implementation
    count({"method": "basis"})
    assert merge._implementation is before


def test_each_update_is_of_its_own_phi():
    made = [
        naive.case("sinc", 0.05, (20, 30), 4, "cpu", num_basis=8, bandwidth=1.0, seed=seed)
        for seed in range(2)
    ]
    way = naive.ours(made)
    for _ in range(2):
        for update, each in zip(way()[0], made, strict=True):
            exact = each.nonlinearity(each.b @ each.a)
            torch.testing.assert_close(update, exact, rtol=0, atol=1e-5)
