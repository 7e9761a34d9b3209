"""Each method's update against its published formula, computed another way in float64."""

import math

import numpy as np
import pytest
import scipy.interpolate
import scipy.linalg
import torch
from peft import convert_to_lora, get_peft_model, set_peft_model_state_dict
from torch import nn

import adapters
from adapters.methods.builtin.abba import AbbaConfig, AbbaUpdate
from adapters.methods.builtin.aurora import AuroraConfig, AuroraUpdate, bsplines
from adapters.methods.builtin.dylora import DyloraConfig, DyloraUpdate
from adapters.methods.builtin.elalora import ElaloraConfig, ElaloraUpdate
from adapters.methods.builtin.kradapter import KRAdapterConfig, KRAdapterUpdate
from adapters.methods.builtin.lora_xs import LoraXsConfig, LoraXsUpdate
from adapters.methods.builtin.nola import NolaConfig, NolaUpdate
from adapters.methods.builtin.randlora import RandLoraPaperConfig, RandLoraPaperUpdate

UPDATES = {
    "abba": (AbbaUpdate, AbbaConfig(r=3, alpha=5.0)),
    "aurora": (AuroraUpdate, AuroraConfig(r=3, alpha=6.0)),
    "dylora": (DyloraUpdate, DyloraConfig(r=4, alpha=6.0)),
    "elalora": (ElaloraUpdate, ElaloraConfig(r=3, max_r=5, alpha=6.0)),
    "kradapter": (KRAdapterUpdate, KRAdapterConfig(alpha=1.5)),
    "lora_xs": (LoraXsUpdate, LoraXsConfig(r=3, alpha=6.0)),
    "nola": (NolaUpdate, NolaConfig(r=3, alpha=6.0, num_basis=7)),
    "randlora_paper": (RandLoraPaperUpdate, RandLoraPaperConfig(r=3, alpha=6.0)),
    "two_bases": (RandLoraPaperUpdate, RandLoraPaperConfig(r=3, alpha=6.0, num_bases=2)),
}
SHAPES = [(7, 11), (11, 7), (8, 8)]
"""(out, in)"""


def make(name: str, shape: tuple[int, int] = (7, 11), noise: float = 0.3):
    """An update with random numbers everywhere, in evaluation mode."""
    torch.manual_seed(0)
    kind, config = UPDATES[name]
    base = nn.Linear(shape[1], shape[0])
    update = kind(base, config).eval()
    with torch.no_grad():
        for p in update.parameters():
            p.add_(noise * torch.randn_like(p))
    return update, base.weight.detach().double().numpy()


def numbers(update: nn.Module) -> dict[str, np.ndarray]:
    """Everything that the state dict holds, in float64."""
    return {name: t.double().numpy() for name, t in update.state_dict().items()}


def abba(u, w):
    p = numbers(u)
    return 5.0 * (p["b1"] @ p["a1"]) * (p["b2"] @ p["a2"])


def dylora(u, w):
    p = numbers(u)
    return 6.0 / 4 * sum(np.outer(p["b"][:, i], p["a"][i]) for i in range(4))


def elalora(u, w):
    p = numbers(u)
    return 6.0 / 3 * p["b"][:, :3] @ np.diag(p["e"][:3]) @ p["a"][:3]


def kradapter(u, w):
    p, large = numbers(u), max(w.shape)
    product = 1.5 * scipy.linalg.khatri_rao(p["u"], p["v"])[:large]
    return product if w.shape[0] >= w.shape[1] else product.T


def lora_xs(u, w):
    r = numbers(u)["r_matrix"]
    # Gram matrices in place of the SVD: U from W W^T, and A = U^T W whatever the signs
    _, vectors = scipy.linalg.eigh(w @ w.T)
    left = vectors[:, ::-1][:, :3] * np.sign((vectors[:, ::-1][:, :3] * numbers(u)["b"]).sum(0))
    return 6.0 / 3 * left @ r @ (left.T @ w)


def nola(u, w):
    p = numbers(u)
    a0, a, b = (held.on(torch.device("cpu")).double().numpy() for held in u._bases)
    left = np.einsum("k,kor->or", p["b"], b) / math.sqrt(7)
    right = a0 / math.sqrt(w.shape[1]) + np.einsum("k,kri->ri", p["a"], a) / math.sqrt(7)
    return 6.0 / 3 * left @ right


def randlora_paper(u, w):
    p = numbers(u)
    a, b = (math.sqrt(3) * held.on(torch.device("cpu")).double().numpy() for held in u._bases)
    n = p["lam"].shape[1]
    total = sum(b[:, j] @ np.diag(p["lam"][:, j]) @ a @ np.diag(p["gamma"][j]) for j in range(n))
    total = 6.0 / (3 * math.sqrt(n)) * total
    return total if w.shape[0] >= w.shape[1] else total.T


def two_bases(u, w):
    total = randlora_paper(u, w)
    assert u.lam.shape == (3, 2) and np.linalg.matrix_rank(total, tol=1e-6) == 6
    return total


