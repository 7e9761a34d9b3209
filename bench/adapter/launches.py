"""Calls that the host makes in a training step: what a small model on a fast GPU waits for.

Counted on a CPU with 24 narrow layers of seven projections, whose sizes do not matter. The merge
and its gradients are replaced by what their kernels cost the host: outputs and launches.
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from adapters.ops import merge
from basis_zoo.proxy import ChebyshevProxy, Proxy
from bench.adapter.models import SHAPES, build, stepper
from bench.adapter.record import Row, Run
from bench.adapter.steps import METHODS

_NO_KERNEL = frozenset(
    {
        *("view", "_unsafe_view", "t", "transpose", "permute", "unbind", "select", "slice"),
        *("detach", "alias", "expand", "as_strided", "unsqueeze", "squeeze", "split"),
        *("split_with_sizes", "_reshape_alias", "reshape", "unflatten"),
        *("empty", "empty_like", "new_empty", "empty_strided", "_local_scalar_dense"),
    }
)
"""Operations of torch that compute nothing on the device."""


class Calls(TorchDispatchMode):
    """Counts what reaches the dispatcher below autograd, and the kernels we launch ourselves."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch's
        self.operations: Counter[str] = Counter()
        self.fused = 0

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Count and go on."""
        self.operations[func.overloadpacket.__name__] += 1
        return func(*args, **(kwargs or {}))

    @property
    def total(self) -> int:
        """Calls of any kind."""
        return sum(self.operations.values()) + self.fused

    @property
    def kernels(self) -> int:
        """Calls that start work on the device."""
        busy = (n for name, n in self.operations.items() if name not in _NO_KERNEL)
        return sum(busy) + self.fused


class _StandIn:
    """In the place of `fused`: the tensors it allocates, the kernels it launches, no result."""

    def __init__(self, calls: Calls) -> None:
        self.calls = calls

    def merged_weight(
        self, weight: Tensor | None, b: Tensor, a: Tensor, proxy: Proxy, scale: float,
        *, hadamard: bool = False, dtype: torch.dtype | None = None, seed: int | None = None,
    ) -> Tensor:  # fmt: skip
        """One kernel."""
        self.calls.fused += 1
        dtype = dtype or (torch.float32 if weight is None else weight.dtype)
        return torch.empty(len(b), a.shape[1], dtype=dtype)

    def merge_gradients(
        self, grad: Tensor, b: Tensor, a: Tensor, proxy: Proxy, scale: float,
        weight: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
        """Parts and their sums: two kernels, and one that clears the moments of a table."""
        self.calls.fused += 2 + (not isinstance(proxy, ChebyshevProxy))
        for _ in range(3):
            torch.empty(1)
        return torch.empty_like(b), torch.empty_like(a), torch.empty_like(proxy.coefficients)


@contextmanager
def standing_in(calls: Calls) -> Iterator[None]:
    """Within, merges and their gradients are counted in `calls` and not computed."""
    true = merge._implementation
    merge._implementation = lambda *_: _StandIn(calls)
    try:
        yield
    finally:
        merge._implementation = true


def count(method: dict[str, Any]) -> Calls:
    """The calls of one step after the first, forward, backward and optimizer."""
    shape = SHAPES["24 narrow layers"]
    model = build(shape, method, "cpu")
    step = stepper(model, model, shape, "cpu")
    calls = Calls()
    step()
    with standing_in(calls):
        with calls:
            step()
    return calls


def launches(run: Run, device: str, quick: bool) -> None:
    """LoRA's calls and ours."""
    del device, quick
    counts = {name: count(METHODS[name]) for name in ("LoRA", "sinc, G = 50", "hat, G = 50")}
    base = counts.pop("LoRA")
    for name, calls in counts.items():
        for what, mine, theirs in (
            ("operations", calls.total, base.total),
            ("kernels", calls.kernels, base.kernels),
        ):
            run.add(
                Row("launches", f"{what} in a step, 168 layers, {name}", mine / theirs,
                    ours=mine, other=theirs, against="LoRA")
            )  # fmt: skip
