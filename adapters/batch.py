"""All phis of an adapter, evaluated together once an optimizer step.

Each adapted layer asks for its proxy; the first to ask has those of all layers fitted, in one
batched computation for each kind of phi. A fit holds until a number behind it changes: over the
micro-batches of a step, over the recomputation of gradient checkpointing, and over evaluation.
"""

from collections import defaultdict
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from adapters.changes import Mark, mark, optimizer_steps, same_numbers
from adapters.fitted import differentiable, stacked
from basis_zoo import Nonlinearity, Phi
from basis_zoo.proxy import Fit, Proxy, ProxyFitter, fit_proxy, proxy_size, range_radius


class Member(NamedTuple):
    """What a layer contributes: its factors and its phi."""

    b: Tensor
    """(out, r), the input scale included"""
    a: Tensor
    """(r, in)"""
    nonlinearity: Nonlinearity


class HasMember(Protocol):
    """A layer that takes part."""

    def member(self, adapter: str) -> Member:
        """What this layer contributes for `adapter`."""

    def numbers(self, adapter: str) -> list[Tensor]:
        """Every tensor that the fit for `adapter` depends on."""

    def observe(self, adapter: str) -> None:
        """Measure what the input scale needs, once a training step."""


class _Fitted(NamedTuple):
    """A layer's proxy, what it was made from, and what was made from it."""

    proxy: Proxy
    numbers: list[Tensor]
    marks: list[Mark]
    values: list[Tensor]
    """Copies of the numbers, where no graph is kept."""
    weights: dict[Any, Tensor]
    """W' by what it depends on beside the proxy."""


