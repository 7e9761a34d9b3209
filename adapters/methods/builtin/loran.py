"""LoRAN: a point of our own tuner, the identity with a fixed ripple."""

from typing import Any

from adapters.basis.config import BasisConfig
from adapters.methods.registry import Method, register_method

AMPLITUDE, FREQUENCY = 5e-4, 1e3


def _complete(options: dict[str, Any]) -> dict[str, Any]:
    options = dict(options)
    amplitude = options.pop("amplitude", AMPLITUDE)
    return {**options, "start_options": {"value": amplitude}}


register_method(
    Method(
        "loran",
        BasisConfig,
        renamed={"frequency": "bandwidth", "amplitude": "amplitude"},
        fixed={
            "basis": "sinter",
            "num_basis": 1,
            "start": "constant",
            "train_amplitude": False,
            "train_bandwidth": False,
        },
        defaults={"bandwidth": FREQUENCY},
        complete=_complete,
        formula="(alpha / r) (x + amplitude · x sin(frequency · x)), x = B A",
        source="Li et al., arXiv 2509.21870; liyinqiao2012/PEFT-LoRAN",
        note="amplitude 5e-4 and frequency 1e3 are the code's; its README has 5e-5 and 1e4",
    )
)
