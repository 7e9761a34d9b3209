"""Refuses names that match nothing, for every method, before the model is changed.

PEFT drops such a name, at most with a warning, as long as another one matches: `[query, valeu]`
adapts `query` alone. Names are matched here as PEFT matches them.
"""

import re
from collections.abc import Callable, Collection
from types import SimpleNamespace
from typing import Any

from peft import PeftConfig
from peft.tuners.tuners_utils import check_target_module_exists
from peft.utils.constants import DUMMY_TARGET_MODULES, INCLUDE_LINEAR_LAYERS_SHORTHAND
from torch import nn

from adapters.placement.targets import (
    WORDS,
    adaptable,
    check_blocks,
    has_words,
    matches,
    no_match,
    outside_adapters,
    placed,
    resolve,
)

_HEADS = {
    "SEQ_CLS": ("classifier", "score"),
    "TOKEN_CLS": ("classifier", "score"),
    "QUESTION_ANS": ("qa_outputs",),
}
"""What PEFT adds to `modules_to_save` by task, whether the model has it or not."""

Option = Callable[[str], Any]


def check_names(model: nn.Module, config: PeftConfig, **more: Any) -> None:
    """Refuse a name, a pattern or an index in `config` that matches nothing in `model`.

    A configuration that was read from a file is taken as it is: what matters is that the tensors
    of the file find their places.

    Args:
        model: The model before adaptation; it may carry other adapters.
        config: Settings of any method, as the user wrote them, words of `adapters.placement`
            included.
        more: Options that the class of `config` lacks.

    Raises:
        ValueError: Such a name is found; the message has the nearest one, and what the model has.
    """
    if getattr(config, "from_file", False):
        return
    option = {**vars(config), **more}.get
    names = outside_adapters(model)
    targets, parameters = option("target_modules"), option("target_parameters") or ()
    if targets or not parameters:
        _check_targets(model, names, targets)
    _check_indices(names, option)
    _check_saved(model, names, config)
    parameters = _check_parameters(model, parameters, alone=not targets)
    layers = targeted(model, config, **more)
    _check_excluded(model, layers, option("exclude_modules"))
    layers += parameters  # a key of a pattern means a parameter by its full name
    for name, pattern in (vars(config) | more).items():
        if name.endswith("_pattern") and isinstance(pattern, dict):
            _check_keys(model, name, pattern, layers)


def targeted(model: nn.Module, config: PeftConfig, **more: Any) -> list[str]:
    """The full names of the modules that `config` adapts; arguments as in `check_names`.

    Raises:
        ValueError: A word, a name or `layers` matches nothing.
    """
    option = {**vars(config), **more}.get
    targets, indices = option("target_modules"), option("layers_to_transform")
    if targets is None or _is_special(targets):
        names: list[str] | None = adaptable(model)
    else:
        names = placed(model, targets, option("layers") or "all", indices)
    probe = SimpleNamespace(
        target_modules=targets if names is None else set(names),
        exclude_modules=option("exclude_modules"),
        modules_to_save=option("modules_to_save"),
        layers_to_transform=indices,
        layers_pattern=option("layers_pattern"),
    )
    candidates = outside_adapters(model) if names is None else names
    return [name for name in candidates if check_target_module_exists(probe, name)]


def _is_special(targets: Any) -> bool:
    """Whether PEFT gives this `target_modules` a meaning of its own."""
    special = (INCLUDE_LINEAR_LAYERS_SHORTHAND, DUMMY_TARGET_MODULES)
    return isinstance(targets, str) and targets.lower() in special


def _ends(names: list[str]) -> set[str]:
    """What PEFT takes for a name of one of `names`: its last parts, from one to all."""
    parts = [name.split(".") for name in names]
    return {".".join(each[i:]) for each in parts for i in range(len(each))}


def _check_targets(model: nn.Module, names: list[str], targets: Any) -> None:
    if targets is None or _is_special(targets):
        return
    linear = adaptable(model)
    if isinstance(targets, str) and not has_words(targets):
        missing = [] if _fitting("target_modules", targets, names) else [targets]
    else:
        listed_targets = [targets] if isinstance(targets, str) else sorted(targets)
        ends = _ends(names)
        missing = [
            t
            for t in listed_targets
            if not (matches(model, t, linear) if t in WORDS else t in ends)
        ]
    if missing:
        raise ValueError(no_match(model, "target_modules", missing, linear))


