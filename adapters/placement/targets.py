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
from collections.abc import Iterable, Sequence
from typing import Any

from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn
from transformers.pytorch_utils import Conv1D

from adapters.placement.inspection import base_of
from adapters.placement.module_names import block_of, kind_of, last_blocks
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
MAX_NAMES = 3
"""Unmatched names in a message."""
_ROUTERS = {"gate", "router", "shared_expert_gate", "classifier"}

Targets = str | Iterable[str] | None
Layers = str | list[int]


def check_layers(layers: Layers) -> None:
    """Refuse a `layers` that is neither a known word nor a list of indices.

    Raises:
        ValueError: It is neither.
    """
    if isinstance(layers, str):
        valid = bool(re.fullmatch(r"all|odd|even|first_last_[1-9]\d*", layers))
    else:
        valid = bool(layers) and all(isinstance(i, int) for i in layers)
    if not valid:
        hint = did_you_mean(layers, LAYERS) if isinstance(layers, str) else ""
        raise ValueError(
            f"`layers` must be one of {', '.join(LAYERS)} or a list of indices, "
            f"got {layers!r}.{hint}"
        )


def check_blocks(targets: Targets, indices: int | list[int] | None, lists: Any) -> None:
    """Refuse `layers_to_transform` and `layers_pattern` where PEFT would pass over them.

    Raises:
        ValueError: They stand beside a pattern, or the second without the first.
    """
    if isinstance(targets, str) and not has_words(targets):
        for option, value in (("layers_to_transform", indices), ("layers_pattern", lists)):
            if value not in (None, [], ""):
                raise ValueError(
                    f"`{option}` cannot be used when `target_modules` is a str. {value!r} does "
                    f"nothing to the pattern {targets!r}: choose blocks by `layers`, or name "
                    "modules"
                )
    if lists and indices is None:
        raise ValueError(
            "When `layers_pattern` is specified, `layers_to_transform` must also be specified: "
            f"{lists!r} alone chooses nothing"
        )


def has_words(targets: Targets) -> bool:
    """Whether `target_modules` holds a word that only `resolve` understands."""
    if isinstance(targets, str):
        return targets in WORDS
    return targets is not None and any(target in WORDS for target in targets)


