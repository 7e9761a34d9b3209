"""phi(BA) the obvious way, by direct evaluation in chunks, and through the proxy, over G."""

from collections.abc import Callable

import torch
from torch import Tensor

from adapters.bench.cases import Case, case
from adapters.bench.record import Curve, Row, Run
from adapters.bench.timing import seconds
from adapters.ops.update import weight_update
from basis_zoo.proxy import ExactProxy, Proxy, fit_proxy, range_radius

SIDES = {"cuda": 2048, "cpu": 256}
COUNTS = (4, 8, 16, 32, 50, 64, 128, 256, 512)
RANK = 16

Make = Callable[[Case], tuple[Tensor, list[Tensor]]]
"""The update, and what its gradient is taken of."""


def _leaves(made: Case) -> list[Tensor]:
    return [made.b.requires_grad_(), made.a.requires_grad_(), *made.nonlinearity.parameters()]


def obvious(made: Case) -> tuple[Tensor, list[Tensor]]:
    """All G functions of every entry at once, as a paper's formula is typed, by autograd."""
    leaves, phi = _leaves(made), made.nonlinearity
    x = made.b @ made.a
    z = phi.bandwidth * (x[..., None] - phi.grid)
    return (phi.amplitude * torch.sinc(z)).sum(-1), leaves


def _through(made: Case, proxy_of: Callable[[Case], Proxy]) -> tuple[Tensor, list[Tensor]]:
    leaves = _leaves(made)
    return weight_update(made.b, made.a, proxy_of(made), 1.0), leaves


def direct(made: Case) -> tuple[Tensor, list[Tensor]]:
    """All G functions in chunks that are computed anew in the backward pass."""
    phi = made.nonlinearity
    return _through(made, lambda _: ExactProxy.of(phi.phi, phi.parameters_in_force()))


def ours(made: Case) -> tuple[Tensor, list[Tensor]]:
    """The proxy, fitted in every step."""
    phi = made.nonlinearity

    def fitted(given: Case) -> Proxy:
        radius = range_radius(given.b, given.a)
        return fit_proxy(phi.phi, phi.parameters_in_force(), radius).proxy

    return _through(made, fitted)


WAYS: dict[str, Make] = {"naive": obvious, "direct": direct, "ours": ours}


def naive(run: Run, device: str, quick: bool) -> None:
    """Both passes of one update over G; a way that runs out of memory ends there."""
    side = SIDES[device]
    over = {name: Curve(name, [], []) for name in WAYS}
    alive = dict(WAYS)
    for count in (8, 50) if quick else COUNTS:
        for name, make in list(alive.items()):
            made = case("sinc", 0.05, (side, side), RANK, device, num_basis=count, bandwidth=1.0)
            try:
                times = seconds(lambda make=make, made=made: _both(make, made), device, 3, warmup=1)
            except torch.cuda.OutOfMemoryError:
                del alive[name]
                torch.cuda.empty_cache()
                continue
            over[name].x.append(count)
            over[name].y.append(1e3 * sorted(times)[1])
    run.curves += over.values()
    at = {name: dict(zip(c.x, c.y, strict=True)).get(50) for name, c in over.items()}
    for name in ("naive", "direct"):
        slow, fast = at[name], at["ours"]
        known = slow is not None and fast is not None
        run.add(
            Row("naive", f"times faster than {name}, G = 50, {side} x {side}, both passes",
                slow / fast if known else None,
                50.0 if (name, device) == ("naive", "cuda") else None, at_least=True,
                ours=fast, other=slow, against=name, unit="ms",
                note="" if known else "does not fit")
        )  # fmt: skip


def _both(make: Make, made: Case) -> None:
    update, leaves = make(made)
    torch.autograd.grad(update.sum(), leaves, allow_unused=True)
