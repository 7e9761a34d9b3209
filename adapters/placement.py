"""Where adapters go: words for parts of a block, and choices of blocks, for any transformer.

A word is resolved against the modules that the model really has, so the same study fits models
with separate and with fused projections:

- `attention`: every linear layer inside an attention module, cross attention included;
- `mlp`: every other linear layer of a block, shared experts included, routers left out;
- `qkv`: the projections of attention that make queries, keys and values, fused or not;
- `gate_up`: the first projections of the MLP, gated or not, fused or not;
- `all`: `attention` and `mlp`.

Heads, embeddings and poolers lie outside the blocks and are named by their own names.
"""

import re
from collections.abc import Iterable

from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn
from transformers.pytorch_utils import Conv1D

from adapters.module_names import block_of, kind_of
from basis_zoo.registry import did_you_mean

WORDS = ("attention", "mlp", "qkv", "gate_up", "all")
"""The words that `target_modules` understands beside names and patterns."""

LAYERS = ("all", "odd", "even", "first_last_<k>")
"""The words that `layers` understands beside lists of indices; blocks count from 0."""

_QKV = {
    *("q_proj", "k_proj", "v_proj", "qkv_proj", "query", "key", "value", "query_proj", "key_proj"),
    *("value_proj", "query_key_value", "c_attn", "q", "k", "v", "qkv", "Wqkv", "in_proj_qkv"),
    *("q_lin", "k_lin", "v_lin", "q_a_proj", "q_b_proj", "kv_a_proj_with_mqa", "kv_b_proj"),
}
_GATE_UP = {
    *("gate_proj", "up_proj", "gate_up_proj", "c_fc", "fc1", "wi", "wi_0", "wi_1", "w1", "w3"),
    *("dense_h_to_4h", "lin1", "fc_in", "weights_in", "Wi"),
}
_ROUTERS = {"gate", "router", "shared_expert_gate", "classifier"}

Targets = str | Iterable[str] | None
Layers = str | list[int]


def check_layers(layers: Layers) -> None:
    """Refuse a `layers` that is neither a known word nor a list of indices.

    Raises:
        ValueError: As said.
    """
    if isinstance(layers, str):
        known = layers in ("all", "odd", "even") or re.fullmatch(r"first_last_[1-9]\d*", layers)
    else:
        known = bool(layers) and all(isinstance(i, int) for i in layers)
    if not known:
        hint = did_you_mean(layers, LAYERS) if isinstance(layers, str) else ""
        raise ValueError(
            f"`layers` must be one of {', '.join(LAYERS)} or a list of indices, "
            f"got {layers!r}.{hint}"
        )


def has_words(targets: Targets) -> bool:
    """Whether `target_modules` holds a word that only `resolve` understands."""
    if isinstance(targets, str):
        return targets in WORDS
    return targets is not None and any(target in WORDS for target in targets)


def resolve(model: nn.Module, targets: Targets, layers: Layers = "all") -> list[str]:
    """The full names of the linear layers that `targets` means in `model`, in order.

    Args:
        model: A model, with or without adapters on it.
        targets: Words, names as in PEFT's `target_modules`, or one pattern.
        layers: Which blocks; modules outside all blocks are kept only for `all`.

    Raises:
        ValueError: A word or name matches nothing; the message lists what the model has.
    """
    check_layers(layers)
    if not targets:
        raise ValueError(f"`layers` {layers!r} needs `target_modules`, such as 'all'; got none")
    linear = adaptable(model)
    if isinstance(targets, str) and not has_words(targets):
        pattern = r".*\.\d+\..*" if targets == "all-linear" else targets
        chosen = {name for name in linear if re.fullmatch(pattern, name)}
        _require(chosen, targets, model, linear)
    else:
        chosen = set()
        for target in [targets] if isinstance(targets, str) else sorted(targets):
            found = _matches(model, target, linear)
            _require(found, target, model, linear)
            chosen |= found
    kept = [name for name in linear if name in chosen and _in_layers(name, layers, linear)]
    if chosen and not kept:
        raise ValueError(f"`layers` {layers!r} leaves none of the blocks of {_blocks(linear)}")
    return kept


