"""A backbone with an adapter on it, as a trial trains it, and the size of that adapter."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

import adapters


def attached(model: nn.Module, adapter: Mapping[str, Any]) -> nn.Module:
    """`model` with `adapter`; what is trained is float32.

    Raises:
        ValueError: as `adapters.attach`.
    """
    adapted = adapters.attach(model, dict(adapter))
    for parameter in adapted.parameters():
        if parameter.requires_grad and parameter.dtype in (torch.bfloat16, torch.float16):
            parameter.data = parameter.data.float()  # small updates vanish in half precision
    return adapted


def matched(
    model: nn.Module, adapter: Mapping[str, Any], reference: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """`adapter` with its size set, and what was chosen: option, value and both counts.

    `model` is the one that both would adapt; it is not changed, and no random number is drawn.

    Raises:
        ValueError: as `adapters.match`.
    """
    with torch.random.fork_rng():
        match = adapters.match(lambda: type(model)(model.config), dict(reference), dict(adapter))
    option = match["option"]
    chosen = {
        "option": option,
        "value": match["adapter"].get(option) if option else None,
        "parameters": match["parameters"],
        "reference_parameters": match["reference_parameters"],
    }
    return match["adapter"], chosen
