"""No adapter: every parameter is trained."""

from adapters.methods.common_options import COMMON_OPTIONS
from adapters.methods.registry import Method, register_method

register_method(
    Method(
        "full",
        ignored=frozenset(COMMON_OPTIONS),
        trains=lambda name: True,
        size=None,
        convertible=False,
        formula="every parameter",
    )
)
