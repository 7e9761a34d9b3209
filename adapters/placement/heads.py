"""Which rows or columns of a projection belong to each attention head."""

from typing import Any

from torch import nn
from transformers.pytorch_utils import Conv1D

from adapters.placement.targets import adaptable, matches

_SIZES = ("head_dim", "attention_head_size", "attn_head_size")
_LATENT = "qk_nope_head_dim"


def heads(model: nn.Module) -> dict[str, tuple[int, bool]]:
    """For each projection of attention, how many heads its weight has and whether by columns.

    Queries, keys and values have a block of rows for each head, fused ones for each head of each of
    the three; the output projection has a block of columns. A projection whose size is no multiple
    of a head's is left out. The attention module says how large a head is, else the configuration.

    Raises:
        ValueError: Neither tells it, or heads of one model have several sizes.
    """
    config = getattr(model, "config", None)
    if getattr(config, _LATENT, None):
        raise ValueError(
            f"heads of {type(model).__name__} have parts of unlike sizes (`{_LATENT}`): take "
            "sharing_scope 'row' or 'column'"
        )
    names = adaptable(model)
    by_rows = matches(model, "qkv", names)
    found, sizes = {}, set()
    for name in matches(model, "attention", names):
        size = _head_size(model, name)
        sizes.add(size)
        module: Any = model.get_submodule(name)  # linear, of no common class
        columns = name not in by_rows
        if isinstance(module, Conv1D):
            features = module.nx if columns else module.nf
        else:
            features = module.in_features if columns else module.out_features
        if size and features % size == 0 and features > size:
            found[name] = (features // size, columns)
    if not any(sizes):
        raise ValueError(
            f"{type(model).__name__} does not tell the size of an attention head (`head_dim`, or "
            "`hidden_size` and `num_attention_heads` of its config): take sharing_scope 'row' or "
            "'column'"
        )
    return found


def _head_size(model: nn.Module, name: str) -> int:
    """The size of a head of the attention that the module `name` lies in; 0 where none is told."""
    parts = name.split(".")
    for end in range(len(parts) - 1, 0, -1):
        attention = model.get_submodule(".".join(parts[:end]))
        for size in (getattr(attention, key, None) for key in _SIZES):
            if isinstance(size, int):
                return size
    config = getattr(model, "config", None)
    size = getattr(config, "head_dim", None)
    hidden = getattr(config, "hidden_size", None) or getattr(config, "n_embd", None)
    count = getattr(config, "num_attention_heads", None) or getattr(config, "n_head", None)
    if isinstance(size, int) and size:
        return size
    return hidden // count if isinstance(hidden, int) and isinstance(count, int) and count else 0
