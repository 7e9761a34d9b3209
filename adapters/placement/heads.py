"""Which rows or columns of a projection belong to each attention head."""

from typing import Any

from torch import nn
from transformers.pytorch_utils import Conv1D

from adapters.placement.targets import adaptable, matches


def heads(model: nn.Module) -> dict[str, tuple[int, bool]]:
    """For each projection of attention, how many heads its weight has and whether by columns.

    Queries, keys and values have a block of rows for each head, fused ones for each head of each of
    the three; the output projection has a block of columns. A projection whose size is no multiple
    of a head's is left out.

    Raises:
        ValueError: The model does not tell the size of a head.
    """
    config = getattr(model, "config", None)
    size = getattr(config, "head_dim", None)
    if not size:
        hidden = getattr(config, "hidden_size", None) or getattr(config, "n_embd", 0)
        count = getattr(config, "num_attention_heads", None) or getattr(config, "n_head", 0)
        size = hidden // count if count else 0
    if not size:
        raise ValueError(
            f"{type(model).__name__} does not tell the size of an attention head (`head_dim`, or "
            "`hidden_size` and `num_attention_heads` of its config): take sharing_scope 'row' or "
            "'column'"
        )
    names = adaptable(model)
    by_rows = matches(model, "qkv", names)
    found = {}
    for name in matches(model, "attention", names):
        module: Any = model.get_submodule(name)  # linear, of no common class
        columns = name not in by_rows
        if isinstance(module, Conv1D):
            features = module.nx if columns else module.nf
        else:
            features = module.in_features if columns else module.out_features
        if features % size == 0 and features > size:
            found[name] = (features // size, columns)
    return found
