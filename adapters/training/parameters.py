"""What a training loop needs to know of phi: no weight decay, and a clipping group of its own.

phi's gradient sums over all entries of W, so in a joint norm it drowns the gradients of A and B.
"""

from typing import Any, NamedTuple

from torch import Tensor, nn

from adapters.basis.layers import BasisLayer
from adapters.training.hooks import split_by_rate

HEADS = frozenset({"modules_to_save", "classifier", "score", "pre_classifier", "qa_outputs"})
"""Names of the modules that hold a task's head."""


def phi_parameters(model: nn.Module) -> list[nn.Parameter]:
    """The trained numbers of every phi in `model`, input scales included, each once."""
    parameters = {
        id(p): p
        for layer in model.modules()
        if isinstance(layer, BasisLayer)
        for p in (*layer.basis_phi.parameters(), *layer.basis_scale.parameters())
        if p.requires_grad
    }
    return list(parameters.values())


def parameter_groups(
    model: nn.Module,
    learning_rate: float,
    weight_decay: float = 0.0,
    phi_rate: float | None = None,
) -> list[dict[str, Any]]:
    """Optimizer groups: matrices with weight decay; vectors, biases and phi without.

    A method that trains some parameters at another rate (LoRA+) has groups of its own.

    Args:
        model: The model with its adapter.
        learning_rate: Of everything else than phi.
        weight_decay: Of matrices.
        phi_rate: Factor on the learning rate of phi's numbers, in groups of their own; None: they
            are among the vectors.
    """
    phi = {id(p) for p in phi_parameters(model)}
    decayed: list[nn.Parameter] = []
    plain: list[nn.Parameter] = []
    of_phi = plain if phi_rate is None else []
    for p in model.parameters():
        if p.requires_grad:
            (of_phi if id(p) in phi else plain if p.ndim < 2 else decayed).append(p)
    groups = [
        {"params": decayed, "lr": learning_rate, "weight_decay": weight_decay},
        {"params": plain, "lr": learning_rate, "weight_decay": 0.0},
    ]
    if phi_rate is not None:
        groups.append({"params": of_phi, "lr": learning_rate * phi_rate, "weight_decay": 0.0})
    return split_by_rate(model, [group for group in groups if group["params"]])


class Trained(NamedTuple):
    """The trained parameters of a model, by clipping group; the model is not held."""

    phi: list[nn.Parameter]
    """The parameters from `phi_parameters`."""
    others: list[nn.Parameter]


def trained_parameters(model: nn.Module) -> Trained:
    """The parameters of `model` that require gradients now, each once."""
    phi = phi_parameters(model)
    ids = {id(p) for p in phi}
    return Trained(phi, [p for p in model.parameters() if p.requires_grad and id(p) not in ids])


def clip_gradients(model: nn.Module | Trained, max_norm: float) -> Tensor:
    """Clip phi's gradients and all others to `max_norm`, each group by its own norm.

    Args:
        model: The model, or its trained parameters where a loop has collected them once.
        max_norm: The largest norm; infinity clips nothing.

    Returns:
        The norm of the others before clipping.
    """
    trained = model if isinstance(model, Trained) else trained_parameters(model)
    if trained.phi:
        nn.utils.clip_grad_norm_(trained.phi, max_norm)
    return nn.utils.clip_grad_norm_(trained.others, max_norm)


def count_parameters(model: nn.Module) -> dict[str, int]:
    """Numbers of parameters, each shared tensor once.

    Keys: `trainable`, `adapter` (trainable, without the task's head), `phi` (the nonlinearities
    alone) and `total`. Places that a method of varying rank keeps free do not count.
    """
    idle: int = sum(getattr(m, "idle_parameters", int)() for m in model.modules())  # int() is 0
    trainable = {id(p): p.numel() for p in model.parameters() if p.requires_grad}
    head = {id(p) for name, p in model.named_parameters() if not HEADS.isdisjoint(name.split("."))}
    return {
        "trainable": sum(trainable.values()) - idle,
        "adapter": sum(n for key, n in trainable.items() if key not in head) - idle,
        "phi": sum(p.numel() for p in phi_parameters(model)),
        "total": sum(p.numel() for p in model.parameters()),
    }
