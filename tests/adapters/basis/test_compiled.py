"""torch.compile: one graph for the body, eager's numbers, and no more compilations than kinds."""

from collections.abc import Callable

import pytest
import torch
import torch._dynamo.testing
from peft import get_peft_model
from torch import Tensor, nn
from torch._dynamo.utils import counters
from torch.nn.functional import cross_entropy
from torch.utils.checkpoint import checkpoint
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.modeling_outputs import CausalLMOutput

from adapters import BasisConfig
from adapters.ops import operators
from adapters.ops.linear import merged_linear
from adapters.ops.weight import effective_weight, weight_update

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("fresh_compiler")]
LINEAR = ["q_proj", "down_proj"]
IDS = torch.arange(24).reshape(3, 8) % 20


def llama(**options) -> nn.Module:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=20, hidden_size=32, intermediate_size=48, num_hidden_layers=1,
        num_attention_heads=4, num_key_value_heads=2, use_cache=False,
    )  # fmt: skip
    return adapted(LlamaForCausalLM(config), **options)


class Small(nn.Module):
    """Predicts tokens as Llama does; what is asked of no model in particular is compiled sooner."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.head = nn.Embedding(20, 32), nn.Linear(32, 20)
        self.q_proj, self.v_proj = nn.Linear(32, 32), nn.Linear(32, 32)
        self.checkpointed = False

    def forward(self, input_ids: Tensor, labels: Tensor | None = None) -> CausalLMOutput:
        x = self.embedding(input_ids)
        y = checkpoint(self.body, x, use_reentrant=False) if self.checkpointed else self.body(x)
        logits = self.head(y)
        if labels is None:
            return CausalLMOutput(logits=logits)
        return CausalLMOutput(cross_entropy(logits.flatten(0, 1), labels.flatten()), logits)

    def body(self, x: Tensor) -> Tensor:
        return torch.tanh(self.q_proj(x)) * self.v_proj(x)


def small() -> nn.Module:
    torch.manual_seed(0)
    return adapted(Small(), target_modules=["q_proj"])


def adapted(model: nn.Module, **options) -> nn.Module:
    options = {"target_modules": LINEAR, "r": 4, "alpha": 8, **options}
    model = get_peft_model(model, BasisConfig(**options)).train()
    spread(model, 0.3)
    return model


@torch.no_grad()
def spread(model: nn.Module, size: float) -> None:
    draw = torch.Generator().manual_seed(1)
    for name, parameter in model.named_parameters():
        if "basis_B" in name or "amplitude" in name:
            parameter.copy_(size * torch.randn(parameter.shape, generator=draw))


def step(model: nn.Module, called: nn.Module, ids: Tensor = IDS) -> dict[str, Tensor]:
    model.zero_grad()
    loss = called(input_ids=ids, labels=ids).loss
    loss.backward()
    told = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    return told | {"loss": loss.detach()}


def same(got: dict[str, Tensor], want: dict[str, Tensor]) -> None:
    assert got.keys() == want.keys()
    for name, value in want.items():
        torch.testing.assert_close(got[name], value, rtol=1e-4, atol=1e-6, msg=name)


def graphs() -> int:
    return counters["stats"]["unique_graphs"]


@pytest.mark.parametrize(
    "options",
    [
        {"basis": "hat"},
        {"input_scale": "learned"},
        pytest.param({"input_scale": "rms"}, marks=pytest.mark.thorough),
        pytest.param({"sharing": "all"}, marks=pytest.mark.thorough),
        pytest.param({"path": "split", "dropout": 0.0}, marks=pytest.mark.thorough),
        {"merge_once": True},
    ],
    ids=str,
)
def test_the_model_compiled_has_eagers_gradients_in_one_graph(options):
    model = llama(**options)
    want = step(model, model)
    same(step(model, torch.compile(model, backend="aot_eager")), want)
    assert graphs() == 1 and not counters["graph_break"]


def test_the_body_is_one_full_graph_for_inductor():
    model = llama(target_modules=["q_proj"])
    want = step(model, model)
    body = model.get_base_model()
    body.forward = torch.compile(body.forward, fullgraph=True)
    same(step(model, model), want)


def test_training_steps_follow_eagers_without_compiling_again():
    told = []
    for compiled in (False, True):
        model = small()
        called = torch.compile(model, backend="aot_eager") if compiled else model
        trained = [p for p in model.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(trained, lr=1e-2)
        losses = []
        for _ in range(5):
            losses.append(step(model, called)["loss"])
            optimizer.step()
        model.eval()
        with torch.no_grad():
            losses.append(called(input_ids=IDS, labels=IDS).loss)
        told.append(torch.stack(losses))
    torch.testing.assert_close(*told, rtol=1e-4, atol=1e-6)
    assert graphs() == 2  # one for training, one for evaluation


def test_compiled_passes_find_their_proxies_where_they_lay():
    """torch's CUDA graphs take them for tensors that stay, and are recorded anew if they move."""
    model = llama()
    [batch] = {b for m in model.modules() for b in getattr(m, "batches", {}).values()}
    places = []

    def compiler(graph: torch.fx.GraphModule, _: list) -> Callable[..., object]:
        def run(*inputs: object) -> object:
            proxies = [layer.proxies[batch.adapter] for layer in batch.layers]
            places.append([t.data_ptr() for proxy in proxies for t in proxy.tensors])
            return graph(*inputs)

        return run

    called, kept = torch.compile(model, backend=compiler), []
    for size in (0.1, 0.11, 0.12):
        spread(model, size)
        kept.append(step(model, called))  # memory that is in use cannot be given twice
    assert places[0] == places[1] == places[2]


