"""IA3: a factor for each output of a layer, or for each input of a feed-forward layer."""

from peft import IA3Config
from torch import nn

from adapters.methods.registry import Method, register_method
from adapters.placement.name_checks import targeted
from adapters.placement.targets import matches

FEEDFORWARD = (
    *(".down_proj", ".output.dense", ".fc2", ".wo", ".dense_4h_to_h", ".lin2", ".w2"),
    ".mlp.c_proj",
)
"""Second maps of feed-forward blocks, by the names of common models: their inputs are scaled."""


def _follow(model: nn.Module, config: IA3Config) -> None:
    if config.feedforward_modules is None and config.target_modules is not None:
        inner = matches(model, "mlp", targeted(model, config))
        feedforward = {n for n in inner if f".{n}".endswith(FEEDFORWARD)}
        config.feedforward_modules = feedforward  # type: ignore[assignment]  # PEFT keeps a set


register_method(
    Method(
        "ia3",
        IA3Config,
        ignored=frozenset({"r", "alpha"}),
        follow=_follow,
        size=None,
        convertible=False,
        formula="diag(l) W, or W diag(l) for feedforward_modules",
        source="Liu et al., arXiv 2205.05638; PEFT",
        note="has no size: its count cannot be matched",
    )
)
