"""What a method needs from the training loop, and how the loop gives it.

Calls, none of which does anything for most methods: `on_attach` once before the first step,
`after_step` after each optimizer step while its gradients are still there, `split_by_rate` on the
optimizer's groups, `state` and `load_state` for checkpoints. `StepCallback` makes the first two in
transformers' Trainer.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from peft import PeftConfig
from torch import Tensor, nn
from transformers import TrainerCallback
from transformers.trainer_callback import TrainerControl, TrainerState
from transformers.training_args import TrainingArguments

from adapters.basis.field_types import require


def _nothing(model: nn.Module, config: Any, count: int) -> None:
    pass


def _no_state(model: nn.Module, config: Any) -> dict[str, Tensor]:
    return {}


@dataclass(frozen=True)
class Hooks:
    """The calls of one configuration class; the configuration is handed to each of them."""

    on_attach: Callable[[nn.Module, Any, int], None] = _nothing
    """(model, config, total steps), once before training."""
    after_step: Callable[[nn.Module, Any, int], None] = _nothing
    """(model, config, finished steps), after the optimizer's step, before gradients are zeroed."""
    rate: Callable[[Any, str], float] = lambda config, name: 1.0
    """(config, parameter name) to the factor on the learning rate."""
    state: Callable[[nn.Module, Any], dict[str, Tensor]] = _no_state
    """(model, config) to what the method remembers between steps beside parameters and buffers."""
    load_state: Callable[[nn.Module, Any, Mapping[str, Tensor]], None] = lambda *_: None
    """(model, config, what `state` gave), when training goes on."""


_HOOKS: dict[type[PeftConfig], Hooks] = {}


def register_hooks(config: type[PeftConfig], hooks: Hooks) -> None:
    """Give adapters made from exactly the class `config` their hooks; once a class."""
    if config in _HOOKS:
        raise ValueError(f"{config.__name__} has hooks already: {_HOOKS[config]}")
    _HOOKS[config] = hooks


def _active(model: nn.Module) -> Iterator[tuple[PeftConfig, Hooks]]:
    configs = getattr(model, "peft_config", {})
    for name in getattr(model, "active_adapters", []) if configs else []:
        if type(configs[name]) in _HOOKS:
            yield configs[name], _HOOKS[type(configs[name])]


def on_attach(model: nn.Module, total_steps: int) -> None:
    """Tell the active adapters of `model` how many optimizer steps training will have.

    Raises:
        ValueError: `total_steps` is too small for a method's schedule, or less than 1.
    """
    require(total_steps >= 1, "total_steps", "at least 1", total_steps)
    for config, hooks in _active(model):
        hooks.on_attach(model, config, total_steps)


def after_step(model: nn.Module, step: int) -> None:
    """Let the active adapters of `model` act between two steps.

    Args:
        model: The model as `attach` returned it.
        step: Finished optimizer steps, 1 after the first. Call it after the optimizer's step and
            before gradients are set to zero.
    """
    for config, hooks in _active(model):
        hooks.after_step(model, config, step)


def acts_on_the_host(model: nn.Module) -> bool:
    """Whether an active adapter of `model` acts or remembers in Python from one step to the next.

    Its steps then differ in more than their numbers, so that none can stand for another.
    """
    return any(
        hooks.after_step is not _nothing or hooks.state is not _no_state
        for _, hooks in _active(model)
    )


def state(model: nn.Module) -> dict[str, Tensor]:
    """What the active adapters of `model` remember between steps beside parameters and buffers."""
    tensors: dict[str, Tensor] = {}
    for config, hooks in _active(model):
        tensors |= hooks.state(model, config)
    return tensors


def load_state(model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Give the active adapters of `model` back what `state` took from them."""
    for config, hooks in _active(model):
        hooks.load_state(model, config, tensors)


def split_by_rate(model: nn.Module, groups: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The optimizer's `groups`, cut where a method wants another learning rate."""
    active = list(_active(model))
    if not active:
        return groups
    factors: dict[int, float] = {}
    for name, parameter in model.named_parameters():
        for config, hooks in active:
            factors[id(parameter)] = factors.get(id(parameter), 1.0) * hooks.rate(config, name)
    cut = []
    for group in groups:
        parts: dict[float, list[nn.Parameter]] = {}
        for parameter in group["params"]:
            parts.setdefault(factors.get(id(parameter), 1.0), []).append(parameter)
        cut += [{**group, "params": p, "lr": group["lr"] * f} for f, p in parts.items()]
    return cut


class StepCallback(TrainerCallback):
    """Makes the calls of this module from transformers' Trainer."""

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Tell the number of steps."""
        on_attach(kwargs["model"], state.max_steps)

    def on_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """The optimizer has stepped; the Trainer counts the step and zeroes gradients later."""
        after_step(kwargs["model"], state.global_step + 1)