def test_a_backward_pass_whose_proxies_were_written_since_raises():
    model = small()
    called = torch.compile(model, backend="aot_eager")
    late = called(input_ids=IDS, labels=IDS).loss
    for p in model.parameters():
        p.data = p.data.clone()  # no change that torch would see, but another place
    called(input_ids=IDS, labels=IDS).loss.backward()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        late.backward()


def test_only_another_kind_of_proxy_is_compiled_anew():
    model = small()
    called = torch.compile(model, backend="aot_eager")
    for size in (0.1, 0.11, 0.12):
        spread(model, size)
        same(step(model, called), step(model, model))
    assert graphs() == 1
    [batch] = {b for m in model.modules() for b in getattr(m, "batches", {}).values()}
    before = batch.degree
    spread(model, 3.0)
    same(step(model, called), step(model, model))
    assert batch.degree > before and graphs() == 2


def test_lengths_may_differ():
    model = small()
    called = torch.compile(model, backend="aot_eager")
    for length in (8, 5, 7):
        same(step(model, called, IDS[:, :length]), step(model, model, IDS[:, :length]))
    assert graphs() == 2 and not counters["graph_break"]  # the second knows any length


def test_with_gradient_checkpointing():
    model = small()
    want = step(model, model)
    model.get_base_model().checkpointed = True
    same(step(model, torch.compile(model, backend="aot_eager")), want)
    assert graphs() == 1 and not counters["graph_break"]


@pytest.mark.thorough
def test_with_the_gradient_checkpointing_of_transformers():
    model = llama(target_modules=["q_proj"])
    want = step(model, model)
    model.get_base_model().gradient_checkpointing_enable({"use_reentrant": False})
    same(step(model, torch.compile(model, backend="aot_eager")), want)


def test_merged_disabled_and_other_adapters():
    model = small()
    config = BasisConfig(target_modules=["v_proj"], r=2, start="paper")
    model.add_adapter("other", config)
    model.eval()
    called = torch.compile(model, backend="aot_eager")

    @torch.no_grad()
    def check() -> None:
        want = model(input_ids=IDS).logits
        torch.testing.assert_close(called(input_ids=IDS).logits, want, rtol=1e-4, atol=1e-5)

    check()
    model.set_adapter("other")
    check()
    with model.disable_adapter():
        check()
    model.merge_adapter()
    check()
    model.unmerge_adapter()
    check()


