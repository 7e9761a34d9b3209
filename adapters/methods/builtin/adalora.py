"""AdaLoRA: PEFT's, with the calls that PEFT leaves to the training loop."""

import math
from collections.abc import Mapping
from typing import Any, cast

import torch
from peft import AdaLoraConfig, AdaLoraModel
from torch import Tensor, nn

from adapters.methods.builtin.lora import LORA_NAMES
from adapters.methods.registry import Method, register_method
from adapters.training.hooks import Hooks, register_hooks

UNKNOWN = 1_000_000_000
"""Stands for `total_step`, which PEFT needs before the length of the training is known."""
INITIAL, FINAL = 0.1, 0.2
"""Shares of the training before and after the budget falls, where `tinit`, `tfinal` are not set."""


def _complete(options: dict[str, Any]) -> dict[str, Any]:
    target = options.get("target_r", AdaLoraConfig.target_r)
    # the authors start with 1.5 times the final rank
    return {"init_r": math.ceil(1.5 * target), "total_step": UNKNOWN, **options}


def freeze_rank_numbers(model: nn.Module) -> None:
    """Keep the divisor `ranknum` fixed.

    PEFT means to, but moving it to another device or dtype makes a parameter of it that is trained.
    """
    for name, parameter in model.named_parameters():
        if ".ranknum." in name:
            parameter.requires_grad_(False)


def _on_attach(model: nn.Module, config: AdaLoraConfig, total_steps: int) -> None:
    if config.total_step == UNKNOWN and not config.tinit and not config.tfinal:
        config.tinit, config.tfinal = round(INITIAL * total_steps), round(FINAL * total_steps)
    config.total_step = total_steps
    if config.tinit >= total_steps - config.tfinal:
        raise ValueError(
            f"`tinit` {config.tinit} and `tfinal` {config.tfinal} leave none of the "
            f"{total_steps} steps of the training for the budget; lower one of them"
        )


def _after_step(model: nn.Module, config: AdaLoraConfig, step: int) -> None:
    if config.total_step == UNKNOWN:
        raise ValueError(
            "AdaLoRA needs the number of steps: call adapters.on_attach(model, total_steps) "
            "before training, or set `total_step`"
        )
    if all(p.grad is None for n, p in model.named_parameters() if "lora_E" in n):
        raise ValueError(
            "AdaLoRA reads gradients after each step and found none: call adapters.after_step "
            "after the optimizer's step and before zero_grad"
        )
    _tuner(model).update_and_allocate(step)


MEMORY = ("ipt", "exp_avg_ipt", "exp_avg_unc")
"""What PEFT's allocator keeps of every parameter."""


def _tuner(model: nn.Module) -> AdaLoraModel:
    """The tuner of a PEFT model with AdaLoRA."""
    return cast(AdaLoraModel, model.base_model)


def _state(model: nn.Module, config: AdaLoraConfig) -> dict[str, Tensor]:
    """The allocator's running means, and the ranks once they are settled."""
    state = {
        f"{word}.{name}": tensor
        for word in MEMORY
        for name, tensor in getattr(_tuner(model).rankallocator, word).items()
    }
    settled = config.rank_pattern or {}
    return state | {f"rank_pattern.{name}": torch.tensor(on) for name, on in settled.items()}


def _load_state(model: nn.Module, config: AdaLoraConfig, state: Mapping[str, Tensor]) -> None:
    devices = {name: parameter.device for name, parameter in _tuner(model).named_parameters()}
    devices |= {name: parameter.device for name, parameter in model.named_parameters()}
    allocator = _tuner(model).rankallocator
    allocator.reset_ipt()
    settled: dict[str, list[bool]] = {}
    for key, tensor in state.items():
        word, _, name = key.partition(".")
        if word in MEMORY:
            getattr(allocator, word)[name] = tensor.to(devices.get(name, tensor.device))
        elif word == "rank_pattern":
            settled[name] = tensor.tolist()
    config.rank_pattern = settled or None


register_hooks(
    AdaLoraConfig,
    Hooks(on_attach=_on_attach, after_step=_after_step, state=_state, load_state=_load_state),
)
register_method(
    Method(
        "adalora",
        AdaLoraConfig,
        renamed={**LORA_NAMES, "r": "target_r"},
        complete=_complete,
        initialise=freeze_rank_numbers,
        low_rank=True,
        convertible=False,
        formula="(alpha / init_r) B diag(e) A, ranks masked to an average of r",
        source="Zhang et al., arXiv 2303.10512; PEFT",
        note="trains init_r = 1.5 r ranks; tinit 10% and tfinal 20% of the steps unless set; one "
        "trainable adapter a model; the loss holds orth_reg_weight times the penalty; a reloaded "
        "adapter takes labels only with is_trainable=True",
    )
)
