"""Input and output embeddings that are one matrix stay one when they are adapted."""

import re
from collections.abc import Iterable, Mapping
from typing import cast

from torch import nn
from transformers import PreTrainedModel

from adapters.basis.config import BasisConfig
from adapters.basis.layers import BasisLayer


def adapt_as_one(config: BasisConfig, model: nn.Module, tied: Iterable[str]) -> None:
    """Let `config` adapt the input embedding, and the modules `tied` to it along with it."""
    name = _input_embedding(model)
    config.target_modules_to_tie = set(tied)  # type: ignore[attr-defined]  # where PEFT looks
    targets = config.target_modules
    if isinstance(targets, str):
        config.target_modules = rf"(?:{targets}|^{re.escape(name)}$)"
    else:
        names = {*_others(targets or (), tied), name}
        config.target_modules = names  # type: ignore[assignment]  # PEFT keeps a set


def save_as_one(config: BasisConfig, model: nn.Module, tied: Iterable[str]) -> None:
    """Let `config` train the input embedding whole, and the modules `tied` to it along with it."""
    config.modules_to_tie = set(tied)  # type: ignore[attr-defined]  # where PEFT looks
    others = _others(config.modules_to_save or (), tied)
    config.modules_to_save = list(dict.fromkeys([*others, _input_embedding(model)]))


def share_adapter(
    model: nn.Module, layers: Mapping[str, BasisLayer], adapter: str, names: Iterable[str]
) -> None:
    """Let the layers `names` read all numbers of `adapter` from the input embedding."""
    for name in names:
        layers[name].give_up(adapter, cast(BasisLayer, _embedding(model)))


def _embedding(model: nn.Module) -> nn.Module:
    """The input embedding; only models of transformers say that weights are tied."""
    return cast(PreTrainedModel, model).get_input_embeddings()


def _input_embedding(model: nn.Module) -> str:
    embedding = _embedding(model)
    own: str = next(name for name, module in model.named_modules() if module is embedding)
    return own


def _others(names: Iterable[str], tied: Iterable[str]) -> list[str]:
    """The `names` that mean none of the modules `tied`."""
    return [n for n in names if not any(t == n or t.endswith(f".{n}") for t in tied)]