WANTED = [abba, dylora, elalora, kradapter, lora_xs, nola, randlora_paper, two_bases]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("want", WANTED, ids=lambda f: f.__name__)
def test_delta_weight_is_the_formula(want, shape):
    update, weight = make(want.__name__, shape)
    expected = want(update, weight)
    assert np.abs(expected).max() > 1e-3
    delta = update.delta_weight().detach().double().numpy()
    np.testing.assert_allclose(delta, expected, rtol=2e-4, atol=2e-5 * np.abs(expected).max())


@pytest.mark.parametrize("want", WANTED, ids=lambda f: f.__name__)
def test_forward_is_the_delta_weight_on_the_input(want):
    update, _ = make(want.__name__)
    x = torch.randn(2, 5, 11)
    torch.testing.assert_close(update(x), x @ update.delta_weight().T, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", UPDATES)
def test_gradients_agree_with_finite_differences(name):
    update, _ = make(name)
    update = update.double()
    if hasattr(update, "_bases"):
        update._bases = tuple(_Fixed(held) for held in update._bases)
    x = torch.randn(3, 11, dtype=torch.float64)
    trained = [p for p in update.parameters() if p.requires_grad]

    def loss(*values):
        named = dict(zip([n for n, _ in update.named_parameters()], values, strict=True))
        return torch.func.functional_call(update, named, (x,)).sin().sum()

    assert torch.autograd.gradcheck(loss, tuple(trained), atol=1e-6)


class _Fixed:
    def __init__(self, bank):
        self._held = bank.on(torch.device("cpu")).double()

    def on(self, device):
        return self._held


@pytest.mark.parametrize("name", UPDATES)
def test_nothing_is_added_before_training(name):
    torch.manual_seed(0)
    kind, config = UPDATES[name]
    update = kind(nn.Linear(11, 7), config)
    largest = update(torch.randn(5, 11)).abs().max()
    assert largest < (1e-3 if name == "lora_xs" else 1e-30)


def test_abba_starts_from_the_best_approximation_of_the_weight():
    torch.manual_seed(0)
    base = nn.Linear(11, 7)
    update = AbbaUpdate(base, AbbaConfig(r=3))
    s = scipy.linalg.svdvals(base.weight.detach().numpy())
    missed = np.linalg.norm(base.weight.detach() - (update.b1 @ update.a1).detach())
    assert missed < 1.001 * np.linalg.norm(s[3:])
    np.testing.assert_allclose((update.b1.T @ update.b1).detach(), np.diag(s[:3]), atol=0.01)
    assert not update.b2.any() and update.a2.std() > 0.1


@pytest.mark.parametrize("shape", [*SHAPES, (1, 5), (100, 30)], ids=str)
def test_kradapter_has_the_fewest_numbers_and_full_rank(shape):
    torch.manual_seed(0)
    update = KRAdapterUpdate(nn.Linear(shape[1], shape[0]), KRAdapterConfig())
    small, large = sorted(shape)
    counts = {k * small + math.ceil(large / k) * small for k in range(1, large + 1)}
    assert sum(p.numel() for p in update.parameters()) == min(counts)
    # each column of V as LoRA's A, by the number of its entries: the authors' a = 5
    bound = math.sqrt(6 / 26 / len(update.v))
    assert 0.7 * bound < update.v.abs().max() <= bound and not update.u.any()
    nn.init.normal_(update.u)
    assert torch.linalg.matrix_rank(update.delta_weight()) == small


def test_kradapter_with_one_row_is_any_matrix_and_refuses_more_than_the_root():
    update = KRAdapterUpdate(nn.Linear(7, 11), KRAdapterConfig(r=1, alpha=1.0))
    nn.init.ones_(update.u)
    assert torch.equal(update.delta_weight(), update.v) and update.v.shape == (11, 7)
    with pytest.raises(ValueError, match=r"`rows` must be 0 to 3, the root of .* \(11, 7\), got 4"):
        KRAdapterUpdate(nn.Linear(7, 11), KRAdapterConfig(r=4))


def test_lora_xs_refuses_more_ranks_than_the_weight_has():
    with pytest.raises(ValueError, match="`r` must be at most 7"):
        LoraXsUpdate(nn.Linear(11, 7), LoraXsConfig(r=8))


def test_aurora_is_its_formula_with_scipys_splines():
    update, _ = make("aurora")
    p = numbers(update)
    x = np.random.default_rng(0).normal(size=(5, 11))
    h = x @ p["a"].T
    knots = -1 + 2 / 5 * np.arange(-3, 5 + 3 + 1)
    splines = np.zeros((5, 3, 8))
    for i in range(8):
        one = scipy.interpolate.BSpline(knots, np.eye(8)[i], 3, extrapolate=False)
        inside = (h >= knots[0]) & (h < knots[-1])
        # outside [-1, 1] scipy's basis elements are meant, each on its own knots
        alone = scipy.interpolate.BSpline.basis_element(knots[i : i + 5], extrapolate=False)
        splines[..., i] = np.nan_to_num(np.where(inside, alone(h), 0.0))
        middle = (h >= -1) & (h < 1)
        np.testing.assert_allclose(splines[..., i][middle], one(h)[middle], atol=1e-12)
    sigma = np.tanh(np.tanh(h) @ p["mixer"].T) + splines.sum(1) @ p["spline"].T
    want = 6.0 / 3 * sigma @ p["b"].T
    got = update(torch.from_numpy(x).float()).detach().numpy()
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)


