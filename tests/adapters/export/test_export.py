"""Export to plain LoRA: exact where it can be, pooled over layers, loadable by PEFT alone."""

import pytest
import torch
from peft import AdaLoraConfig, LoraConfig, PeftModel, VeraConfig, get_peft_model

import adapters
from adapters import BasisConfig
from adapters.export import LayerUpdate, accuracy_curve, allocate, layer_updates, to_lora
from adapters.export.svd import leading, of_product


def basis(family, **options):
    torch.manual_seed(2)
    options = {"target_modules": "all", "init_weights": False, "b_std": 0.4, **options}
    config = BasisConfig(r=2, num_basis=8, interval=(-1.0, 1.0), **options)
    return get_peft_model(family.model(), config).eval()


def lora(family, **options):
    torch.manual_seed(2)
    config = LoraConfig(r=6, target_modules="all-linear", init_lora_weights=False, **options)
    return get_peft_model(family.model(), config).eval()


# ---- decompositions


@pytest.mark.parametrize("decay", [0.5, 0.9, 0.99])
def test_randomised_triples_are_those_of_the_full_decomposition(decay):
    g = torch.Generator().manual_seed(0)
    u = torch.linalg.qr(torch.randn(200, 120, generator=g, dtype=torch.float64)).Q
    v = torch.linalg.qr(torch.randn(150, 120, generator=g, dtype=torch.float64)).Q
    s = decay ** torch.arange(120.0, dtype=torch.float64)
    matrix = (u * s) @ v.T
    got = leading(matrix, 12)
    assert got.u.shape == (200, 12) and got.s.shape == (12,) and got.v.shape == (150, 12)
    torch.testing.assert_close(got.s, s[:12], rtol=2e-2, atol=0)  # worst where flat
    best = s[12:].square().sum().sqrt()
    error = (matrix - (got.u * got.s) @ got.v.T).norm()
    assert error <= best * 1.01
    left = (matrix.square().sum() - got.s.square().sum()).clamp_min(0).sqrt()
    torch.testing.assert_close(error, left, rtol=1e-3, atol=1e-9)
    for q in (got.u, got.v):
        torch.testing.assert_close(q.T @ q, torch.eye(12, dtype=q.dtype))


def test_most_of_a_spectrum_is_decomposed_exactly():
    matrix = torch.randn(40, 30, generator=torch.Generator().manual_seed(0))
    got = leading(matrix, 30)
    torch.testing.assert_close((got.u * got.s) @ got.v.T, matrix, rtol=1e-4, atol=1e-5)


def test_a_product_is_decomposed_by_its_core():
    g = torch.Generator().manual_seed(0)
    b, a = torch.randn(50, 4, generator=g), torch.randn(4, 70, generator=g)
    got = of_product(b, a)
    want = torch.linalg.svdvals(b.double() @ a.double())
    torch.testing.assert_close(got.s, want[:4])
    torch.testing.assert_close((got.u * got.s) @ got.v.T, b.double() @ a.double())


# ---- ranks


def test_full_rank_reproduces_the_adapter(family):
    for name in ("bert", "gpt2", "phi3"):
        f = family(name)
        model = basis(f)
        export = to_lora(model, rank=10_000)
        assert export.relative_error < 1e-3 and export.kept_energy > 1 - 1e-6
        for update in layer_updates(model):
            pair = export.pairs[update.name]
            torch.testing.assert_close(pair.b @ pair.a, update.dense(), rtol=1e-3, atol=1e-5)


def brute_force(updates, count):
    """The `count` largest pooled values: how many each layer has, by full decompositions."""
    values = [torch.linalg.svdvals(u.dense().double()) for u in updates]
    pooled = torch.cat(values).sort(descending=True).values
    return [int((v >= pooled[count - 1]).sum()) for v in values], pooled, values


@pytest.mark.parametrize("make", [basis, lora])
def test_threshold_is_global(family, make):
    model = make(family("llama"))
    updates = layer_updates(model)
    ranks, pooled, values = brute_force(updates, 25)
    assert len(set(ranks)) > 1, "the test needs unequal layers"
    threshold = float(pooled[24] + pooled[25]) / 2
    assert allocate(updates, threshold=threshold) == ranks
    kept = pooled[:25].square().sum() / pooled.square().sum()
    assert allocate(updates, energy=float(kept) - 1e-5) == ranks
    export = to_lora(model, threshold=threshold)
    assert export.kept_energy == pytest.approx(float(kept), rel=1e-4)
    for layer, v in zip(export.layers, values, strict=True):
        share = v[: layer.rank].square().sum() / v.square().sum()
        assert layer.kept_energy == pytest.approx(float(share), rel=1e-4, abs=1e-6)
        assert layer.relative_error == pytest.approx((1 - float(share)) ** 0.5, abs=2e-3)


