"""Optimizer steps replayed from CUDA graphs, one graph for each shape of their batches.

The host needs longer to ask for a step of a small model than a GPU to do it; a replay asks once. A
shape is captured when it comes again, after some steps that are not, so that all that is made once
is there: the optimizer's numbers, compiled kernels, the proxies that phi needs now. What cannot be
captured is not, and the trial says why.
"""

import random
import sys
from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from adapters.training import capture
from adapters.training.capture import CapturedProxies
from studies.engine.trials.failures import DoesNotFit, is_out_of_memory
from studies.engine.trials.training import cuda_graph
from studies.engine.trials.training.cuda_graph import CudaGraph
from studies.engine.trials.training.journal import Check
from studies.engine.trials.training.step import OptimizerStep, Work

WARM_UP = 6
"""Steps before the first capture, and before those with other proxies, whose kind is then known."""
MOST_GRAPHS = 16
"""Shapes past so many are not captured: each graph keeps memory."""
MOST_RENEWALS = 20
"""A training whose proxies change more often is better not captured."""
MOST_FAILURES = 2
"""A capture that fails, unless for memory, may do after another warm-up, but not for ever."""

NOT_CAPTURED = "steps are not captured in CUDA graphs"
"""How a note begins that says why."""


@dataclass(frozen=True, eq=False)
class _Capture:
    """A graph, and where its numbers lie."""

    graph: CudaGraph
    inputs: Work
    values: Tensor
    proxies: CapturedProxies


class CapturedSteps:
    """Does optimizer steps, replaying those that can be.

    A step of one batch is one graph. Steps of several batches, which come in many combinations, are
    made of one graph for each batch, which adds to gradients that stay, and one for the update:
    with `several`. `new_pool` makes what makes graphs that share their memory; `note` gets what a
    reader of the trial's numbers should know.
    """

    def __init__(
        self,
        model: nn.Module,
        step: OptimizerStep,
        new_pool: Callable[[], Callable[[], CudaGraph]],
        *,
        several: bool,
        note: Callable[[str], None],
    ) -> None:
        self._model, self._step, self._several = model, step, several
        self._new_pool, self._new_graph, self._note = new_pool, new_pool(), note
        self._loss = torch.zeros((), dtype=torch.float64, device=step.device)
        self._graphs: dict[Hashable, _Capture] = {}
        self._seen: Counter[Hashable] = Counter()
        self._warm_up, self._renewals, self._failures = WARM_UP, 0, 0
        self._captures = self._replays = 0
        self._past: list[int] = []
        self._given_up = False

    def run(self, work: Work) -> tuple[Tensor, Check | None]:
        """Do the step of `work`, which is on the host, and set the gradients back.

        Its numbers, and what more there is. The check, where there is one, wants those past the
        step's own once they are read.
        """
        parts = [Work((batch,), work.items) for batch in work.batches] if self._several else [work]
        self._seen.update(part.shape for part in parts)
        if self._warm_up or self._given_up:
            return self._plainly(work), None
        if not self._several:
            capture = self._replayed(work, self._whole)
            if capture is None:
                return self._plainly(work), None
            return self._with_check(capture.values, capture)
        last = None
        for part in parts:
            last = self._replayed(part, self._gradients)
            if last is None and not self._added(part):
                values = self._without_graphs(work)
                self._set_back()
                return values, None
        update = self._replayed(Work((), work.items), self._update)
        values = self._update(None) if update is None else update.values
        return self._with_check(values, last)

    def _with_check(self, values: Tensor, capture: _Capture | None) -> tuple[Tensor, Check | None]:
        """The numbers of a step in `values`, and what `capture` tells of its proxies."""
        width = self._step.width
        if capture is None:
            return values[:width].clone(), None
        numbers = torch.cat([values[:width], capture.values[width:]])
        return numbers, lambda step, more: self._judge(capture, step, more)

    def _added(self, part: Work) -> bool:
        """Add the gradients of a part; False where graphs take the memory that it needs."""
        try:
            self._loss.add_(self._step.accumulate(part.to(self._step.device)))
        except DoesNotFit as error:
            if not self._graphs:
                raise
            self._give_up(f"out of memory: {error}")
            return False
        return True

    def _without_graphs(self, work: Work) -> Tensor:
        """Give the memory of graphs back and do the whole step."""
        self._step.optimizer.zero_grad()
        self._loss.zero_()
        self._begin_anew()
        return self._step.run(work.to(self._step.device))

    def _plainly(self, work: Work) -> Tensor:
        try:
            values = self._step.run(work.to(self._step.device))
        except DoesNotFit as error:
            if not self._graphs:
                raise
            self._give_up(f"out of memory: {error}")
        if self._graphs and self._given_up:  # the memory of graphs is wanted
            values = self._without_graphs(work)
        self._set_back()
        if self._warm_up and not self._given_up:
            self._warm_up -= 1
            capture.leave_room(self._model)
            values.tolist()  # wait: the next fit chooses its proxies by the error of this one
        return values

    def _whole(self, inputs: Work) -> Tensor:
        values = self._step.run(inputs)
        self._set_back()
        return torch.cat([values, *CapturedProxies.of(self._model).report()])

    def _gradients(self, inputs: Work) -> Tensor:
        self._loss.add_(self._step.accumulate(inputs))
        whole = self._loss.expand(self._step.width)
        return torch.cat([whole, *CapturedProxies.of(self._model).report()])

    def _update(self, inputs: Work | None) -> Tensor:
        values = self._step.update(self._loss.clone())
        self._loss.zero_()
        self._set_back()
        return values

    def _set_back(self) -> None:
        # to None where one graph makes and uses them, so that their memory is another graph's too
        self._step.optimizer.zero_grad(set_to_none=not self._several)

    def _replayed(self, work: Work, do: Callable[[Work], Tensor]) -> _Capture | None:
        """Replay what `do` does with `work`; None, and nothing done, where it is not captured."""
        if torch.are_deterministic_algorithms_enabled() and _is_full(work):
            return None  # transformers takes another kernel where it sees that nothing is padded
        key = work.shape
        capture = self._graphs.get(key)
        if capture is None and (self._seen[key] > 1 or not work.batches):
            if not self._given_up and not self._warm_up and len(self._graphs) < MOST_GRAPHS:
                capture = self._capture(key, work, do)
        if capture is not None:
            for tensor, given in zip(capture.inputs.tensors, work.tensors, strict=True):
                tensor.copy_(given, non_blocking=True)
            capture.graph.replay()
            capture.proxies.replayed()
            self._replays += 1
        return capture

    def _capture(self, key: Hashable, work: Work, do: Callable[[Work], Tensor]) -> _Capture | None:
        inputs = work.map(lambda t: torch.empty_like(t, device=self._step.device).copy_(t))
        graph, before = self._new_graph(), _host_random()
        try:
            values = graph.capture(lambda: do(inputs))
        except Exception as error:
            no_memory = is_out_of_memory(error)
            self._failures += 1
            if no_memory or self._failures == MOST_FAILURES:
                kind = "out of memory" if no_memory else type(error).__name__
                self._give_up(f"{kind}: {error}")
        else:
            if _same(_host_random(), before):
                self._captures += 1
                capture = _Capture(graph, inputs, values, CapturedProxies.of(self._model))
                self._graphs[key] = capture
                return capture
            self._give_up("its passes draw random numbers on the host")
        if not self._several:
            self._set_back()  # gradients that were asked for, never made
        _restore(before)
        self._begin_anew()
        return None

    def _give_up(self, why: str) -> None:
        self._given_up = True
        self._note(f"{NOT_CAPTURED}: {why}")

    def _begin_anew(self) -> None:
        """Drop all graphs; unless it was given up, capture new ones after a warm-up."""
        self._release()
        self._seen.clear()
        self._warm_up = WARM_UP
        self._new_graph = self._new_pool()  # the old one may hold what nobody replays any more

    def finish(self) -> None:
        """Give all memory of graphs back, and say how it went."""
        self._release()
        sys.stderr.write(
            f"{self._replays} replays of {self._captures} CUDA graphs; "
            f"for other proxies all were captured anew {self._renewals} times\n"
        )
        if self._past:
            self._note(
                f"the proxies of phi were past their tolerance in {len(self._past)} replayed "
                f"steps, the first of them {self._past[0]}, until they were captured anew"
            )

    def _release(self) -> None:
        self._graphs.clear()
        if self._step.device.type == "cuda":
            torch.cuda.empty_cache()

    def _judge(self, capture: _Capture, step: int, rest: Sequence[float]) -> None:
        """Capture anew where the proxies of `capture` no longer do, as step `step` tells."""
        verdict = capture.proxies.judge(rest)
        if verdict == "past":
            self._past.append(step)
        if verdict == "good" or capture not in self._graphs.values():
            return
        self._renewals += 1
        if self._renewals > MOST_RENEWALS:
            self._give_up(f"the proxies of phi had to be changed {self._renewals} times")
        self._begin_anew()


