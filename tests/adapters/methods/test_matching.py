"""Sizes chosen for equal counts: against every size tried one by one, and by hand."""

import pytest
import torch

import adapters
from adapters.methods.matching import _nearest, count

REFERENCE = {"method": "lora", "r": 4, "target_modules": ["query", "value"]}
SIZED = [m for m in adapters.list_methods() if adapters.get_method(m).size is not None]


def options(name: str) -> dict:
    return {"method": name, "target_modules": ["query", "value"]}


@pytest.mark.parametrize("name", SIZED)
def test_no_other_size_is_nearer(family, name):
    factory = family("bert").model
    found = adapters.match(factory, REFERENCE, options(name))
    method = adapters.get_method(name)
    size = found["adapter"][method.size]
    assert found["option"] == method.size
    assert found["reference_parameters"] == 4 * 4 * 64
    sizes = list(method.sizes(32))
    place = sizes.index(size)
    error = abs(found["parameters"] - 1024)
    for other in sizes[max(0, place - 1) : place + 2]:
        there = count(factory, {**options(name), method.size: other})
        assert abs(there - 1024) >= error, f"{name}: {other} trains {there}, {size} was chosen"


def test_counts_of_matched_arms_are_those_of_real_models(family):
    bert = family("bert")
    for name in ("abba", "nola", "vera", "basis"):
        found = adapters.match(bert.model, REFERENCE, options(name))
        real = adapters.attach(bert.model(), found["adapter"])
        assert adapters.count_parameters(real)["adapter"] == found["parameters"]


@pytest.mark.parametrize(
    ("name", "size", "parameters"),
    [
        ("lora", 4, 1024),
        ("abba", 2, 1024),  # two pairs
        ("lora_xs", 16, 1024),  # r² a layer
        ("nola", 128, 1024),  # 2k a layer
        ("vera", 224, 1024),  # r + out a layer
        ("fourierft", 256, 1024),
        ("adalora", 2, 4 * 3 * 65),  # 1.5 times the final rank, and e
    ],
)
def test_sizes_are_those_worked_out_by_hand(family, name, size, parameters):
    found = adapters.match(family("bert").model, REFERENCE, options(name))
    assert found["adapter"][found["option"]] == size
    assert found["parameters"] == parameters


def test_methods_without_a_size_are_left_alone(family):
    given = {"method": "ia3", "target_modules": ["query"], "feedforward_modules": []}
    found = adapters.match(family("bert").model, REFERENCE, given)
    assert found["adapter"] == given and found["option"] is None
    assert found["parameters"] == 2 * 32


def test_a_rank_that_was_given_does_not_matter(family):
    given = {**options("lora"), "r": 17}
    assert adapters.match(family("bert").model, REFERENCE, given)["adapter"]["r"] == 4


def test_matching_fills_no_weights(family):
    filled = []

    def factory():
        model = family("llama").model()
        filled.extend(p for p in model.parameters() if not p.is_meta)
        return model

    reference = {**REFERENCE, "target_modules": ["q_proj", "down_proj"]}
    found = adapters.match(
        factory,
        reference,
        {"method": "randlora_paper", **{"target_modules": ["q_proj", "down_proj"]}},
    )
    assert not filled
    assert abs(found["parameters"] - found["reference_parameters"]) < 0.5 * found["parameters"]


@pytest.mark.parametrize("target", [-1, 0, 7, 8, 25, 230, 301, 304, 411, 10_000])
@pytest.mark.parametrize("falling", [False, True])
def test_bisection_finds_the_nearest(target, falling):
    def trained(size):
        return 500 - 7 * size if falling else 3 * size**2

    sizes = range(1, 40)
    best = min(sizes, key=lambda s: (abs(trained(s) - target), trained(s)))
    assert _nearest(trained, sizes, target) == best


def test_the_device_is_left_as_it_was(family):
    count(family("bert").model, REFERENCE)
    assert torch.empty(1).device.type == "cpu"
