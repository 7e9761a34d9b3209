"""A backbone with an adapter on it, as a trial trains it."""

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