def captured_steps(
    model: nn.Module, step: OptimizerStep, several: bool, note: Callable[[str], None]
) -> CapturedSteps | None:
    """What replays the steps of a training; None where none can be captured.

    `several` says whether steps have several batches. `note` gets why not, but for a CPU, where
    nobody expects it.
    """
    new_pool = cuda_graph.pool_maker(step.device)
    if new_pool is None:
        return None
    if why := _obstacle(model, step):
        note(f"{NOT_CAPTURED}: {why}")
        return None
    return CapturedSteps(model, step, new_pool, several=several, note=note)


def _obstacle(model: nn.Module, step: OptimizerStep) -> str | None:
    """Why no step of `model` can be captured; None where one may be tried."""
    if step.ranks.count > 1:
        return "several processes train together"
    if step.scaler is not None:
        return "with float16 the host decides which steps count"
    if any(getattr(module, "gradient_checkpointing", False) for module in model.modules()):
        return "gradient checkpointing keeps the random state of every block"
    return capture.obstacle(model)


def _is_full(work: Work) -> bool:
    """Whether the rows of some forward pass have a mask and no padding."""
    parts = [part.inputs for parts in work.batches for part in parts]
    return any(bool(p["attention_mask"].all()) for p in parts if "attention_mask" in p)


def _host_random() -> tuple[Any, ...]:
    return torch.get_rng_state(), random.getstate(), np.random.get_state()


def _same(one: tuple[Any, ...], other: tuple[Any, ...]) -> bool:
    (torch_1, python_1, numpy_1), (torch_2, python_2, numpy_2) = one, other
    keys = np.array_equal(numpy_1[1], numpy_2[1]) and numpy_1[2:] == numpy_2[2:]
    return torch.equal(torch_1, torch_2) and python_1 == python_2 and keys


def _restore(state: tuple[Any, ...]) -> None:
    torch.set_rng_state(state[0])
    random.setstate(state[1])
    np.random.set_state(state[2])
