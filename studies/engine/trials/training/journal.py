"""What each step gave, written down, and refused where it is no number.

Numbers are read from the device for several steps at once: waiting for each would keep it idle.
"""

import math
import statistics
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from studies.engine.trials.failures import NotFinite
from studies.engine.trials.metrics_file import MetricsFile
from studies.engine.trials.training.progress import TrainingProgress

Check = Callable[[int, Sequence[float]], None]
"""Gets a step, and what it gave beside loss and gradient norm."""
LINES = 200
"""About how many lines of training metrics a trial writes, however long it is."""


class _Done(NamedTuple):
    """A step whose numbers are not read yet."""

    step: int
    values: Tensor
    rate: float
    at: float
    check: Check | None


class Journal:
    """Keeps losses and times in `progress`, and writes lines of metrics.

    Of the `steps` of the training, `at_once` are read together. `penalties` names what follows loss
    and gradient norm in the numbers of a step. With `overflows` an infinite gradient is expected
    now and then, as with float16: the scaler then skips the step and halves its scale.
    """

    def __init__(
        self,
        progress: TrainingProgress,
        metrics: MetricsFile,
        steps: int,
        at_once: int,
        overflows: bool,
        penalties: Sequence[str] = (),
    ) -> None:
        self._progress, self._metrics, self._steps = progress, metrics, steps
        self._at_once, self._overflows, self._penalties = at_once, overflows, tuple(penalties)
        self._every = max(1, steps // LINES)
        self._waiting: list[_Done] = []
        self._seconds = 0.0

    def add(
        self, step: int, values: Tensor, rate: float, began: float, check: Check | None = None
    ) -> None:
        """Step `step` is under way since `began`, by `time.perf_counter`.

        `values` are its loss, gradient norm and penalties and then what is for `check`; `rate` is
        the learning rate it used.

        Raises:
            NotFinite: as `read`.
        """
        self._waiting.append(_Done(step, values, rate, time.monotonic(), check))
        self._seconds += time.perf_counter() - began
        if len(self._waiting) == self._at_once:
            self.read()

    def read(self) -> None:
        """Wait for the steps that were added, keep and write what they gave.

        Raises:
            NotFinite: a loss or gradient norm is not finite; those of the steps before are kept.
        """
        if not self._waiting:
            return
        began, waiting = time.perf_counter(), self._waiting
        numbers = torch.cat([done.values for done in waiting]).tolist()
        each = (self._seconds + time.perf_counter() - began) / len(waiting)
        self._waiting, self._seconds = [], 0.0
        start = 0
        for done in waiting:
            loss, norm, *more = numbers[start : start + len(done.values)]
            start += len(done.values)
            if not math.isfinite(loss):
                raise NotFinite(f"the training loss is {loss} at step {done.step}")
            if not math.isfinite(norm) and not self._overflows:
                raise NotFinite(f"the gradient norm is {norm} at step {done.step}")
            if done.check is not None:
                done.check(done.step, more[len(self._penalties) :])
            self._progress.step_seconds.append(each)
            self._progress.losses.append(loss)
            if done.step % self._every == 0 or done.step == self._steps:
                line = {
                    "train/loss": statistics.fmean(self._progress.losses[-self._every :]),
                    "train/learning_rate": done.rate,
                    "train/grad_norm": norm,
                }
                line |= {
                    f"train/penalty/{n}": v for n, v in zip(self._penalties, more, strict=False)
                }
                self._metrics.write(done.step, line, done.at)
