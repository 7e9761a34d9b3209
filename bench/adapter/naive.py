"""phi(BA) the obvious way, by direct evaluation in chunks, and through the proxy, over G.

Times are of one update among `LAYERS` alike: ours are fitted together, as `adapters.basis.fitting`
does for a whole model; the other ways share nothing, so one update of theirs tells the time of
each.
"""

import functools
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from adapters.basis.fitting.batch import PhiBatch
from adapters.basis.fitting.members import Member
from adapters.ops.weight import weight_update
from basis_zoo.proxy import ExactProxy, Proxy
from bench.adapter.cases import Case, case
from bench.adapter.record import Curve, Row, Run
from bench.adapter.timing import seconds

SIDES = {"cuda": 4096, "cpu": 256}
COUNTS = (4, 8, 16, 32, 50, 64, 128, 256, 512)
RANK, LAYERS = 16, 32
PATIENCE = 1.0
"""Seconds of one update after which a way is not tried with more functions."""

Updates = tuple[list[Tensor], list[Tensor]]
"""The updates, and what their gradients are taken of."""
Way = Callable[[], Updates]
"""Makes the updates of one step."""


def _leaves(subject: Case) -> list[Tensor]:
    return [
        subject.b.requires_grad_(),
        subject.a.requires_grad_(),
        *subject.nonlinearity.parameters(),
    ]


def obvious(subjects: Sequence[Case]) -> Way:
    """All G functions of every entry at once, as a paper's formula is typed, by autograd."""
    leaves, phi = _leaves(subjects[0]), subjects[0].nonlinearity

    def step() -> Updates:
        x = subjects[0].b @ subjects[0].a
        z = phi.bandwidth * (x[..., None] - phi.grid)
        return [(phi.amplitude * torch.sinc(z)).sum(-1)], leaves

    return step


def direct(subjects: Sequence[Case]) -> Way:
    """All G functions in chunks that are computed anew in the backward pass."""
    leaves, phi = _leaves(subjects[0]), subjects[0].nonlinearity

    def step() -> Updates:
        exact = ExactProxy.of(phi.phi, phi.parameters_in_force())
        return [weight_update(subjects[0].b, subjects[0].a, exact, 1.0)], leaves

    return step


class _Layer:
    """What `PhiBatch` asks of a layer."""

    def __init__(self, subject: Case) -> None:
        self.subject, self.leaves = subject, _leaves(subject)
        self.proxies: dict[str, Proxy] = {}

    def uses(self, adapter: str) -> bool:
        """The only adapter there is."""
        return True

    def member(self, adapter: str) -> Member:
        """The factors and the phi."""
        return Member(self.subject.b, self.subject.a, self.subject.nonlinearity)

    def has_factors(self, adapter: str) -> bool:
        """B is the first of its numbers."""
        return True

    def reach(self, adapter: str) -> None:
        """That of B A."""

    def numbers(self, adapter: str) -> list[Tensor]:
        """All of them."""
        return self.leaves

    def observe(self, adapter: str) -> bool:
        """Nothing is measured."""
        return False


def ours(subjects: Sequence[Case]) -> Way:
    """The proxies, fitted anew in every step, since its numbers are written."""
    phis, layers = PhiBatch("default", 1e-6), [_Layer(each) for each in subjects]
    phis.layers = list(layers)

    def step() -> Updates:
        with torch.no_grad():
            layers[0].subject.b.add_(0)
        updates = [weight_update(*layer.subject[:2], phis.proxy(layer), 1.0) for layer in layers]
        return updates, [leaf for layer in layers for leaf in layer.leaves]

    return step


WAYS: dict[str, Callable[[Sequence[Case]], Way]] = {
    "naive": obvious,
    "direct": direct,
    "ours": ours,
}


def naive(run: Run, device: str, quick: bool) -> None:
    """Both passes of one update over G; a way that runs out of memory ends there."""
    side = SIDES[device]
    over = {name: Curve(name, [], []) for name in WAYS}
    alive = dict(WAYS)
    for count in (8, 50) if quick else COUNTS:
        subjects = [
            case("sinc", 0.05, (side, side), RANK, device, num_basis=count, bandwidth=1.0, seed=i)
            for i in range(LAYERS)
        ]
        for name, make in list(alive.items()):
            try:
                way = make(subjects)
                times = seconds(functools.partial(_both, way), device, 3, warmup=1)
            except torch.cuda.OutOfMemoryError:
                del alive[name]
                torch.cuda.empty_cache()
                continue
            each = sorted(times)[1] / (LAYERS if make is ours else 1)
            over[name].x.append(count)
            over[name].y.append(1e3 * each)
            if each > PATIENCE:
                del alive[name]
    run.curves += over.values()
    at = {name: dict(zip(c.x, c.y, strict=True)).get(50) for name, c in over.items()}
    for name in ("naive", "direct"):
        slow, fast = at[name], at["ours"]
        ratio = slow / fast if slow is not None and fast is not None else None
        run.add(
            Row("naive", f"times faster than {name}, G = 50, {side} x {side}, one of {LAYERS}",
                ratio,
                50.0 if (name, device) == ("naive", "cuda") else None, at_least=True,
                ours=fast, other=slow, against=name, unit="ms",
                note="does not fit" if ratio is None else "")
        )  # fmt: skip


def _both(way: Way) -> None:
    updates, leaves = way()
    torch.autograd.grad([update.sum() for update in updates], leaves, allow_unused=True)