def _check_indices(names: list[str], option: Option) -> None:
    indices, targets = option("layers_to_transform"), option("target_modules")
    indices = [indices] if isinstance(indices, int) else indices
    lists = option("layers_pattern") or None
    check_blocks(targets, indices, lists)
    if not indices or has_words(targets):  # words are resolved by block, and then checked
        return
    patterns = [lists] if isinstance(lists, str) else lists or [r"[^.]*"]
    # as PEFT reads an index: the first number; unnamed, its list must lie inside of something
    inside = r"(?:.*?\.)?" if lists else r".*?\."
    numbered = (re.match(rf"{inside}{each}\.(\d+)\.", f"{n}.") for n in names for each in patterns)
    present = {int(match[1]) for match in numbered if match}
    if missing := [index for index in indices if index not in present]:
        in_model = f"{min(present)} to {max(present)}" if present else "none"
        of_lists = f" in `layers_pattern` {lists!r}" if lists else ""
        raise ValueError(
            f"`layers_to_transform` {missing} matches no block{of_lists}; the model has: "
            f"{in_model}. `layers` takes words, and indices that count from the end"
        )


def _check_saved(model: nn.Module, names: list[str], config: PeftConfig) -> None:
    modules = getattr(config, "modules_to_save", None) or ()
    # a PEFT model made for a task adds heads to the configurations of all its adapters; where the
    # configurations do not tell the task, the two heads of a classifier do
    configs = [*getattr(model, "peft_config", {}).values(), config]
    tasks = {each.task_type for each in configs}
    tasks |= {task for task, heads in _HEADS.items() if len(heads) > 1 and {*heads} <= {*modules}}
    added = {head for task in tasks for head in _HEADS.get(task, ())}
    missing = [m for m in modules if m not in added and not any(n.endswith(m) for n in names)]
    if missing:
        raise ValueError(no_match(model, "modules_to_save", missing, names, "module"))


def _check_parameters(model: nn.Module, parameters: Collection[str], alone: bool) -> list[str]:
    """The full names of the parameters that are wanted, `alone` or beside modules."""
    names = [name.replace(".base_layer", "") for name, _ in model.named_parameters()]
    missing = sorted(set(parameters) - _ends(names))
    parametrizations = [
        name.replace(".parametrizations", "").rpartition(".")[0]
        for name in names
        if ".parametrizations." in name
    ]
    if parametrized := sorted(_ends(parametrizations).intersection(missing)):
        raise ValueError(
            f"`target_parameters` {parametrized} are parametrized, and torch makes them anew at "
            "each reading: name their modules in `target_modules`"
        )
    if missing:
        message = no_match(model, "target_parameters", missing, names, "parameter")
        if alone and len(missing) == len(parameters):  # PEFT's words
            message = (
                "No `target_modules` passed but also no `target_parameters` found. Please check "
                f"the values for these arguments. {message}"
            )
        raise ValueError(message)
    return [n for n in names if f".{n}".endswith(tuple(f".{each}" for each in parameters))]


def _check_excluded(model: nn.Module, layers: list[str], excluded: Any) -> None:
    names = [name for name, _ in model.named_modules()]  # inside other adapters too
    if isinstance(excluded, str):
        if not _fitting("exclude_modules", excluded, names):
            raise ValueError(no_match(model, "exclude_modules", [excluded], names, "module"))
        return
    for name in sorted(excluded or ()):
        modules = {each for each in names if f".{each}".endswith(f".{name}")}
        if not modules:
            raise ValueError(no_match(model, "exclude_modules", [name], names, "module"))
        if any(each.startswith(tuple(f"{module}." for module in modules)) for each in layers):
            raise ValueError(
                f"`exclude_modules` {name!r} leaves out modules of exactly this name, not the "
                rf"adapted ones inside of them: give the pattern '.*\.{name}\..*'"
            )


def _check_keys(model: nn.Module, option: str, pattern: dict[str, Any], layers: list[str]) -> None:
    for key in pattern:
        if key in WORDS:
            matched = set(resolve(model, key)).intersection(layers)
        else:
            matched = set(_fitting(option, rf"(?:.*\.)?(?:{key})", layers))
        if not matched:
            raise ValueError(no_match(model, option, [key], layers, "adapted layer"))


def _fitting(option: str, pattern: str, names: list[str]) -> list[str]:
    try:
        return [name for name in names if re.fullmatch(pattern, name)]
    except re.error as error:
        raise ValueError(f"`{option}` {pattern!r} is not a regular expression: {error}") from error