def require_some(model: nn.Module, targets: Targets) -> None:
    """Refuse names or a pattern of which not one means a linear layer of `model`.

    Raises:
        ValueError: As said; the message lists what the model has.
    """
    linear = adaptable(model)
    if isinstance(targets, str):
        found = {name for name in linear if re.fullmatch(targets, name)}
        _require(found, targets, model, linear)
    elif targets:
        names = sorted(targets)
        found = set().union(*(_matches(model, name, linear) for name in names))
        _require(found, ", ".join(names), model, linear)


def adaptable(model: nn.Module) -> list[str]:
    """The names of the linear layers of `model`; a layer with adapters on counts once."""
    inside = tuple(f"{n}." for n, m in model.named_modules() if isinstance(m, BaseTunerLayer))
    return [
        name
        for name, module in model.named_modules()
        if name and not name.startswith(inside) and _is_linear(module)
    ]


def _is_linear(module: nn.Module) -> bool:
    base = module.get_base_layer() if isinstance(module, BaseTunerLayer) else module
    sized = isinstance(getattr(base, "in_features", None), int)
    return isinstance(base, Conv1D) or (sized and hasattr(base, "out_features"))


def _matches(model: nn.Module, target: str, linear: list[str]) -> set[str]:
    if target not in WORDS:
        return {name for name in linear if name == target or name.endswith(f".{target}")}
    blocks = [n for n in linear if block_of(n) and n.rpartition(".")[2] not in _ROUTERS]
    attention = {name for name in blocks if _is_in_attention(model, name)}
    mlp = set(blocks) - attention
    if target == "qkv":
        return {name for name in attention if name.rpartition(".")[2] in _QKV}
    if target == "gate_up":
        return {n for n in mlp if n.rpartition(".")[2] in _GATE_UP or ".intermediate." in n}
    return {"attention": attention, "mlp": mlp, "all": attention | mlp}[target]


def _is_in_attention(model: nn.Module, name: str) -> bool:
    """Whether a module between the block and `name` is called attention, or is of such a class."""
    block = block_of(name)
    assert block is not None
    above = block.name
    for part in name.removeprefix(f"{block.name}.").split(".")[:-1]:
        above = f"{above}.{part}"
        labels = f"{part} {type(model.get_submodule(above)).__name__}".lower()
        if "attention" in labels or "attn" in labels:
            return True
    return False


def _in_layers(name: str, layers: Layers, linear: list[str]) -> bool:
    if layers == "all":
        return True
    block = block_of(name)
    if block is None:
        return False
    in_stack = [other for other in map(block_of, linear) if other and other.stack == block.stack]
    count = 1 + max(other.index for other in in_stack)
    if layers in ("odd", "even"):
        return block.index % 2 == (layers == "odd")
    if isinstance(layers, str):
        k = int(layers.removeprefix("first_last_"))
        return block.index < k or block.index >= count - k
    return block.index in layers or block.index - count in layers


def _require(found: set[str], target: str, model: nn.Module, linear: list[str]) -> None:
    if not found:
        raise ValueError(
            f"`target_modules` {target!r} matches no linear layer of {type(model).__name__}. "
            f"It has: {', '.join(sorted({kind_of(name) for name in linear}))}. "
            f"Words: {', '.join(WORDS)}. Experts kept as one tensor cannot be adapted"
        )


def _blocks(linear: list[str]) -> str:
    last: dict[str, int] = {}
    for block in map(block_of, linear):
        if block is not None:
            last[block.stack] = max(last.get(block.stack, 0), block.index)
    return ", ".join(f"{stack} (0 to {index})" for stack, index in last.items()) or "no stack"