def test_budget_is_kept_and_used(family):
    model = lora(family("llama"))
    updates = layer_updates(model)
    trained = sum(6 * sum(update.shape) for update in updates)
    last = 0
    for share in (0.05, 0.2, 0.5, 1.0):
        export = to_lora(model, budget=share)
        assert export.source_parameters == trained
        assert last <= export.parameters <= share * trained
        assert export.parameters > share * trained - max(u.cost for u in updates)
        last = export.parameters
    assert last == trained and export.relative_error < 1e-3
    assert to_lora(model, budget=trained // 2).parameters <= trained // 2


class Matrix(LayerUpdate):
    """A dense update without a model, that notes how far it was decomposed."""

    def __init__(self, values, columns):
        g = torch.Generator().manual_seed(columns)
        u = torch.linalg.qr(torch.randn(len(values), len(values), generator=g)).Q
        v = torch.linalg.qr(torch.randn(columns, len(values), generator=g)).Q
        self.matrix, self._decomposition = (u * values) @ v.T, None
        self.name, self.shape, self.asked = "", tuple(self.matrix.shape), []
        self.energy = float(self.matrix.square().sum())

    def dense(self):
        return self.matrix

    def _decompose(self, count):
        self.asked.append(count)
        return leading(self.matrix, count)


@pytest.mark.parametrize(
    "rule", [{"energy": 0.999}, {"budget": 140 * 300}, {"threshold": 0.09}], ids=str
)
def test_pooling_looks_deeper_only_where_the_threshold_reaches(rule):
    """A layer with a slow spectrum is decomposed past the first guess, a fast one is not."""
    slow, fast = 0.985 ** torch.arange(240.0), 0.5 ** torch.arange(200.0)
    updates = [Matrix(slow, 260), Matrix(fast, 220)]
    got = allocate(updates, **rule)
    pooled = torch.cat([slow, fast]).sort(descending=True).values
    if "energy" in rule:
        energy = pooled.square().cumsum(0) / pooled.square().sum()
        last = pooled[int((energy < 0.999).sum())]
        want = [int((s >= last).sum()) for s in (slow, fast)]
    elif "budget" in rule:
        kept = next(
            [int((s >= t).sum()) for s in (slow, fast)]
            for t in pooled.flip(0)
            if sum(int((s >= t).sum()) * c for s, c in ((slow, 500), (fast, 420))) <= 140 * 300
        )
        want = kept
    else:
        want = [int((s >= 0.09).sum()) for s in (slow, fast)]
    assert got == pytest.approx(want, rel=0.02, abs=1) and got[0] > 64
    assert updates[1].asked == [32]


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ({}, "exactly one of rank"),
        ({"rank": 2, "energy": 0.5}, "exactly one of rank"),
        ({"rank": 0}, "`rank` must be an integer >= 1, got 0"),
        ({"energy": 1.5}, "`energy` must be a share"),
        ({"budget": 2.5}, "`budget` must be parameters as an integer"),
        ({"threshold": -1.0}, "`threshold` must be positive"),
        ({"threshold": 1e9}, "keeps no singular value"),
    ],
)
def test_wrong_rules_are_refused(family, rule, message):
    with pytest.raises(ValueError, match=message):
        to_lora(basis(family("bert")), **rule)


def test_what_cannot_be_lora_is_refused(family):
    bert = family("bert")
    with pytest.raises(ValueError, match="all updates are zero"):
        to_lora(get_peft_model(bert.model(), BasisConfig(target_modules="qkv")), rank=1)
    dora = get_peft_model(bert.model(), LoraConfig(target_modules=["query"], use_dora=True))
    with pytest.raises(ValueError, match="LoRA on DoraLinearVariant"):
        to_lora(dora, rank=1)
    with pytest.raises(ValueError, match=r"no layer of Bert.* carries an adapter 'default'"):
        to_lora(bert.model(), rank=1)


def test_other_methods_of_peft_export_too(family):
    bert = family("bert")
    config = VeraConfig(r=4, target_modules=["query", "value"], init_weights=False)
    model = get_peft_model(bert.model(), config).eval()
    export = to_lora(model, rank=32)
    assert export.relative_error < 1e-3


