"""What the adapters of one model share: it lives on the model, not on the tuner.

PEFT drops the tuner after `inject_adapter_in_model`, and the model goes on without it.
"""

from typing import Any

import torch
from torch import nn
from torch._C._dynamo.eval_frame import get_eval_frame_callback
from torch.utils.hooks import RemovableHandle

from adapters.basis.fitting.batch import PhiBatch
from adapters.basis.fitting.sharding_and_offloading import SHALLOW_COPY, require_one_unit

_NAME = "_basis_state"


class AdapterState:
    """The phis of every adapter of the base model, which tells when a pass begins and ends."""

    def __init__(self, model: nn.Module) -> None:
        self.batches: dict[str, PhiBatch] = {}
        self._handles: list[RemovableHandle] = [
            model.register_forward_pre_hook(_begin_pass),
            model.register_forward_hook(_end_pass, always_call=True),
        ]
        model.__dict__[_NAME] = self

    @staticmethod
    def of(model: nn.Module) -> "AdapterState | None":
        """The state on `model`, or None where it has no adapters."""
        return model.__dict__.get(_NAME)

    def batch(self, adapter: str, tolerance: float) -> PhiBatch:
        """The batch of `adapter`, a new one where no layer takes part in it yet."""
        if adapter not in self.batches or not self.batches[adapter].layers:
            self.batches[adapter] = PhiBatch(adapter, tolerance)
        return self.batches[adapter]

    def remove(self, model: nn.Module) -> None:
        """Take all of it off `model`."""
        for handle in self._handles:
            handle.remove()
        model.__dict__.pop(_NAME, None)


def is_compiled(model: nn.Module) -> bool:
    """Whether torch.compile works on what is called now, or on the forward of `model` by itself."""
    if torch.compiler.is_compiling() or hasattr(model.forward, "_torchdynamo_orig_callable"):
        return True
    return get_eval_frame_callback() not in (None, False)


def _begin_pass(model: nn.Module, _: Any) -> None:
    if getattr(model, "_is_replica", False):
        raise RuntimeError(SHALLOW_COPY.format("the model"))
    require_one_unit(model)
    compiled = is_compiled(model)
    for batch in model.__dict__[_NAME].batches.values():
        batch.begin_pass(model.training, model, compiled=compiled)


def _end_pass(model: nn.Module, *_: Any) -> None:
    for batch in model.__dict__[_NAME].batches.values():
        batch.end_pass()
