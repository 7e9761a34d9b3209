"""A matrix that an update of the weight is to be: what can a method represent?"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import adapters
from adapters.spectrum import effective_rank, stable_rank
from studies.tasks.encoding import Encoded, Example
from studies.tasks.kinds.prepared import Outputs, Prepared, evaluating
from studies.tasks.metrics import Measured
from studies.tasks.rows import Matrix
from studies.tasks.spec import TaskSpec
from studies.tasks.task import TaskData


class Approximation(Prepared):
    r"""The target T (out, in), and the update M of the one linear layer, read off on the identity.

    The loss is $\lVert M - T\rVert_F^2 / \lVert T\rVert_F^2$: all of T in every step, whatever the
    batch size. All splits are the same matrix: nothing is held out but by the seed that draws it.
    """

    def __init__(self, spec: TaskSpec, data: TaskData, processor: Any) -> None:
        (row,) = data.rows("train", Matrix)
        values = np.frombuffer(row.values, np.float32).reshape(row.shape)
        self._target = torch.from_numpy(values.copy())
        self._values = torch.linalg.svdvals(self._target.double())
        self.train = Encoded(({"input_ids": [0]},))

    def collate(
        self, examples: Sequence[Example], lengths: Sequence[int] = ()
    ) -> dict[str, Tensor]:
        """The identity (1, in, in) and what the layer is to make of it, Tᵀ (1, in, out)."""
        target = self._target.T.contiguous()
        return {"inputs": torch.eye(len(target))[None], "labels": target[None]}

    def loss(self, outputs: Outputs, labels: Tensor, items: Tensor | int) -> Tensor:
        """The squared error, as a share of the target's squared norm."""
        return (outputs.logits.float() - labels).square().sum() / labels.square().sum()

    def measure(
        self, model: nn.Module, split: str, batch_size: int, autocast: torch.dtype | None = None
    ) -> Measured:
        """The metrics of `studies.tasks.matrices`."""
        with evaluating(model, autocast) as device:
            inputs = torch.eye(self._target.shape[1], device=device)
            update = model(inputs=inputs).logits.double().cpu().T
        error = float((update - self._target).square().sum() / self._target.double().square().sum())
        if not update.isfinite().all():
            return Measured({"error": error}, {})
        values = torch.linalg.svdvals(update)
        metrics = {
            "error": error,
            "explained": 1 - error,
            "svd_bound": self.svd_bound(adapters.count_parameters(model)["trainable"]),
            "stable_rank": stable_rank(values),
            "effective_rank": effective_rank(values),
            "target_stable_rank": stable_rank(self._values),
            "target_effective_rank": effective_rank(self._values),
        }
        return Measured(metrics, {})

    def svd_bound(self, trained: int) -> float:
        r"""The least error of two factors with at most `trained` numbers.

        These have the rank $k = \lfloor \text{trained} / (\text{out} + \text{in}) \rfloor$, and no
        matrix of rank k is nearer than $\sum_{i>k} s_i^2 / \sum_i s_i^2$ (Eckart and Young 1936).
        """
        energy = self._values.square()
        return float(energy[trained // sum(self._target.shape) :].sum() / energy.sum())
