"""One linear layer in a block of its own, so that every method adapts it as it adapts a model."""

from collections import OrderedDict
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers.utils.generic import ModelOutput


@dataclass
class MatrixShape:
    """What the layer is made of."""

    out: int
    n_in: int
    gain: float
    """W is normal with the variance gain² / in; 0 for W = 0."""


class MatrixModel(nn.Module):
    """Gives what the adapter adds: x (W' - W)ᵀ, W being the weight before it was adapted."""

    before: Tensor | None

    def __init__(self, config: MatrixShape) -> None:
        super().__init__()
        self.config = config
        linear = nn.Linear(config.n_in, config.out, bias=False)
        if not linear.weight.is_meta:
            draw = torch.randn(linear.weight.shape, generator=torch.Generator().manual_seed(0))
            linear.weight.data = draw * config.gain / config.n_in**0.5
        self.layers = nn.ModuleList([nn.Sequential(OrderedDict(linear=linear))])
        before = linear.weight.detach().clone() if config.gain else None
        self.register_buffer("before", before, persistent=False)

    def forward(self, inputs: Tensor) -> ModelOutput:
        """(*, in) -> logits (*, out)."""
        logits = self.layers[0](inputs)
        if self.before is not None:
            logits = logits - nn.functional.linear(inputs, self.before)
        return ModelOutput(logits=logits)
