"""No adapter: only the task's head is trained."""

from adapters.methods.common_options import COMMON_OPTIONS
from adapters.methods.registry import Method, register_method
from adapters.training.parameters import HEADS

register_method(
    Method(
        "head_only",
        ignored=frozenset(COMMON_OPTIONS),
        trains=lambda name: not HEADS.isdisjoint(name.split(".")),
        size=None,
        convertible=False,
        formula="the head alone",
    )
)
