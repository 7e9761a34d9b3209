"""IA3: a factor for each output of a layer, or for each input of a feed-forward layer."""

from typing import Any

from peft import IA3Config

from adapters.methods import Method, register_method

FEEDFORWARD = ("down_proj", "output.dense", "fc2", "wo", "dense_4h_to_h", "lin2", "w2")
"""Second maps of feed-forward blocks, by the names of common models: their inputs are scaled."""


def _complete(options: dict[str, Any]) -> dict[str, Any]:
    targets = options.get("target_modules")
    if isinstance(targets, str) or targets is None or "feedforward_modules" in options:
        return options
    return {**options, "feedforward_modules": [t for t in targets if t in FEEDFORWARD]}


register_method(
    Method(
        "ia3",
        IA3Config,
        ignored=frozenset({"r", "alpha"}),
        complete=_complete,
        size=None,
        convertible=False,
        formula="diag(l) W, or W diag(l) for feedforward_modules",
        source="Liu et al., arXiv 2205.05638; PEFT",
        note="has no size: its count cannot be matched",
    )
)
