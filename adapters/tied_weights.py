"""Input and output embeddings that are one matrix stay one when they are adapted."""

import re
from collections.abc import Iterable, Mapping

from torch import nn

from adapters.config import BasisConfig
from adapters.layers import BasisLayer


def adapt_as_one(config: BasisConfig, model: nn.Module, tied: Iterable[str]) -> None:
    """Let `config` adapt the input embedding, and the modules `tied` to it along with it."""
    name = _input_embedding(model)
    config.target_modules_to_tie = set(tied)
    targets = config.target_modules
    if isinstance(targets, str):
        config.target_modules = rf"(?:{targets}|^{re.escape(name)}$)"
    else:
        config.target_modules = {*_others(targets or (), tied), name}


def save_as_one(config: BasisConfig, model: nn.Module, tied: Iterable[str]) -> None:
    """Let `config` train the input embedding whole, and the modules `tied` to it along with it."""
    config.modules_to_tie = set(tied)
    others = _others(config.modules_to_save or (), tied)
    config.modules_to_save = list(dict.fromkeys([*others, _input_embedding(model)]))


def share_adapter(
    model: nn.Module, layers: Mapping[str, BasisLayer], adapter: str, names: Iterable[str]
) -> None:
    """Let the layers `names` read all numbers of `adapter` from the input embedding."""
    for name in names:
        layers[name].give_up(adapter, model.get_input_embeddings())


def _input_embedding(model: nn.Module) -> str:
    embedding = model.get_input_embeddings()
    return next(name for name, module in model.named_modules() if module is embedding)


def _others(names: Iterable[str], tied: Iterable[str]) -> list[str]:
    """The `names` that mean none of the modules `tied`."""
    return [n for n in names if not any(t == n or t.endswith(f".{n}") for t in tied)]
