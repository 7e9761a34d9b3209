"""A task's rows made ready for one model: all that a training loop needs to know of a task."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from studies.tasks.encoding import Example, Examples
from studies.tasks.metrics import Measured


class Outputs(Protocol):
    """What a model gives, as far as a loss reads it; transformers' `ModelOutput` is one."""

    logits: Tensor


class Prepared(ABC):
    """Training examples, how they become batches, the loss, and what is measured."""

    train: Examples
    slow_batches: bool = False
    """Whether making a batch takes about as long as a step on a GPU, so that processes of their
    own make batches ahead. `collate` then draws from nothing but its examples."""

    evaluates_plainly: bool = False
    """Whether `evaluate` does nothing with the model but call it, with tensors by their names whose
    shapes are few on a GPU, and reads its logits: then its calls may be replayed."""

    @abstractmethod
    def collate(
        self, examples: Sequence[Example], lengths: Sequence[int] = ()
    ) -> dict[str, Tensor]:
        """A batch of training examples, with `labels`.

        Rows are padded to the shortest of `lengths` that holds them, else to the longest of them.
        """

    def loss(self, outputs: Outputs, labels: Tensor, items: Tensor | int) -> Tensor:
        """Cross-entropy in float32 of (rows, classes) logits, averaged over the step's rows.

        `items` counts the labels (those that are not -100) of all batches that make one optimizer
        step. A model's own loss ignores it in places, and n accumulated batches would then make n
        times the gradient.
        """
        total = functional.cross_entropy(outputs.logits.float(), labels, reduction="sum")
        return total / items

    def fixed_loss(self, outputs: Outputs, labels: Tensor, items: Tensor | int) -> Tensor:
        """`loss` by operations whose shapes depend on nothing but those of its arguments.

        CUDA graphs are made of such; the default is `loss` itself.
        """
        return self.loss(outputs, labels, items)

    @abstractmethod
    def measure(
        self, model: nn.Module, split: str, batch_size: int, autocast: torch.dtype | None = None
    ) -> Measured:
        """The task's metrics on the rows of `split`, without the split's name, and by row.

        The model comes back in the mode (train or eval) it came in. `autocast` is the type of mixed
        precision, None for none.
        """

    def evaluate(
        self, model: nn.Module, split: str, batch_size: int, autocast: torch.dtype | None = None
    ) -> dict[str, float]:
        """The metrics alone that `measure` gives."""
        return self.measure(model, split, batch_size, autocast).metrics


def outputs_of(
    model: nn.Module, batches: Iterable[dict[str, Tensor]], device: torch.device
) -> tuple[NDArray[np.float64], NDArray[Any]]:
    """The logits of all batches, in float64, and their labels, in the order of the batches."""
    pairs = [(given.logits.double(), labels) for given, labels in run_on(model, batches, device)]
    outputs, labels = map(torch.cat, zip(*pairs, strict=True))
    return outputs.cpu().numpy(), labels.cpu().numpy()  # read at the end: until then nobody waits


def run_on(
    model: nn.Module, batches: Iterable[dict[str, Tensor]], device: torch.device
) -> Iterator[tuple[Any, Tensor]]:
    """What `model`, which is on `device`, gives for each batch, and the batch's labels there."""
    for batch in batches:
        given = {name: tensor.to(device) for name, tensor in batch.items()}
        labels = given.pop("labels")
        yield model(**given), labels


@contextmanager
def evaluating(model: nn.Module, autocast: torch.dtype | None) -> Iterator[torch.device]:
    """No gradients, no dropout, mixed precision where asked for; gives the model's device."""
    was_training = model.training
    model.eval()
    device = next(model.parameters()).device
    try:
        with (
            torch.inference_mode(),
            torch.autocast(device.type, dtype=autocast, enabled=autocast is not None),
        ):
            yield device
    finally:
        model.train(was_training)
