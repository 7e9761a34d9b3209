"""How a flat mapping of options becomes a model with an adapter."""

from typing import Any

from peft import PeftConfig, get_peft_model
from torch import nn

from adapters.methods.registry import configured
from adapters.peft_integration.fixes import guard_heads
from adapters.placement.name_checks import check_names, targeted
from adapters.placement.targets import expand_words, placed
from adapters.training.parameters import HEADS


def attach(model: nn.Module, adapter: dict[str, Any]) -> nn.Module:
    """`model` with the method of the flat mapping `adapter` on it, ready to train.

    Args:
        model: A transformers model; it is changed in place.
        adapter: `{"method": "basis", "r": 8, "basis": "sinc", ...}`.

    Raises:
        ValueError: As `check_options`, or a targeted module that the model lacks.
    """
    method, config = configured(adapter)
    if config is None:
        assert method.trains is not None
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(method.trains(name))
        if not any(p.requires_grad for p in model.parameters()):
            raise ValueError(
                f"method {method.name!r} finds nothing to train in {type(model).__name__}: no "
                "parameter is of the kind that it trains; take another method"
            )
        return model
    config.task_type = _task_type(model)
    if config.task_type is None and getattr(config, "modules_to_save", ...) is None:
        # PEFT knows no image classification, and would leave a random head frozen
        heads = [n for n, _ in model.named_children() if n in HEADS]
        config.modules_to_save = heads or None  # type: ignore[attr-defined]  # it has, if asked above
    if next(model.parameters()).is_meta:
        for option, value in method.weightless.items():
            setattr(config, option, value)
    lacking = {o: adapter[o] for o in method.resolved if adapter.get(o) is not None}
    check_names(model, config, **lacking)
    _place(model, config, lacking)
    if method.follow is not None:
        method.follow(model, config)
    adapted = guard_heads(get_peft_model(model, config))
    if method.initialise is not None:
        method.initialise(adapted)
    return adapted


def _place(model: nn.Module, config: PeftConfig, lacking: dict[str, Any]) -> None:
    """Replace words, and the options that `config` is `lacking`, by names of modules."""
    targets = getattr(config, "target_modules", None)
    indices = getattr(config, "layers_to_transform", None)
    if lacking:
        if targets is None:
            raise ValueError(f"set `target_modules` to use {', '.join(lacking)} with this method")
        names: list[str] | None = targeted(model, config, **lacking)
        if not names:
            raise ValueError(f"no module fits `target_modules` {targets} with {lacking}")
        if indices is not None:
            # obeyed above; PEFT does not, for full names
            config.layers_to_transform = None  # type: ignore[attr-defined]  # it has, see `indices`
    else:
        names = placed(model, targets, getattr(config, "layers", "all"), indices)
    if names is not None:
        config.target_modules = set(names)  # type: ignore[attr-defined]  # as all that we attach
    for attribute in ("rank_pattern", "alpha_pattern"):
        pattern = getattr(config, attribute, None)
        if isinstance(pattern, dict):
            setattr(config, attribute, expand_words(pattern, model))


def _task_type(model: nn.Module) -> str | None:
    kind = type(model).__name__
    for ending, task_type in (
        ("ForSequenceClassification", "SEQ_CLS"),
        ("ForCausalLM", "CAUSAL_LM"),
        ("LMHeadModel", "CAUSAL_LM"),
        ("ForConditionalGeneration", "SEQ_2_SEQ_LM"),
    ):
        if kind.endswith(ending):
            return task_type
    return None
