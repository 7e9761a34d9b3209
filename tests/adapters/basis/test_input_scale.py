"""The input scale on B A and the rule outside the interval, inside the tuner."""

import pytest
import torch
from peft import PeftModel, get_peft_model

import adapters
from adapters import BasisConfig, BasisLinear
from adapters.ops.merge import product


def attach(family, **options):
    torch.manual_seed(5)
    config = BasisConfig(r=2, num_basis=8, target_modules=["query", "dense"], **options)
    return get_peft_model(family.model(), config).eval()


def layers(model):
    return [m for m in model.modules() if isinstance(m, BasisLinear)]


def unscaled(layer):
    return product(layer.basis_B["default"], layer.basis_A["default"]).detach()


def test_a_number_scales_the_argument_of_phi(family):
    model = attach(family("bert"), input_scale=30.0, init_weights=False)
    layer = layers(model)[0]
    phi = layer.basis_phi["default"]
    want = layer.scaling["default"] * phi(30 * unscaled(layer))
    torch.testing.assert_close(layer.get_delta_weight("default"), want, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("rule", "measure"),
    [("rms", lambda x: x.square().mean().sqrt()), ("range", lambda x: x.abs().max())],
)
def test_a_measured_scale_makes_the_argument_as_large_as_told(family, rule, measure):
    bert = family("bert")
    model = attach(bert, input_scale=rule, input_scale_options={"value": 1.5}, init_weights=False)
    bert.output(model)
    assert all(layer.basis_scale["default"]() == 1 for layer in layers(model)), "measured in eval"
    model.train()(**bert.batch())
    for layer in layers(model):
        factor = layer.basis_scale["default"]()
        assert measure(factor * unscaled(layer)) == pytest.approx(1.5, rel=1e-4)
        first = factor.item()
        with torch.no_grad():
            layer.basis_B["default"].mul_(2)
        model(**bert.batch())
        assert layer.basis_scale["default"]().item() == first, "the first measurement is kept"


def test_a_momentum_follows_the_factors(family):
    bert = family("bert")
    options = {"value": 1.0, "momentum": 0.0}
    model = attach(bert, input_scale="rms", input_scale_options=options, init_weights=False).train()
    for _ in range(2):
        model(**bert.batch())
        for layer in layers(model):
            x = layer.basis_scale["default"]() * unscaled(layer)
            assert x.square().mean().sqrt() == pytest.approx(1.0, rel=1e-4)
            with torch.no_grad():
                layer.basis_B["default"].mul_(3)


def test_a_learned_scale_is_trained_with_phi(family):
    bert = family("bert")
    model = attach(bert, input_scale="learned", input_scale_options={"value": 5.0}, b_std=0.1)
    phi = {id(p) for p in adapters.phi_parameters(model)}
    scales = [layer.basis_scale["default"].log_scale for layer in layers(model)]
    assert all(id(s) in phi for s in scales)
    with torch.no_grad():
        for layer in layers(model):
            layer.basis_phi["default"].amplitude.normal_()
    scale = scales[0]
    model(**bert.batch()).loss.backward()
    got, step = scale.grad.item(), 1e-2
    losses = []
    for sign in (1, -1):
        with torch.no_grad():
            scale.add_(sign * step)
            losses.append(model(**bert.batch()).loss.item())
            scale.sub_(sign * step)
    assert got == pytest.approx((losses[0] - losses[1]) / (2 * step), rel=0.05)


@pytest.mark.parametrize("rule", ["fixed", "learned", "rms", "range"])
def test_scaled_forward_reloaded_and_merged_are_bit_equal(family, few_steps, tmp_path, rule):
    bert = family("bert", torch.bfloat16)
    options = {"input_scale_options": {"value": 2.0}, "extrapolation": "clamp"}
    model = attach(bert, input_scale=rule, init_weights=False, interval=(-0.5, 0.5), **options)
    few_steps(model, bert.batch())
    want = bert.output(model)
    model.save_pretrained(tmp_path)
    for lean in (False, True):
        again = PeftModel.from_pretrained(bert.model(), tmp_path, low_cpu_mem_usage=lean)
        assert torch.equal(bert.output(again), want), f"low_cpu_mem_usage={lean}"
    assert torch.equal(bert.output(again.merge_and_unload()), want)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"input_scale": "rmss"}, "unknown input scale 'rmss'. Did you mean 'rms'"),
        ({"input_scale": -1.0}, "must be positive"),
        ({"input_scale_options": {"value": 2.0}}, "need an `input_scale`"),
        ({"extrapolation": "clam"}, "unknown extrapolation 'clam'"),
    ],
)
def test_wrong_scales_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        BasisConfig(**options)