def resolve(model: nn.Module, targets: Targets, layers: Layers = "all") -> list[str]:
    """The full names of the layers that `targets` means in `model`, in order.

    Words and patterns mean linear layers; a name may be of any module with parameters of its own.

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
        missing = [] if chosen else [targets]
    else:
        listed_targets = [targets] if isinstance(targets, str) else sorted(targets)
        matched = {
            t: matches(model, t, linear) or _modules_by_name(model, t) for t in listed_targets
        }
        chosen = set().union(*matched.values())
        missing = [target for target in listed_targets if not matched[target]]
    if missing:
        raise ValueError(no_match(model, "target_modules", missing, linear))
    outside = outside_adapters(model)
    stacked = chosen.union(linear)
    last = last_blocks([name for name in outside if name in stacked])
    if isinstance(layers, list):
        _require_blocks(layers, last)
    names = [name for name in outside if name in chosen and _in_layers(name, layers, last)]
    if chosen and not names:
        raise ValueError(f"`layers` {layers!r} leaves none of the blocks of {_blocks(last)}")
    return names


def placed(
    model: nn.Module,
    targets: Targets,
    layers: Layers = "all",
    layers_to_transform: int | list[int] | None = None,
) -> list[str] | None:
    """The names that replace words and choices of blocks; None where PEFT needs no help.

    Raises:
        ValueError: As `resolve`.
    """
    if not has_words(targets) and layers == "all":
        return None
    names = resolve(model, targets, layers)
    if isinstance(layers_to_transform, int):
        layers_to_transform = [layers_to_transform]
    return resolve(model, names, layers_to_transform) if layers_to_transform else names


def expand_words(pattern: dict[str, Any], model: nn.Module) -> dict[str, Any]:
    """`pattern` with words replaced by the names that they mean."""
    expanded: dict[str, Any] = {}
    for key, value in pattern.items():
        names = resolve(model, key) if key in WORDS else [key]
        expanded |= dict.fromkeys(names, value)
    return expanded


def outside_adapters(model: nn.Module) -> list[str]:
    """The names of the modules of `model`; one with adapters on counts once."""
    inside = tuple(f"{n}." for n, m in model.named_modules() if isinstance(m, BaseTunerLayer))
    return [name for name, _ in model.named_modules() if name and not name.startswith(inside)]


def adaptable(model: nn.Module) -> list[str]:
    """The names of the linear layers of `model`; a layer with adapters on counts once.

    `nn.MultiheadAttention` counts as one layer: it reads its output projection and never calls it.
    """
    modules = dict(model.named_modules())
    return [
        name
        for name in outside_adapters(model)
        if _is_linear(modules[name]) and not _is_attention(modules[name.rpartition(".")[0]])
    ]


def _is_linear(module: nn.Module) -> bool:
    base = base_of(module)
    sized = isinstance(getattr(base, "in_features", None), int)
    linear = isinstance(base, Conv1D) or (sized and hasattr(base, "out_features"))
    return linear or _is_attention(base)


def _is_attention(module: nn.Module) -> bool:
    return isinstance(base_of(module), nn.MultiheadAttention)


def matches(model: nn.Module, target: str, names: Iterable[str]) -> set[str]:
    """The `names`, modules of `model`, that the word or name `target` stands for.

    A word that means nothing in this model is a name, as of a module called `attention`.
    """
    modules = _modules_by_word(model, target, names) if target in WORDS else set()
    return modules or {n for n in names if n == target or n.endswith(f".{target}")}


def _modules_by_name(model: nn.Module, target: str) -> set[str]:
    """The modules of any kind, with parameters of their own, that `target` names."""
    modules = dict(model.named_modules())
    return {
        name
        for name in outside_adapters(model)
        if (name == target or name.endswith(f".{target}"))
        and next(modules[name].parameters(recurse=False), None) is not None
    }


def _modules_by_word(model: nn.Module, word: str, names: Iterable[str]) -> set[str]:
    blocks = [n for n in names if block_of(n) and n.rpartition(".")[2] not in _ROUTERS]
    attention = {name for name in blocks if _is_in_attention(model, name)}
    mlp = set(blocks) - attention
    if word == "qkv":
        return {name for name in attention if name.rpartition(".")[2] in _QKV}
    if word == "gate_up":
        return {n for n in mlp if n.rpartition(".")[2] in _GATE_UP or ".intermediate." in n}
    return {"attention": attention, "mlp": mlp, "all": attention | mlp}[word]


def _is_in_attention(model: nn.Module, name: str) -> bool:
    """Whether a module between the block and `name` is called attention, or is of such a class."""
    block = block_of(name)
    assert block is not None
    if _is_attention(model.get_submodule(name)):
        return True
    above = block.name
    for part in name.removeprefix(f"{block.name}.").split(".")[:-1]:
        above = f"{above}.{part}"
        labels = f"{part} {type(model.get_submodule(above)).__name__}".lower()
        if "attention" in labels or "attn" in labels:
            return True
    return False


def _in_layers(name: str, layers: Layers, last: dict[str, int]) -> bool:
    if layers == "all":
        return True
    block = block_of(name)
    if block is None:
        return False
    count = 1 + last[block.stack]
    if layers in ("odd", "even"):
        return block.index % 2 == (layers == "odd")
    if isinstance(layers, str):
        k = int(layers.removeprefix("first_last_"))
        return block.index < k or block.index >= count - k
    return block.index in layers or block.index - count in layers


def no_match(
    model: nn.Module,
    option: str,
    missing: Sequence[str],
    present: Sequence[str],
    kind: str = "layer",
) -> str:
    """The message that no `kind` is called `missing`; it has the nearest of `present`, and all."""
    words = WORDS if "layer" in kind else ()
    sentences = [
        f"`{option}` {name!r} matches no {kind} of {type(model).__name__}."
        f"{_nearest(name, present, words)}"
        for name in missing[:MAX_NAMES]
    ]
    if len(missing) > MAX_NAMES:
        sentences.append(f"Nor do {len(missing) - MAX_NAMES} more names.")
    kinds = ", ".join(sorted({kind_of(name) for name in present if words or "." not in name}))
    sentences += [f"It has: {kinds}."] if kinds else []
    if words:
        sentences.append(f"Words: {', '.join(words)}.")
    if words and option == "target_modules":
        sentences.append("Experts kept as one tensor: `target_parameters`")
    return " ".join(sentences)


def _nearest(name: str, present: Sequence[str], words: Sequence[str]) -> str:
    """`did_you_mean` among `words` and the ends of `present` that have as many parts as `name`."""
    if not re.fullmatch(r"[\w.-]+", name):  # a pattern: what it ends in
        name = (re.findall(r"\w+", name) or [name])[-1]
    parts = name.count(".") + 1
    return did_you_mean(name, [*(".".join(k.split(".")[-parts:]) for k in present), *words])


def _require_blocks(indices: list[int], last: dict[str, int]) -> None:
    for index in indices:
        if not any(-end - 1 <= index <= end for end in last.values()):
            raise ValueError(
                f"block {index} of `layers` or `layers_to_transform` is in no stack of the model, "
                f"which has {_blocks(last)}"
            )


def _blocks(last: dict[str, int]) -> str:
    return ", ".join(f"{stack} (0 to {index})" for stack, index in last.items()) or "no stack"