@pytest.mark.parametrize("name", ["bert", "gpt2"])  # Conv1D holds (in, out)
def test_adalora_is_exported_with_the_ranks_that_it_has_left(family, tmp_path, name):
    f = family(name)
    torch.manual_seed(2)
    options = {"r": 1, "init_r": 6, "alpha": 3.0, "tinit": 1, "tfinal": 1}
    options |= {"method": "adalora", "target_modules": "attention"}
    model = adapters.attach(f.model(), options)
    adapters.on_attach(model, 4)
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1.0)
    for step in range(1, 5):
        model(**f.batch()).loss.backward()
        optimizer.step()
        adapters.after_step(model, step)
        optimizer.zero_grad()
    want = f.output(model)
    model.save_pretrained(tmp_path / "adalora")  # without the ranks that are gone
    saved = PeftModel.from_pretrained(f.model(), tmp_path / "adalora")
    ranks = [len(update.a) for update in layer_updates(saved)]
    assert sum(ranks) == len(ranks) and min(ranks) == 0 and max(ranks) > 1
    for adalora in (model, saved):
        to_lora(adalora, rank=6).save(tmp_path / "lora", modules_to_save="keep")
        lora = PeftModel.from_pretrained(f.model(), tmp_path / "lora")
        torch.testing.assert_close(f.output(lora), want)
        for update in layer_updates(adalora.double()):
            delta = update.layer.get_delta_weight("default").detach()
            delta = delta.T if name == "gpt2" else delta
            u, s, v = update.leading(6)
            torch.testing.assert_close((u * s) @ v.T, delta, rtol=1e-10, atol=1e-14)
            assert update.energy == pytest.approx(float(delta.square().sum()), rel=1e-10)


def test_adalora_on_a_convolution_is_refused():
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 2))
    config = AdaLoraConfig(target_modules=["0"], total_step=9, init_lora_weights=False)
    with pytest.raises(ValueError, match="'0' is LoRA on an embedding, a convolution"):
        to_lora(get_peft_model(model, config), rank=1)


# ---- files


def test_layers_of_rank_zero_are_left_out(family, tmp_path):
    bert = family("bert")
    model = basis(bert)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if "layer.0" in name and "amplitude" in name:
                p.mul_(1e-6)
    export = to_lora(model, energy=0.9)
    assert {layer.rank for layer in export.layers if "layer.0" in layer.name} == {0}
    export.save(tmp_path)
    again = PeftModel.from_pretrained(bert.model(), tmp_path)
    assert not any("layer.0" in n for n in again.state_dict() if "lora" in n)
    table = export.table().splitlines()
    assert len(table) == len(export.layers) + 2 and "% of the energy" in table[-1]


def test_names_that_end_in_each_other_keep_their_ranks():
    from adapters.export.lora import _key

    ranks = {"layers.0.q": 1, "tower.layers.0.q": 2, "layers.1.q": 3}
    assert _key("layers.0.q", ranks) == "^layers.0.q"
    assert _key("layers.1.q", ranks) == "layers.1.q"


# ---- accuracy against kept parameters


@pytest.mark.parametrize("make", [basis, lora])
@pytest.mark.parametrize("name", ["bert", "gpt2"])
def test_curve_rises_to_the_adapter_and_leaves_the_model_alone(family, make, name):
    f = family(name)
    model = make(f)
    want = f.output(model)
    base = f.output(f.model())

    def score(m):
        return 1 - float((f.output(m) - want).norm() / (base - want).norm())

    full, points = accuracy_curve(model, score, budgets=[2, 0.3, 100_000_000])
    assert full == 1.0
    scores = [p.score for p in points]
    errors = [p.relative_error for p in points]
    assert errors == sorted(errors, reverse=True) and errors[-1] < 1e-3
    assert scores[-1] > 0.99 > scores[0] == 0.0 and points[0].parameters == 0
    assert [p.parameters for p in points] == sorted(p.parameters for p in points)
    assert torch.equal(f.output(model), want)


def test_curve_survives_an_evaluation_that_fails(family):
    bert = family("bert")
    model = basis(bert)
    want = bert.output(model)
    calls = []

    def score(m):
        calls.append(m)
        if len(calls) == 2:
            raise RuntimeError("no data")
        return 0.0

    with pytest.raises(RuntimeError, match="no data"):
        accuracy_curve(model, score)
    assert torch.equal(bert.output(model), want)
