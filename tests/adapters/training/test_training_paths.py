"""A training by the fast path and by the definition; on a GPU also without waits and in a graph."""

import pytest
import torch
from peft import get_peft_model

import adapters
from adapters.ops import merge
from adapters.ops.merge import reference

ON_GPU = torch.cuda.is_available()
DEVICE = "cuda" if ON_GPU else "cpu"
gpu = pytest.mark.skipif(not ON_GPU, reason="needs a CUDA device")


def build(llama, **options):
    options = {"basis": "sinc", "num_basis": 16, "interval": (-1.0, 1.0), "b_std": 0.1, **options}
    base = llama.model().to(DEVICE)
    torch.manual_seed(0)
    config = adapters.BasisConfig(r=4, target_modules="all", task_type="CAUSAL_LM", **options)
    return get_peft_model(base, config).train()


def inputs(llama):
    return {name: value.to(DEVICE) for name, value in llama.batch().items()}


def losses(llama, steps, **options):
    """The loss before each of `steps` steps."""
    model, batch = build(llama, **options), inputs(llama)
    optimizer = torch.optim.AdamW(adapters.parameter_groups(model, 3e-3))
    found = []
    for _ in range(steps):
        loss = model(**batch).loss
        loss.backward()
        adapters.clip_gradients(model, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        found.append(loss.item())
    return found


@pytest.mark.slow
@pytest.mark.parametrize("basis", ["sinc"] + ["hat"] * ON_GPU)
def test_the_loss_curve_is_that_of_the_definition(family, monkeypatch, basis):
    llama = family("llama")
    fast = losses(llama, 80, basis=basis)
    monkeypatch.setattr(merge, "_implementation", lambda *_: reference)
    slow = losses(llama, 80, basis=basis)
    assert fast[-1] < 0.9 * fast[0]
    worst = max(abs(one - other) for one, other in zip(fast, slow, strict=True))
    limit = 5e-3 if ON_GPU else 3e-4  # a GPU forms BA from tf32 parts
    assert worst < limit * fast[0], f"curves are {worst:.1e} apart"


@gpu
@pytest.mark.gpu
@pytest.mark.parametrize("basis", ["sinc", "hat"])
def test_a_step_never_waits_for_the_device(family, basis):
    llama = family("llama")
    model, batch = build(llama, basis=basis), inputs(llama)
    optimizer = torch.optim.AdamW(adapters.parameter_groups(model, 1e-3), fused=True)

    def step():
        model(**batch).loss.backward()
        adapters.clip_gradients(model, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    for _ in range(3):
        step()
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(3):
            step()
    finally:
        torch.cuda.set_sync_debug_mode("default")


@gpu
@pytest.mark.gpu
def test_forward_and_backward_replay_from_a_cuda_graph(family):
    llama = family("llama")
    model, batch = build(llama), inputs(llama)
    trained = [p for p in model.parameters() if p.requires_grad]
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            model(**batch).loss.backward()
            for p in trained:
                p.grad = None
    torch.cuda.current_stream().wait_stream(side)
    model(**batch).loss.backward()
    want = [p.grad.clone() for p in trained]
    for p in trained:
        p.grad = None
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        model(**batch).loss.backward()
    for p in trained:
        p.grad.zero_()
    graph.replay()
    torch.cuda.synchronize()
    for p, exact in zip(trained, want, strict=True):
        torch.testing.assert_close(p.grad, exact, rtol=2e-3, atol=1e-6)
