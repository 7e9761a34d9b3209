"""phi and W' follow every change of the numbers behind them, whoever makes it."""

import copy

import pytest
import torch
from peft import get_peft_model
from torch import nn
from torch.nn import functional as F

from adapters import BasisConfig, BasisLinear

X = torch.randn(5, 12, generator=torch.Generator().manual_seed(3))


class Net(nn.Module):
    """Three layers, the first two of one shape."""

    def __init__(self, tied=False):
        super().__init__()
        self.first, self.second, self.last = nn.Linear(12, 12), nn.Linear(12, 12), nn.Linear(12, 3)
        if tied:
            self.second.weight = self.first.weight

    def forward(self, x):
        """(*, 12) -> (*, 3)."""
        return self.last(torch.tanh(self.second(torch.tanh(self.first(x)))))


def attach(tied=False, **options):
    torch.manual_seed(0)
    options = {"r": 4, "num_basis": 8, "init_weights": False, "b_std": 0.5, **options}
    return get_peft_model(Net(tied), BasisConfig(target_modules=["first", "second"], **options))


def definition(model, x=X):
    """The model's answer in float64, every function of phi evaluated at every entry of BA."""

    def linear(layer, x):
        if not isinstance(layer, BasisLinear):
            return F.linear(x, layer.weight.double(), layer.bias.double())
        base, phi = layer.base_layer, layer.basis_phi["default"]
        ba = layer.basis_B["default"].double() @ layer.basis_A["default"].double()
        numbers = phi.parameters_in_force().double()
        update = layer.scaling["default"] * phi.phi(ba.flatten(), numbers).view_as(ba)
        return F.linear(x, base.weight.double() + update, base.bias.double())

    net = model.get_base_model()
    hidden = torch.tanh(linear(net.first, x.double()))
    return linear(net.last, torch.tanh(linear(net.second, hidden)))


