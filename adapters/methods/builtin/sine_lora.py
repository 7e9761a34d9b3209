"""SineLoRA: a point of our own tuner, one sine of a fixed frequency."""

import math

from torch import nn

from adapters.basis.config import BasisConfig
from adapters.basis.layers import BasisLayer
from adapters.methods.registry import Method, register_method


def scale_amplitudes(model: nn.Module) -> None:
    """Divide each layer's amplitude by the root of its inputs, as the authors' code does.

    The amplitude is not trained but saved with the adapter, so that loading restores it.
    """
    for layer in (m for m in model.modules() if isinstance(m, BasisLayer)):
        for phi in layer.basis_phi.values():
            phi.amplitude.div_(math.sqrt(layer.in_features))


register_method(
    Method(
        "sine_lora",
        BasisConfig,
        renamed={"frequency": "bandwidth"},
        fixed={
            "basis": "sine",
            "num_basis": 1,
            "start": "constant",
            "train_amplitude": False,
            "train_bandwidth": False,
        },
        defaults={"bandwidth": 200.0},
        initialise=scale_amplitudes,
        formula="(alpha / r) sin(frequency · B A) / √in",
        source="Ji et al., ICLR 2025, arXiv 2403.19243; samy-ji/Sine-Low-Rank",
        note="the code has no default frequency; 200 is ours and a thing to tune",
    )
)
