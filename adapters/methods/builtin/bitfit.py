"""BitFit: only biases are trained, and the task's head."""

from adapters.methods.common_options import COMMON_OPTIONS
from adapters.methods.registry import Method, register_method
from adapters.training.parameters import HEADS


def _trains(name: str) -> bool:
    parts = name.split(".")
    return parts[-1] == "bias" or not HEADS.isdisjoint(parts)


register_method(
    Method(
        "bitfit",
        ignored=frozenset(COMMON_OPTIONS),
        trains=_trains,
        size=None,
        convertible=False,
        formula="biases and the head",
        source="Ben Zaken et al., arXiv 2106.10199",
        note="all biases of the model, whatever target_modules says; most decoders have none",
    )
)