def require_right(model):
    """Forward and every gradient are those of the definition."""
    found = []
    for answer in (model, lambda x: definition(model, x)):
        model.zero_grad()
        y = answer(X)
        y.square().sum().backward()
        found.append([y.detach(), *(p.grad.clone() for p in model.parameters() if p.requires_grad)])
    for got, want in zip(*found, strict=True):
        torch.testing.assert_close(got.double(), want.double(), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("merge_once", [False, True])
@pytest.mark.parametrize("make", [torch.optim.AdamW, torch.optim.SGD])
def test_fused_optimizers_are_followed(make, merge_once):
    """They change parameters and leave torch's version counters alone."""
    model = attach(merge_once=merge_once)
    optimizer = make([p for p in model.parameters() if p.requires_grad], lr=0.02, fused=True)
    for step in range(1, 4):
        optimizer.zero_grad()
        model(X).square().mean().backward()
        optimizer.step()
        assert model(X).isfinite().all()
        assert model.first.batches["default"].fits == step + 1
    require_right(model)


class InPlace(torch.optim.Optimizer):
    """Gradient descent by `.data`, as many optimizers outside torch write it."""

    def __init__(self, parameters):
        super().__init__(parameters, {})

    def step(self):
        """One step."""
        for p in self.param_groups[0]["params"]:
            p.data.add_(p.grad.data, alpha=-0.02)


def test_an_optimizer_that_writes_through_data_is_followed():
    model = attach()
    optimizer = InPlace([p for p in model.parameters() if p.requires_grad])
    for _ in range(3):
        optimizer.zero_grad()
        model(X).square().mean().backward()
        optimizer.step()
    require_right(model)


@pytest.mark.parametrize("merge_once", [False, True])
@pytest.mark.parametrize("inference", [False, True])
def test_a_moving_average_is_evaluated_as_it_is(merge_once, inference):
    """The usual swap: evaluate, copy through `.data`, evaluate and merge, copy back, go on."""
    model = attach(merge_once=merge_once)
    model.train()(X).sum().backward()
    trained = [p for p in model.parameters() if p.requires_grad]
    raw = [p.detach().clone() for p in trained]
    model.eval()
    with torch.inference_mode(inference), torch.no_grad():
        torch.testing.assert_close(model(X).double(), definition(model), rtol=1e-4, atol=1e-5)
        for p in trained:
            p.data.copy_(p.flip(0) * 1.5)
        average = definition(model)
        torch.testing.assert_close(model(X).double(), average, rtol=1e-4, atol=1e-5)
        copied = copy.deepcopy(model).merge_and_unload()
        torch.testing.assert_close(copied(X).double(), average, rtol=1e-4, atol=1e-5)
        for p, value in zip(trained, raw, strict=True):
            p.data.copy_(value)
        model.merge_adapter()
        torch.testing.assert_close(
            model(X), attach().eval()(X), rtol=1e-4, atol=1e-5
        )  # the same seed: as at first
        model.unmerge_adapter()
    require_right(model.train())


def test_a_merge_sees_what_went_through_data():
    model = attach().eval()
    with torch.no_grad():
        model(X)
        for p in model.parameters():
            if p.requires_grad:
                p.data.mul_(1.4)
        want = definition(model)
        model.merge_adapter()
        torch.testing.assert_close(model(X).double(), want, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("merge_once", [False, True])
def test_a_model_made_in_inference_mode_answers(merge_once):
    with torch.inference_mode():
        model = attach(merge_once=merge_once)
        for _ in range(2):
            torch.testing.assert_close(model(X).double(), definition(model), rtol=1e-4, atol=1e-5)
        model.first.basis_phi["default"].amplitude.mul_(2)
        torch.testing.assert_close(model(X).double(), definition(model), rtol=1e-4, atol=1e-5)
        want = model(X)
        model.merge_adapter()
        assert torch.equal(model(X), want)


def test_training_goes_on_after_a_merge_in_inference_mode():
    model = attach()
    with torch.inference_mode():
        want = model(X)
        model.merge_adapter()
    x = X.clone().requires_grad_()
    answer = model(x)
    assert torch.equal(answer.detach(), want)
    answer.sum().backward()
    model.unmerge_adapter()
    require_right(model)


def test_a_replica_as_data_parallel_makes_it_is_refused_in_words():
    model = attach()
    replica = model.first._replicate_for_data_parallel()
    replica._parameters, replica._modules = model.first._parameters, model.first._modules
    for _ in range(2):
        with pytest.raises(RuntimeError, match=r"nn\.DataParallel makes"):
            replica(X)
    require_right(model)


def test_a_whole_replica_is_refused_in_words():
    model = attach()
    base = model.get_base_model()
    replica = base._replicate_for_data_parallel()
    replica._parameters, replica._modules = base._parameters, base._modules
    with pytest.raises(RuntimeError, match=r"nn\.DataParallel makes"):
        replica(X)
    require_right(model)


def test_an_interrupted_pass_leaves_nothing_that_a_merge_reads():
    model = attach()

    def interrupt(*_):
        raise KeyboardInterrupt

    handle = model.get_base_model().second.register_forward_pre_hook(interrupt)
    with pytest.raises(KeyboardInterrupt):
        model(X)
    handle.remove()
    copy.deepcopy(model)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.mul_(1.3)
    model.eval()
    want = definition(model)
    torch.testing.assert_close(model.merge_and_unload()(X).double(), want, rtol=1e-4, atol=1e-5)


def test_numbers_that_change_as_the_pass_begins_are_those_that_count():
    model = attach()

    def scale(*_):
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.data = parameter.data * 1.3

    model.get_base_model().register_forward_pre_hook(scale)  # after ours, as an offloader's would
    model(X)
    answer = model(X).detach()
    torch.testing.assert_close(answer.double(), definition(model), rtol=1e-4, atol=1e-5)


def test_gradients_that_are_turned_on_inside_of_a_pass_reach_phi():
    model = attach()
    base = model.get_base_model()
    inner = base.forward

    def with_gradients(x):
        with torch.enable_grad():
            return inner(x)

    base.forward = with_gradients
    model.eval()
    with torch.no_grad():
        answer = model(X)
    answer.sum().backward()
    assert all(p.grad is not None for n, p in model.named_parameters() if "amplitude" in n)
