"""What training changes, copied after named steps: `after.spectra.steps`.

A step is looked at once the training is over, so that nothing is computed with the model between
two steps and the numbers of the training stay what they are. Copies are part of every checkpoint: a
training that was cut off keeps those that it has taken.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

from torch import Tensor, nn

from studies.engine.trials.training import resuming


class Snapshots:
    """Copies on the host, by the step after which they were taken: each of `steps`."""

    def __init__(self, steps: Iterable[int] = ()) -> None:
        self._steps = frozenset(steps)
        self._taken: dict[int, dict[str, Tensor]] = {}

    @property
    def steps(self) -> list[int]:
        """The steps of which there is a copy, rising."""
        return sorted(self._taken)

    @property
    def missing(self) -> list[int]:
        """The steps that are named and of which there is no copy, rising."""
        return sorted(self._steps - self._taken.keys())

    def wants(self, step: int) -> bool:
        """Whether `step` is one of those that are named."""
        return step in self._steps

    def take(self, model: nn.Module, step: int) -> None:
        """Copy what training has changed of `model` by `step`."""
        self._taken[step] = resuming.model_tensors(model, {})

    @contextmanager
    def each(self, model: nn.Module) -> Iterator[Iterator[int]]:
        """The steps, `model` being what it was after each; afterwards it is as before."""
        now = resuming.model_tensors(model, {})
        try:
            yield self._put(model)
        finally:
            resuming.load_model(model, now)

    def _put(self, model: nn.Module) -> Iterator[int]:
        for step in self.steps:
            resuming.load_model(model, self._taken[step])
            yield step

    def state(self) -> dict[int, dict[str, Tensor]]:
        """What a checkpoint holds of it."""
        return self._taken

    def load(self, state: Mapping[str, dict[str, Tensor]]) -> None:
        """Go on from what `state` gave."""
        self._taken = {int(step): tensors for step, tensors in state.items()}