def test_splines_sum_to_one_on_the_interval_and_fade_outside():
    x = torch.linspace(-1, 0.999, 50, dtype=torch.float64)
    torch.testing.assert_close(bsplines(x, 5, 3).sum(-1), torch.ones_like(x))
    assert not bsplines(torch.tensor([-2.3, 2.3]), 5, 3).any()


def test_bases_are_shared_drawn_from_the_seed_and_never_saved():
    one, other = (
        NolaUpdate(nn.Linear(11, 7), NolaConfig()),
        NolaUpdate(nn.Linear(11, 7), NolaConfig()),
    )
    assert one._bases[1] is other._bases[1]
    assert set(one.state_dict()) == {"a", "b"}
    first = one._bases[1].on(torch.device("cpu")).clone()
    del one, other
    again = NolaUpdate(nn.Linear(11, 7), NolaConfig())
    assert torch.equal(again._bases[1].on(torch.device("cpu")), first)
    moved = NolaUpdate(nn.Linear(11, 7), NolaConfig(seed=1))
    assert not torch.equal(moved._bases[1].on(torch.device("cpu")), first)
    # uniform on [-1, 1]: variance 1/3
    assert abs(first.var() - 1 / 3) < 0.01 and abs(first.mean()) < 0.02


@pytest.mark.parametrize(
    ("name", "phi"),
    [
        ("sine_lora", lambda x: np.sin(200.0 * x) / math.sqrt(32)),
        ("loran", lambda x: x + 5e-4 * x * np.sin(1e3 * x)),
    ],
)
def test_points_of_our_tuner_are_the_published_functions(family, name, phi):
    model = adapters.attach(
        family("bert").model(),
        {"method": name, "r": 4, "alpha": 8.0, "target_modules": ["query"]},
    )
    layer = next(m for m in model.modules() if isinstance(m, adapters.BasisLinear))
    assert layer.get_delta_weight("default").abs().max() < 1e-12
    assert adapters.count_parameters(model)["phi"] == 0
    with torch.no_grad():
        layer.basis_B["default"].normal_(std=0.02)
    x = layer.basis_B["default"].detach().double() @ layer.basis_A["default"].detach().double()
    want = 8.0 / 4 * phi(x.numpy())
    got = layer.get_delta_weight("default").detach().numpy()
    np.testing.assert_allclose(got, want, rtol=0, atol=3e-6 * np.abs(want).max())


def test_the_amplitude_of_sine_lora_is_one_over_the_root_of_the_inputs(family):
    model = adapters.attach(
        family("bert").model(),
        {"method": "sine_lora", "r": 2, "target_modules": ["query", "output.dense"]},
    )
    found = {
        (layer.in_features, round(float(phi.amplitude), 6))
        for layer in model.modules()
        if isinstance(layer, adapters.BasisLinear)
        for phi in layer.basis_phi.values()
    }
    assert found == {(32, round(32**-0.5, 6)), (48, round(48**-0.5, 6))}


@pytest.mark.parametrize(
    "name", [m for m in adapters.list_methods() if adapters.get_method(m).config is not None]
)
def test_convertible_and_low_rank_are_what_the_registry_says(family, name):
    method = adapters.get_method(name)
    bert = family("bert")
    options = {"r": 4, "target_modules": ["query"], "feedforward_modules": []}
    options = {k: v for k, v in options.items() if k in [*method.options(), *method.ignored]}
    torch.manual_seed(0)
    model = adapters.attach(bert.model(), {"method": name, **options})
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.02)
    for _ in range(3):
        model(**bert.batch()).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    want = bert.output(model)
    layer = next(m for m in model.modules() if hasattr(m, "base_layer"))
    if method.low_rank:
        values = torch.linalg.svdvals(layer.get_delta_weight("default").detach())
        ranks = {"adalora": 6}.get(name, 4)
        assert values[ranks] < 1e-4 * values[0], values
    if not method.convertible:
        return
    config, state = convert_to_lora(model, rank=32)
    config.modules_to_save = None
    lora = get_peft_model(plain_copy(bert, model), config)
    set_peft_model_state_dict(lora, {n: t for n, t in state.items() if "lora_" in n})
    effect = (want - bert.output(plain_copy(bert, model))).abs().max()
    error = (bert.output(lora) - want).abs().max()
    assert error < 0.02 * effect, f"conversion of {name} is off by {error:.2g} of {effect:.2g}"


def plain_copy(bert, model):
    """The base with the trained head, without the adapter."""
    plain = bert.model()
    plain.classifier.load_state_dict(
        model.get_base_model().classifier.modules_to_save["default"].state_dict()
    )
    return plain
