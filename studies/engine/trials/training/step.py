"""One optimizer step: forward and backward passes of its batches, clipping, AdamW."""

import math
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

import adapters
from adapters.training.penalties import penalty_values
from studies.engine.definition.train import Train
from studies.engine.labels import counted
from studies.engine.trials.failures import DoesNotFit, is_out_of_memory
from studies.engine.trials.ranks import Ranks
from studies.tasks.kinds.prepared import Outputs
from studies.tasks.kinds.tokens import arguments_of, places_of_labels

Loss = Callable[[Outputs, Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Part:
    """Rows of one forward pass."""

    inputs: dict[str, Tensor]
    labels: Tensor
    places: int | None = None
    """How many last positions need logits; None: all of them, or there are no positions."""

    @property
    def tensors(self) -> list[Tensor]:
        """All of them, in an order that their names decide."""
        return [*(self.inputs[name] for name in sorted(self.inputs)), self.labels]

    def map(self, make: Callable[[Tensor], Tensor]) -> "Part":
        """The same with `make(tensor)` for each tensor."""
        inputs = {name: make(tensor) for name, tensor in self.inputs.items()}
        return Part(inputs, make(self.labels), self.places)


@dataclass(frozen=True)
class Work:
    """What one optimizer step is made of."""

    batches: tuple[tuple[Part, ...], ...]
    """Each batch in the parts that are run at once."""
    items: Tensor
    """How many labels the batches have, those of all processes together, float32."""

    @property
    def tensors(self) -> list[Tensor]:
        """All of them, in the order of their parts."""
        return [*(t for parts in self.batches for part in parts for t in part.tensors), self.items]

    @property
    def shape(self) -> Hashable:
        """The same for works that differ in the numbers of their tensors alone."""
        return tuple(
            tuple((part.places, *sorted(part.inputs), *_shapes(part.tensors)) for part in parts)
            for parts in self.batches
        )

    def map(self, make: Callable[[Tensor], Tensor]) -> "Work":
        """The same with `make(tensor)` for each tensor."""
        batches = tuple(tuple(part.map(make) for part in parts) for parts in self.batches)
        return Work(batches, make(self.items))

    def to(self, device: torch.device) -> "Work":
        """The same on `device`; from pinned memory, the host does not wait."""
        return self.map(lambda tensor: tensor.to(device, non_blocking=True))


def _shapes(tensors: Sequence[Tensor]) -> list[Hashable]:
    return [(tuple(tensor.shape), tensor.dtype) for tensor in tensors]


class OptimizerStep:
    """Trains a model in place, a step a call: those parameters that require gradients now.

    `micro_batch` is the most rows of one forward pass, `dtype` that of mixed precision (float32 for
    none), `ranks` the processes that share every batch, `device` where the model is. `few_shapes`
    says whether the shapes of all tensors shall be among few.
    """

    def __init__(
        self,
        model: nn.Module,
        settings: Train,
        loss: Loss,
        *,
        micro_batch: int,
        dtype: torch.dtype,
        ranks: Ranks,
        device: torch.device,
        few_shapes: bool = False,
    ) -> None:
        self._model, self._loss = model, loss
        self.device, self.ranks = device, ranks
        self._micro_batch = micro_batch
        self._limit = math.inf if settings.max_grad_norm is None else settings.max_grad_norm
        self._dtype = dtype
        self._few_shapes = few_shapes
        self._takes_places = "logits_to_keep" in arguments_of(model)
        self._penalties = settings.penalties
        self.trained = adapters.trained_parameters(model)
        apart = (settings.phi_rate, settings.phi_from, settings.phi_until) != (1.0, 0.0, 1.0)
        groups = adapters.parameter_groups(
            model,
            settings.learning_rate,
            settings.weight_decay,
            settings.phi_rate if apart else None,
        )
        phi = {id(p) for p in self.trained.phi} if apart else set()
        self._of_phi = [id(group["params"][0]) in phi for group in groups]
        self._highest: list[float] = [group["lr"] for group in groups]
        on_gpu = device.type == "cuda"
        if on_gpu:  # where a CUDA graph finds the rate of each replay
            for group in groups:
                group["lr"] = torch.tensor(group["lr"], device=device)
        fused = on_gpu and all(p.is_contiguous() for g in groups for p in g["params"])
        self.optimizer = torch.optim.AdamW(
            groups, lr=settings.learning_rate, capturable=on_gpu, fused=fused or None
        )
        self.skipped = 0
        """Steps that the scaler took back because a gradient overflowed."""
        self.scaler = torch.amp.GradScaler(device.type) if dtype is torch.float16 else None

    def work(self, batches: Sequence[Mapping[str, Tensor]]) -> Work:
        """The step of `batches`: this process's rows of each, cut into parts that fit.

        Parts of a batch stay padded as the batch is, and labels are counted over the whole step, so
        that the parts' gradients add up to the batches'.
        """
        items = sum(batch["labels"].ne(-100).sum() for batch in batches)
        assert isinstance(items, Tensor)
        shared = map(self.ranks.share, batches) if self.ranks.count > 1 else batches
        return Work(tuple(tuple(self._parts(batch)) for batch in shared), items.float())

    def _parts(self, batch: Mapping[str, Tensor]) -> Iterator[Part]:
        size, labels = self._micro_batch, batch["labels"]
        reads, few = self._takes_places and labels.ndim == 2, self._few_shapes
        common = None
        if reads and few:  # the next power of two
            common = min(1 << (places_of_labels(labels) - 1).bit_length(), labels.shape[1])
        for start in range(0, len(labels), size):
            inputs = {name: values[start : start + size] for name, values in batch.items()}
            own = inputs.pop("labels")
            yield Part(inputs, own, places_of_labels(own) if reads and not few else common)

    @property
    def width(self) -> int:
        """How many numbers a step gives: its loss, its gradient norm, and each penalty."""
        return 2 + len(self._penalties)

    def set_rate(self, factor: float, *, phi: bool = True) -> float:
        """Set every group's learning rate to `factor` of its highest; the first group's.

        With `phi` false that of phi's numbers is 0, at which AdamW leaves them as they are.
        """
        highest_of = zip(self.optimizer.param_groups, self._highest, self._of_phi, strict=True)
        for group, highest, of_phi in highest_of:
            rate = highest * factor if phi or not of_phi else 0.0
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(rate)
            else:
                group["lr"] = rate
        return self._highest[0] * factor

    def run(self, work: Work) -> Tensor:
        """Do the step; gradients are left. Loss, gradient norm before clipping and penalties,
        (width,) float64.

        Raises:
            DoesNotFit: memory is used up.
        """
        return self.update(self.accumulate(work))

    def accumulate(self, work: Work) -> Tensor:
        """Add the gradients of all parts of `work` to those there are; its loss, float64.

        Both are this process's share.

        Raises:
            DoesNotFit: memory is used up.
        """
        total = torch.zeros((), dtype=torch.float64, device=self.device)
        for parts in work.batches:
            losses = [self._fitting(part, work.items) for part in parts]
            if not losses and self.scaler is not None:  # which unscales what it has scaled only
                self.scaler.scale(total)
            if losses:  # else fewer rows than processes
                loss = losses[0] if len(losses) == 1 else torch.stack(losses).sum()
                total = total + loss.double()
        return total

    def update(self, loss: Tensor) -> Tensor:
        """Clip the gradients and take the optimizer's step, as `run`; `loss` is `accumulate`'s."""
        penalties = self._penalise()
        loss = self.ranks.sum([*self.trained.phi, *self.trained.others], loss)
        if self.scaler is not None:
            self.scaler.unscale_(self.optimizer)
        norm = adapters.clip_gradients(self.trained, self._limit)
        if self.scaler is None:
            self.optimizer.step()
        else:
            scale = self.scaler.get_scale()
            self.scaler.step(self.optimizer)
            self.scaler.update()
            self.skipped += self.scaler.get_scale() < scale
        return torch.stack([loss, norm.double(), *penalties])

    def _penalise(self) -> list[Tensor]:
        """Add the gradients of the penalties to those there are; each of them, unweighted."""
        if not self._penalties:
            return []
        values = penalty_values(self._model, list(self._penalties))
        share = [weight / self.ranks.count * values[n] for n, weight in self._penalties.items()]
        loss = torch.stack(share).sum()
        (loss if self.scaler is None else self.scaler.scale(loss)).backward()
        return [value.detach().double() for value in values.values()]

    def _fitting(self, part: Part, items: Tensor) -> Tensor:
        try:
            return self.gradients(part, items)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            rows = counted(len(part.labels), "row")
            raise DoesNotFit(f"{rows} at once: {error}") from error

    def gradients(self, part: Part, items: Tensor) -> Tensor:
        """Add the gradients of `part` to those there are; its share of the step's loss."""
        given: dict[str, Any] = dict(part.inputs)
        if part.places is not None:
            given["logits_to_keep"] = part.places
        half = self._dtype is not torch.float32
        with torch.autocast(self.device.type, dtype=self._dtype, enabled=half):
            outputs = self._model(**given)
        loss = self._loss(outputs, part.labels, items)
        del outputs  # the logits, where the backward pass does without
        (loss if self.scaler is None else self.scaler.scale(loss)).backward()
        return loss.detach()
