"""The parameters of a training's best evaluation, kept while it goes on: `train.keep: best`.

A copy on the host of all that changes in training: trained parameters, buffers, and what the method
remembers from step to step. It is part of every checkpoint, so that a training that was cut off
keeps what it would have kept.
"""

import math
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from adapters.training.phi_schedule import fold_input_scales
from studies.engine.records import BestStep
from studies.engine.trials.ranks import ranks
from studies.engine.trials.training import resuming


class Best:
    """The best evaluation so far by `metric` (`valid/<metric>`), of equal ones the first.

    `patience` is how many evaluations in a row may be no better; None: any number.
    """

    def __init__(self, metric: str, *, higher: bool, patience: int | None) -> None:
        self.metric = metric
        self._higher, self._patience = higher, patience
        self._tensors: dict[str, Tensor] = {}
        self._step = self._worse = 0
        """The evaluation's step, 0 before the first; how many in a row were no better since."""
        self.values: dict[str, float] = {}
        """All that the best evaluation found."""

    def offer(self, model: nn.Module, step: int, values: Mapping[str, float]) -> None:
        """Keep `model` as it is after `step`, where the evaluation that found `values` is best."""
        value = ranks().agreed(values[self.metric])
        assert math.isfinite(value), "refused where it was measured"
        if self._step and not self._is_better(value):
            self._worse += 1
            return
        self._step, self._worse = step, 0
        self.values = {**values, self.metric: value}
        self._tensors = resuming.model_tensors(model, {})

    def _is_better(self, value: float) -> bool:
        best = self.values[self.metric]
        return value > best if self._higher else value < best

    @property
    def gives_up(self) -> bool:
        """Whether so many evaluations were no better that no more are waited for."""
        return self._patience is not None and self._worse >= self._patience

    def restore(self, model: nn.Module) -> None:
        """Write what was kept into the parameters and buffers of `model`."""
        resuming.load_model(model, self._tensors)
        fold_input_scales(model)

    def record(self, trained: int) -> BestStep:
        """What is kept of a training of `trained` steps."""
        value = self.values[self.metric]
        return BestStep(step=self._step, metric=self.metric, value=value, trained=trained)

    def state(self) -> dict[str, Any]:
        """What a checkpoint holds of it."""
        own = {"step": self._step, "worse": self._worse, "values": self.values}
        return {**own, "tensors": self._tensors}

    def load(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state` gave."""
        self._tensors, self.values = state["tensors"], state["values"]
        self._step, self._worse = state["step"], state["worse"]