class PhiBatch:
    """The phis of one adapter over all layers that carry it.

    Args:
        adapter: Its name.
        tolerance: Largest error of a proxy as a share of max |phi|.
    """

    def __init__(self, adapter: str, tolerance: float) -> None:
        self.adapter = adapter
        self.tolerance = tolerance
        self.layers: list[HasMember] = []
        self.degree = 0
        """Degree of the Chebyshev proxies in force, or pieces of the tables."""
        self.lagging = ("cuda",)
        """Devices whose fits, where gradients are on, choose the proxy by an earlier fit's error:
        waiting for that of their own would hold up the device."""
        self.fits = 0
        """How often the phis were fitted."""
        self._fits: dict[int, _Fitted] = {}
        self._mode: tuple[bool, ...] | None = None
        self._steps = 0
        self._seed: int | None = None
        self._in_pass = self._training = self._checked = False
        self._fitters: dict[tuple, ProxyFitter] = {}
        self._bounds: list[Tensor] = []

    @property
    def bound(self) -> float:
        """Largest error in force at the last fit, as a share of max |phi|; waits for the device."""
        return max((float(bound) for bound in self._bounds), default=0.0)

    @torch.compiler.disable
    def begin_pass(self, training: bool) -> None:
        """A forward pass of the whole model begins; input scales are measured when training."""
        self._in_pass, self._training, self._checked = True, training, False
        if _is_captured():  # a replay must make its own fit, of the numbers it finds
            self._fits = {}
        if training:
            for layer in self.layers:
                layer.observe(self.adapter)

    @torch.compiler.disable
    def end_pass(self) -> None:
        """The forward pass is over: numbers may change again."""
        self._in_pass = self._training = self._checked = False

    def __getstate__(self) -> dict[str, Any]:
        """Copies and files carry no fits: these belong to the layers of this process."""
        return {**self.__dict__, "_fits": {}, "_mode": None, "_fitters": {}}

    @torch.compiler.disable
    def proxy(self, layer: HasMember) -> Proxy:
        """The proxy of the phi of `layer`, differentiable where gradients are on."""
        return self._current(layer).proxy

    @torch.compiler.disable
    def weight(self, layer: HasMember, key: Any, make: Callable[[], Tensor]) -> Tensor:
        """The result of `make` for the fit in force, kept as long as that.

        Args:
            layer: Whose weight it is.
            key: What the result depends on beside the fit; a new key drops the old result.
            make: Called where no result for `key` is held.
        """
        held = self._current(layer).weights
        if key not in held:
            held.clear()
            held[key] = make()
        return held[key]

    @torch.compiler.disable
    def seed(self, layer: HasMember) -> int:
        """A seed for the rounding of the weight of `layer`, drawn anew for every fit.

        It comes from torch's generator on the CPU, so it follows `torch.manual_seed`.
        """
        self._current(layer)
        if self._seed is None:
            self._seed = int(torch.randint(2**30, ()))
        return self._seed + self.layers.index(layer)

    def _current(self, layer: HasMember) -> _Fitted:
        # within a pass numbers do not change: all are compared once, not at every layer
        mode = self._needed_mode()
        if not (self._checked and self._mode == mode and id(layer) in self._fits):
            asked = self.layers if self._in_pass else [layer]
            if self._mode != mode or not self._hold(asked):
                # checkpointing counts what a block saves; the fit belongs to no block
                unhooked = saved_tensors_hooks(lambda saved: saved, lambda saved: saved)
                with unhooked, torch.set_grad_enabled(mode[0]):
                    self._fit(mode)
            self._checked = self._in_pass
        fitted = self._fits.get(id(layer))
        if fitted is None:
            raise RuntimeError(
                f"this layer is a shallow copy of one that adapter {self.adapter!r} is on, as "
                "nn.DataParallel makes them: start one process for each GPU (torchrun, accelerate "
                "launch), let the process see one GPU, or copy the model by copy.deepcopy"
            )
        return fitted

    def _needed_mode(self) -> tuple[bool, ...]:
        """Whether the fit needs a graph, is made of inference tensors, belongs to a CUDA graph.

        Checkpointing runs training's forward pass without gradients and comes back for them.
        """
        inference = torch.is_inference_mode_enabled()
        graph = torch.is_grad_enabled() or (self._training and not inference)
        return graph, inference, _is_captured()

    def _hold(self, layers: list[HasMember]) -> bool:
        """Whether the fits of `layers` do; only without gradients may this wait for the device."""
        graph, _, captured = self._mode or (True, False, False)
        if not all(map(self._is_current, layers)) or (graph and self._steps != optimizer_steps()):
            return False
        if graph or captured:
            return True
        now = [n for layer in layers for n in layer.numbers(self.adapter)]
        return same_numbers(now, [v for layer in layers for v in self._fits[id(layer)].values])

    def _is_current(self, layer: HasMember) -> bool:
        fitted = self._fits.get(id(layer))
        if fitted is None:
            return False
        numbers = layer.numbers(self.adapter)
        if len(numbers) != len(fitted.numbers):
            return False
        same = all(now is then for now, then in zip(numbers, fitted.numbers, strict=True))
        return same and list(map(mark, numbers)) == fitted.marks

    def _fit(self, mode: tuple[bool, ...]) -> None:
        self._fits, self._mode, self._seed, self._steps = {}, mode, None, optimizer_steps()
        self.fits += 1
        with torch.no_grad():
            members = [layer.member(self.adapter) for layer in self.layers]
        groups: dict[tuple, list[int]] = defaultdict(list)
        for i, member in enumerate(members):
            phi = member.nonlinearity
            groups[(phi.phi, phi.grid_is_learned, member.b.device)].append(i)
        bounds, sizes = [], []
        for key, indices in groups.items():
            fit, proxies = self._fit_group(key, [members[i] for i in indices])
            bounds.append(fit.bound.max())
            sizes.append(proxy_size(fit.proxy))
            for i, proxy in zip(indices, proxies, strict=True):
                held = self.layers[i].numbers(self.adapter)
                values = [] if mode[0] else [n.detach().clone() for n in held]
                fitted = _Fitted(proxy, held, list(map(mark, held)), values, {})
                self._fits[id(self.layers[i])] = fitted
        self._bounds, self.degree = bounds, max(sizes)

    def _fit_group(
        self, key: tuple[Phi, bool, torch.device], group: list[Member]
    ) -> tuple[Fit, list[Proxy]]:
        """Without gradients, and on a CPU, the fit depends on nothing but the numbers.

        So the same weights give the same bits, merged, reloaded or not. Steps of training on a
        GPU choose their proxies by what was measured steps ago, and never wait, unless torch is to
        be deterministic: when a measurement arrives is chance.
        """
        phi, _, device = key
        radii = _radii(group)
        first = group[0].nonlinearity
        held = [m.nonlinearity.numbers for m in group]
        numbers = [stacked(parts) for parts in zip(*held, strict=True)]
        in_force = first.parameters_in_force([n.stack for n in numbers])
        waits = not torch.is_grad_enabled() or torch.are_deterministic_algorithms_enabled()
        if not waits and device.type in self.lagging:
            fitter = self._fitters.setdefault(key, ProxyFitter(self.tolerance, waits=False))
            fit = fitter.fit(phi, in_force, radii)
        else:
            fit = fit_proxy(phi, in_force, radii, self.tolerance)
        rows = differentiable(fit.proxy.coefficients, numbers).unbind()
        others = (tensor.detach().unbind() for tensor in fit.proxy.tensors[1:])
        return fit, [fit.proxy.rebuilt(row) for row in zip(rows, *others, strict=True)]


def _is_captured() -> bool:
    return torch.cuda.is_initialized() and torch.cuda.is_current_stream_capturing()


@torch.no_grad()
def _radii(members: list[Member]) -> Tensor:
    """The range of every member's B A, (members,): one norm for each shape of factors."""
    shapes: dict[tuple, list[int]] = defaultdict(list)
    for i, m in enumerate(members):
        shapes[(m.b.shape, m.a.shape)].append(i)
    radii: dict[int, Tensor] = {}
    for indices in shapes.values():
        b = torch.stack([members[i].b for i in indices]).float()
        a = torch.stack([members[i].a for i in indices]).float()
        radii |= dict(zip(indices, range_radius(b, a).unbind(), strict=True))
    return torch.stack([radii[i] for i in range(len(members))])