class Kinds(nn.Module):
    """A layer of each kind that the operator of a weight serves."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(20, 6)
        self.convolution = nn.Conv1d(6, 4, 3)
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        y = self.convolution(self.embedding(x).mT).mT
        return self.attention(y, y, y, need_weights=False)[0]


def test_embeddings_convolutions_and_attention():
    torch.manual_seed(0)
    names = ["embedding", "convolution", "attention"]
    model = get_peft_model(Kinds(), BasisConfig(r=2, alpha=2, target_modules=names)).train()
    spread(model, 0.3)
    told = []
    for called in (model, torch.compile(model, backend="aot_eager")):
        model.zero_grad()
        called(IDS).square().mean().backward()
        told.append({n: p.grad.clone() for n, p in model.named_parameters() if p.requires_grad})
    same(*reversed(told))
    assert graphs() == 1


def test_a_layer_by_itself_asks_for_its_numbers_of_now():
    model = llama(target_modules=["q_proj"])
    layer = model.get_base_model().model.layers[0].self_attn.q_proj
    called, x = torch.compile(layer, backend="aot_eager"), torch.ones(2, 32)
    for size in (0.1, 0.5):
        spread(model, size)
        step(model, model)
        torch.testing.assert_close(called(x), layer(x), rtol=1e-4, atol=1e-5)
        spread(model, size + 0.1)  # without a step of an optimizer
        torch.testing.assert_close(called(x), layer(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("trained", ["weight", "bias"])
def test_a_trained_base_is_trained(trained):
    torch.manual_seed(0)
    model = get_peft_model(nn.Sequential(nn.Linear(5, 4)), BasisConfig(r=2, target_modules=["0"]))
    spread(model, 0.3)
    getattr(model.get_base_model()[0].base_layer, trained).requires_grad_()
    told = []
    for called in (model, torch.compile(model, backend="aot_eager")):
        model.zero_grad()
        called(torch.ones(3, 5)).square().sum().backward()
        told.append({n: p.grad.clone() for n, p in model.named_parameters() if p.requires_grad})
    assert any(trained in name for name in told[0])
    same(*reversed(told))


def test_phi_without_a_proxy_is_evaluated_outside_the_graph(monkeypatch):
    monkeypatch.setattr(operators, "can_be_operator", lambda _: False)
    model = small()
    want = step(model, model)
    with pytest.warns(UserWarning, match="outside the compiled graph, since phi has no proxy"):
        same(step(model, torch.compile(model, backend="aot_eager")), want)
    assert counters["graph_break"]


CASES = [("sinc", 0.05), ("hat", 0.05)]


@pytest.mark.parametrize(("basis", "reach"), CASES)
@pytest.mark.parametrize("turned", [False, True], ids=["rows", "columns"])
def test_operators_are_what_the_compiler_is_told(basis, reach, turned):
    numbers, w, x = _case(basis, reach)
    w = w.T.contiguous().T if turned else w
    bias = torch.randn(6)
    rest = (*numbers, 0.7, None)
    torch.library.opcheck(operators.linear, (x, w, bias, *rest, False))
    torch.library.opcheck(operators.linear, (x.transpose(0, 1), w, None, *rest, True))
    for of_x in (True, False):
        given = (torch.randn(2, 3, 6), x, w, *rest, False, not of_x, of_x)
        torch.library.opcheck(operators.linear_backward, given)
    torch.library.opcheck(operators.weight, (w, *rest, True))
    torch.library.opcheck(operators.weight, (None, *rest, False))
    for times in (None, w):
        torch.library.opcheck(operators.weight_backward, (w, *numbers, 0.7, times))


def _case(basis: str, reach: float) -> tuple[tuple[Tensor, ...], Tensor, Tensor]:
    from bench.adapter.cases import case

    torch.manual_seed(0)
    b, a, proxy, _ = case(basis, reach, (6, 5), 2, "cpu")
    b, a = b.detach(), a.detach()
    coefficients, *others = operators.numbers(proxy)
    return (b, a, coefficients.detach(), *others), torch.randn(6, 5), torch.randn(2, 3, 5)


@pytest.mark.parametrize("hadamard", [False, True])
@pytest.mark.parametrize(("basis", "reach"), CASES)
def test_each_operator_has_eagers_gradients(basis, reach, hadamard):
    from bench.adapter.cases import case

    torch.manual_seed(0)
    b, a, proxy, _ = case(basis, reach, (6, 5), 2, "cpu")
    w, x = torch.randn(6, 5), torch.randn(2, 3, 5, requires_grad=True)
    leaves = [x, b.detach().requires_grad_(), a.detach().requires_grad_()]
    leaves.append(proxy.coefficients.detach().requires_grad_())

    def all_three(x: Tensor, b: Tensor, a: Tensor, coefficients: Tensor) -> Tensor:
        own = proxy.rebuilt((coefficients, *proxy.tensors[1:]))
        y = merged_linear(x, w, None, b, a, own, 0.7, hadamard=hadamard)
        y = y + merged_linear(x, None, None, b, a, own, 0.3)
        merged = effective_weight(w, b, a, own, 0.5, hadamard=hadamard)
        return y @ merged @ weight_update(b, a, own, 0.2).T

    told = []
    for function in (all_three, torch.compile(all_three, fullgraph=True, backend="aot_eager")):
        y = function(*leaves)
        told.append([y, *torch.autograd.grad(y.square().sum(), leaves)])
    for one, other in zip(*told, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
