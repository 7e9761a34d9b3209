"""All that a training under way is made of, as `checkpoint.save` takes it, and back.

Trained parameters, buffers that have changed, what a method remembers, the optimizer, the loss
scale, and every source of random numbers. Frozen weights are made anew from the trial.
"""

import random
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.amp import GradScaler
from torch.optim import Optimizer

from adapters.training import hooks
from studies.engine.trials.training.checkpoint import CheckpointError

Tensors = dict[str, Tensor]
State = Mapping[str, Any]
Versions = dict[str, tuple[int, int, int]]


def versions(model: nn.Module) -> Versions:
    """Tells later which buffers have been written to or replaced."""
    return {
        name: (id(b), b.data_ptr(), -1 if b.is_inference() else b._version)
        for name, b in model.named_buffers()
    }


def model_tensors(model: nn.Module, before: Versions) -> Tensors:
    """Trained parameters, buffers that changed since `before`, and what the method remembers."""
    trained = {f"parameter.{n}": p for n, p in model.named_parameters() if p.requires_grad}
    now = versions(model)
    changed = {
        f"buffer.{name}": buffer
        for name, buffer in model.named_buffers()
        if before.get(name) != now[name]
    }
    remembered = {f"method.{name}": tensor for name, tensor in hooks.state(model).items()}
    tensors = {**trained, **changed, **remembered}
    return {name: t.detach().to("cpu", copy=True) for name, t in tensors.items()}


@torch.no_grad()
def load_model(model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Put `model_tensors` back.

    Raises:
        CheckpointError: they are another model's.
    """
    trained = {f"parameter.{n}": p for n, p in model.named_parameters() if p.requires_grad}
    buffers = {f"buffer.{n}": b for n, b in model.named_buffers()}
    given = {name: t for name, t in tensors.items() if name.startswith(("parameter.", "buffer."))}
    here = trained | buffers
    odd = {name for name in given if name not in here} | {n for n in trained if n not in given}
    odd |= {name for name in given.keys() - odd if here[name].shape != given[name].shape}
    if odd:
        raise CheckpointError(f"it is another model's: {', '.join(sorted(odd)[:3])} does not fit")
    for name, tensor in given.items():
        _copy(here[name], tensor)
    method = ((name.partition(".")[2], t) for name, t in tensors.items() if name not in given)
    hooks.load_state(model, dict(method))


def _copy(target: Tensor, tensor: Tensor) -> None:
    if target.is_inference():  # an evaluation has put another in a buffer's place
        with torch.inference_mode():
            target.copy_(tensor)
    else:
        target.copy_(tensor)


def optimizer_state(optimizer: Optimizer, scaler: GradScaler | None) -> State:
    """What the optimizer remembers of each parameter, and float16's loss scale."""
    scale = {} if scaler is None else scaler.state_dict()
    return {"entries": optimizer.state_dict()["state"], "scale": scale}


def load_optimizer(optimizer: Optimizer, scaler: GradScaler | None, state: State) -> None:
    """Put `optimizer_state` back; groups and learning rates stay those of `optimizer`."""
    entries = {int(index): entry for index, entry in state["entries"].items()}
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": entries, "param_groups": groups})
    if scaler is not None:
        scaler.load_state_dict(state["scale"])


def random_state() -> State:
    """The generators of torch (all devices), numpy and Python."""
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    kind, keys, *rest = np.random.get_state(legacy=True)
    return {
        "torch": torch.get_rng_state(),
        "cuda": dict(enumerate(cuda)),
        "python": random.getstate(),
        "numpy": [str(kind), np.asarray(keys).tolist(), *rest],
    }


def load_random(state: State) -> None:
    """Put `random_state` back."""
    torch.set_rng_state(state["torch"])
    for index, each in state["cuda"].items():
        if int(index) < torch.cuda.device_count():
            torch.cuda.set_rng_state(each, int(index))
    version, numbers, following = state["python"]
    random.setstate((version, tuple(numbers), following))
    kind, keys, *rest = state["numpy"]
    np.random.set_state((kind, np.array(keys, dtype=np.uint32), *rest))
