"""What a training loop needs to replay its steps from CUDA graphs.

A replay does what was done when the graph was captured, on the numbers it finds: proxies of phi are
fitted anew, but their kind and degree stay. So a loop reads what each replay reports of its
proxies, and captures anew where they no longer do.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from adapters.basis.fitting.batch import PhiBatch
from adapters.basis.fitting.model_state import AdapterState
from adapters.basis.fitting.tensor_versions import count_step
from adapters.training.hooks import acts_on_the_host
from basis_zoo.proxy import CapturedFit, ProxyFitter

RENEW_AT = 2.0**-4
"""Share of the tolerance past which a proxy's error asks for a new capture: at degree 8 its range
may grow by a third, at 16 by a sixth, until it is past the tolerance."""
AIM = 2.0**-12
"""Share of the tolerance that a proxy for a capture aims at, so that it does for a while: until the
range is 1.8 times as large (degree 8) or 1.4 times (degree 16)."""

Verdict = Literal["good", "near", "past"]
"""Whether the error of proxies is below their tolerance, near to it, or was past it."""


@dataclass(frozen=True)
class CapturedProxies:
    """The proxies that were fitted inside one capture."""

    fits: tuple[tuple[ProxyFitter, CapturedFit], ...]

    @staticmethod
    def of(model: nn.Module) -> "CapturedProxies":
        """The proxies of the last capture in which `model` ran; call it before the next one."""
        fitters = [f for batch in _batches(model) for f in batch._fitters.values()]
        return CapturedProxies(tuple((f, f.captured) for f in fitters if f.captured is not None))

    def report(self) -> list[Tensor]:
        """Vectors, float64, that each replay writes anew."""
        return [fit.report for _, fit in self.fits]

    def judge(self, report: Sequence[float]) -> Verdict:
        """What the numbers of `report`, one vector after the other, say after a replay.

        The next fit that is not replayed, and with it the next capture, takes the proxies for which
        the latest report asks.
        """
        verdict: Verdict = "good"
        start = 0
        for fitter, fit in self.fits:
            numbers = list(report[start : start + len(fit.report)])
            start += len(numbers)
            fitter.learn(fit, numbers)
            if fit.falls_short(numbers, fitter.tolerance):
                verdict = "past"
            elif verdict == "good" and fit.falls_short(numbers, RENEW_AT * fitter.tolerance):
                verdict = "near"
        return verdict

    def replayed(self) -> None:
        """Say that the graph was replayed: what was made and measured before is out of date."""
        count_step()
        for fitter, _ in self.fits:
            fitter.forget()


def obstacle(model: nn.Module) -> str | None:
    """Why steps of `model` cannot be replayed from a CUDA graph; None where they may."""
    if acts_on_the_host(model):
        return "its method decides something between two steps, or before each"
    if torch.are_deterministic_algorithms_enabled() and any(b.layers for b in _batches(model)):
        return "to be deterministic, the proxies of phi are chosen anew at every step"
    return None


def leave_room(model: nn.Module) -> None:
    """Let proxies be better than they must, from the next fit on, so that captures of them last."""
    for batch in _batches(model):
        for fitter in batch._fitters.values():
            fitter.aim = AIM


@contextmanager
def numbers_stay(model: nn.Module) -> Iterator[None]:
    """Within, no number of `model` changes, and passes are made without gradients.

    So one fit of phi does for all of them, and a capture may take it: its replays are as good as
    the pass as long as this lasts.
    """
    batches = _batches(model)
    for batch in batches:
        batch._fits = {}  # fused optimizers change numbers unseen: what is in force may be old
        batch.numbers_stay = True
    try:
        yield
    finally:
        for batch in batches:
            batch.numbers_stay = False


def _batches(model: nn.Module) -> list[PhiBatch]:
    states = [state for m in model.modules() if (state := AdapterState.of(m)) is not None]
    return [batch for state in states for batch in state.batches.values()]
