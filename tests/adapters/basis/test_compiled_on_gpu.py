"""torch.compile and CUDA graphs on a GPU: eager's training, in each mode; kept launches."""

from collections.abc import Callable

import pytest
import torch
from peft import get_peft_model
from torch import Tensor, nn
from torch._dynamo.utils import counters
from transformers import LlamaConfig, LlamaForCausalLM

import adapters
from adapters import BasisConfig
from adapters.ops import merge
from adapters.ops.merge import reference
from bench.adapter.cases import case
from bench.adapter.timing import captured

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.usefixtures("fresh_compiler"),
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


def llama(dtype: torch.dtype, **options) -> nn.Module:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=100, hidden_size=96, intermediate_size=176, num_hidden_layers=3,
        num_attention_heads=4, num_key_value_heads=2, use_cache=False,
    )  # fmt: skip
    base = LlamaForCausalLM(config).to(dtype)
    names = ["q_proj", "v_proj", "gate_proj", "down_proj"]
    model = get_peft_model(base, BasisConfig(r=8, alpha=8, target_modules=names, **options))
    draw = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if "basis_B" in name or "amplitude" in name:
                p.copy_(0.1 * torch.randn(p.shape, generator=draw))
    return model.cuda().train()


IDS = torch.arange(4 * 37).reshape(4, 37) % 100


def gradients(model: nn.Module, called: nn.Module) -> dict[str, Tensor]:
    model.zero_grad()
    ids = IDS.cuda()
    called(input_ids=ids, labels=ids).loss.backward()
    return {n: p.grad.double() for n, p in model.named_parameters() if p.grad is not None}


def by_kind(got: dict[str, Tensor], want: dict[str, Tensor]) -> dict[str, float]:
    """Relative errors of the gradients of one kind together: single ones may be all rounding."""
    found = {}
    for kind in ("basis_A", "basis_B", "amplitude", "raw_bandwidth"):
        names = [n for n in want if kind in n]
        if names:
            off = torch.stack([(got[n] - want[n]).norm() for n in names]).norm()
            found[kind] = float(off / torch.stack([want[n].norm() for n in names]).norm())
    return found


@pytest.mark.parametrize("basis", ["sinc", "hat"])
def test_gradients_of_the_compiled_model_are_eagers(basis):
    exact: dict[str, Tensor] = {}
    for dtype in (torch.float32, torch.bfloat16):
        torch._dynamo.reset()
        model = llama(dtype, basis=basis)
        eager = gradients(model, model)
        compiled = gradients(model, torch.compile(model))
        if dtype is torch.float32:
            exact = eager
            assert max(by_kind(compiled, eager).values()) < 1e-3
            continue
        # bfloat16 rounds both, each in its own way: compiled is no farther from float32
        of_eager, of_compiled = by_kind(eager, exact), by_kind(compiled, exact)
        for kind, error in of_compiled.items():
            assert error < 2 * of_eager[kind] + 1e-3, kind
    assert not counters["graph_break"]


def losses(model: nn.Module, run: Callable[[nn.Module], nn.Module], steps: int = 6) -> Tensor:
    called, ids = run(model), IDS.cuda()
    optimizer = torch.optim.AdamW(adapters.parameter_groups(model, 3e-3), fused=True)
    told = []
    for _ in range(steps):
        torch.compiler.cudagraph_mark_step_begin()
        loss = called(input_ids=ids, labels=ids).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        told.append(loss.detach().clone())
    return torch.stack(told)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("mode", ["default", "reduce-overhead"])
def test_compiled_training_is_eagers(dtype, mode):
    want = losses(llama(dtype), lambda model: model)
    got = losses(llama(dtype), lambda model: torch.compile(model, mode=mode))
    rounding = 1e-3 if dtype is torch.float32 else 2e-2
    torch.testing.assert_close(got, want, rtol=rounding, atol=rounding)
    assert want[0] > want[-1]
    assert counters["stats"]["unique_graphs"] == 1


def test_cuda_graphs_of_the_compiler_are_recorded_once(monkeypatch):
    recorded, graph = [], torch.cuda.CUDAGraph
    monkeypatch.setattr(torch.cuda, "CUDAGraph", lambda *_, **__: recorded.append(1) or graph())
    model = llama(torch.bfloat16)
    losses(model, lambda model: torch.compile(model, mode="reduce-overhead"), steps=10)
    assert len(recorded) <= 3  # one forward, one backward, and one that holds their memory


@pytest.mark.parametrize("basis", ["sinc", "hat"])
def test_a_captured_step_has_eagers_bits(basis):
    told = []
    for capture in (False, True):
        model, ids = llama(torch.bfloat16, basis=basis), IDS.cuda()
        groups = adapters.parameter_groups(model, 1e-3)
        optimizer = torch.optim.AdamW(groups, fused=True, capturable=True)
        loss = torch.zeros((), device="cuda")

        def step(model=model, optimizer=optimizer, ids=ids, loss=loss) -> None:
            now = model(input_ids=ids, labels=ids).loss
            now.backward()
            optimizer.step()
            optimizer.zero_grad()
            loss.copy_(now.detach())

        call: Callable[[], object] = captured(step) if capture else step
        for _ in range(4 if capture else 6):  # two before the capture
            call()
        told.append([loss, *(p.detach() for p in model.parameters() if p.requires_grad)])
    for one, other in zip(*told, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("basis", ["sinc", "hat"])
def test_a_launch_that_was_kept_is_no_other(dtype, basis):
    """Pointers off their alignment, other strides, other sizes: each has its own compilation."""
    for shape in ((65, 130), (64, 128), (128, 64)):
        b, a, proxy, _ = case(basis, 0.05, shape, 5, "cuda")
        b, a = b.detach(), a.detach()
        flat = torch.randn(shape[0] * shape[1] + 1, device="cuda").to(dtype)
        for weight in (flat[:-1].view(shape), flat[1:].view(shape), flat[:-1].view(shape[::-1]).T):
            want = reference.merged_weight(weight, b, a, proxy, 0.7)
            parts = reference.merge_gradients(weight, b, a, proxy, 0.7)
            for _ in range(2):
                got = merge.merged_weight(weight, b, a, proxy, 0.7)
                torch.testing.assert_close(got, want, rtol=1e-2, atol=1e-3)
                for one, other in zip(
                    merge.merge_gradients(weight, b, a, proxy, 0.7), parts, strict=True
                ):
                    assert float((one - other).norm() / other.norm()) < 3e-3
