"""All phis of an adapter, fitted together once per optimizer step.

Each adapted layer asks for its proxy; the first request fits those of all layers, in one batched
computation for each kind of phi. A fit holds until a number behind it changes: over the
micro-batches of a step, over the recomputation of gradient checkpointing, and over evaluation.

A compiled model does not ask: its proxies are fitted before the pass, and its graph finds them as
tensors on the layers. Only compiled code reads these, since it cannot tell whether they still hold.

Where numbers come and go (FSDP, ZeRO-3), layers whose numbers come together are fitted together,
and a fit holds for one forward pass and its backward pass.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from adapters.basis.fitting.differentiable_fit import differentiable, stacked, unstacked
from adapters.basis.fitting.members import HasMember, Member, radii_of
from adapters.basis.fitting.sharding_and_offloading import (
    ABSENT,
    SHALLOW_COPY,
    announce_to_zero_3,
    are_here,
    bring_home,
    fsdp2_is_used,
    held_by_zero_3,
    require_gathered_with,
    units,
)
from adapters.basis.fitting.static_memory import StaticMemory, moved, places
from adapters.basis.fitting.tensor_versions import Mark, mark, optimizer_steps, same_numbers
from adapters.torch_types import never_compiled
from basis_zoo import Phi
from basis_zoo.cuda_graphs import is_captured
from basis_zoo.proxy import Fit, Proxy, ProxyFitter, fit_proxy, proxy_size


@dataclass(eq=False)
class _Fit:
    """What layers that were fitted together have in common."""

    layers: list[HasMember]
    mode: tuple[bool, ...]
    steps: int
    """How many steps the optimizers had made before it."""
    measured: bool
    """Whether it was made in a training pass, which measures the input scales."""
    measures: bool
    """Whether there are input scales that every training pass measures."""
    compared: int
    """The pass in which its numbers were last compared with those of the layers."""
    seed: int | None = None
    bounds: list[Tensor] = field(default_factory=list)
    size: int = 0


class _Fitted(NamedTuple):
    """A layer's proxy, what it was made from, and what was made from it."""

    proxy: Proxy
    numbers: list[Tensor]
    marks: list[Mark]
    values: list[Tensor]
    """Copies of the numbers, where no graph is kept."""
    weights: dict[Any, Tensor]
    """W', by what it depends on besides the proxy."""
    fit: _Fit


class PhiBatch:
    """The phis of one adapter over all layers that carry it.

    `tolerance` is the largest error of a proxy as a share of max |phi|.
    """

    def __init__(self, adapter: str, tolerance: float) -> None:
        self.adapter = adapter
        self.tolerance = tolerance
        self.layers: list[HasMember] = []
        self.lagging = ("cuda",)
        """Devices where a fit with gradients relies on an earlier error, so that nothing waits."""
        self.fits = 0
        """How often phis were fitted."""
        self.numbers_stay = False  # whether passes may reuse the fit unchecked, even captured
        self._fits: dict[int, _Fitted] = {}
        self._fitters: dict[tuple[Phi, bool, torch.device, int], ProxyFitter] = {}
        self._passes = self._pass = 0  # so far, and the number of the one under way, else 0
        self._training = False
        self._model: nn.Module | None = None
        self._units: dict[int, object] | None = None
        self._with_graph = False  # whether the proxies on the layers have one
        self._memory: StaticMemory = {}  # of the proxies of compiled passes
        self._compiled = False  # whether the pass under way is compiled
        self._number_cache: dict[int, list[Tensor]] = {}  # numbers of layers, while a fit is made
        self._scattered = False  # whether numbers come and go; it stays so

    def __getstate__(self) -> dict[str, Any]:
        """Copies and files carry no fits: these belong to the layers of this process."""
        fresh: dict[str, Any] = {"_fits": {}, "_fitters": {}, "_model": None, "_units": None}
        fresh |= {"_scattered": False, "_number_cache": {}, "_pass": 0, "_training": False}
        return {**self.__dict__, **fresh, "_memory": {}, "_compiled": False}

    @property
    def bound(self) -> float:
        """Largest error of the fits in force, as a share of max |phi|; waits for the device."""
        return max((float(bound) for fit in self._in_force() for bound in fit.bounds), default=0.0)

    @property
    def degree(self) -> int:
        """Degree of the Chebyshev proxies in force, or pieces of the tables."""
        return max((fit.size for fit in self._in_force()), default=0)

    def _in_force(self) -> set[_Fit]:
        return {fitted.fit for fitted in self._fits.values()}

    @never_compiled
    def begin_pass(
        self, training: bool, model: nn.Module | None = None, *, compiled: bool = False
    ) -> None:
        """A forward pass of the whole model begins; input scales are measured when training.

        FSDP's units are looked for in `model`; proxies must be there before `compiled` code runs.
        """
        self._passes += 1
        self._pass, self._training, self._model = self._passes, training, model
        self._units, self._compiled = None, compiled
        # a replay must make its own fit, of the numbers it finds; numbers that were away may have
        # changed unseen, and FSDP2 reduces gradients of what this pass has made, nothing older
        if self._scattered or (is_captured() and not self.numbers_stay):
            self._fits = {}
        self._forget_ahead()
        for layer in self.layers:
            numbers = layer.numbers(self.adapter)
            if not held_by_zero_3(numbers):
                break
            announce_to_zero_3(layer, numbers)
        if compiled:
            self._fit_ahead()

    def _fit_ahead(self) -> None:
        """Hand every layer its proxy, where all numbers are here; else layers ask one by one."""
        first = next((layer for layer in self.layers if layer.uses(self.adapter)), None)
        if first is None or self._scattered:
            return
        numbers = first.numbers(self.adapter)
        here = are_here(numbers, first.has_factors(self.adapter))
        if not here or held_by_zero_3(numbers):
            return
        fit = self._current(first).fit
        self._with_graph = fit.mode[0]
        if not self._scattered:
            for layer in self.layers:
                layer.proxies[self.adapter] = self._fits[id(layer)].proxy
        fit.compared = 0  # so that a layer that asks within the pass checks for itself

    def _forget_ahead(self) -> None:
        for layer in self.layers:
            layer.proxies.pop(self.adapter, None)

    @never_compiled
    def end_pass(self) -> None:
        """The forward pass is over: numbers may change again."""
        if not self._pass:
            return
        self._pass, self._training, self._model, self._compiled = 0, False, None, False
        self._forget_ahead()

    def proxy(self, layer: HasMember) -> Proxy:
        """The proxy of the phi of `layer`, differentiable where gradients are on."""
        if torch.compiler.is_compiling():
            ready = layer.proxies.get(self.adapter)
            if ready is not None and (self._with_graph or not torch.is_grad_enabled()):
                return ready
        return self._proxy(layer)

    @never_compiled
    def _proxy(self, layer: HasMember) -> Proxy:
        return self._current(layer).proxy

    @never_compiled
    def weight(self, layer: HasMember, key: Any, make: Callable[[], Tensor]) -> Tensor:
        """The result of `make` for the current fit, kept as long as the fit.

        Args:
            layer: Whose weight it is.
            key: What the result depends on besides the fit; a new key drops the old result.
            make: Called where no result for `key` is kept.
        """
        weights = self._current(layer).weights
        if key not in weights:
            weights.clear()
            weights[key] = make()
        return weights[key]

    @never_compiled
    def seed(self, layer: HasMember) -> int:
        """A seed for the rounding of the weight of `layer`, drawn anew for every fit.

        It comes from torch's generator on the CPU, so it follows `torch.manual_seed`.
        """
        fit = self._current(layer).fit
        if fit.seed is None:
            fit.seed = int(torch.randint(2**30, ()))
        return fit.seed + self.layers.index(layer)

    def _current(self, layer: HasMember) -> _Fitted:
        # within a pass numbers do not change: all are compared once, not at every layer
        mode, fitted = self._needed_mode(), self._fits.get(id(layer))
        if fitted is not None and fitted.fit.mode == mode:
            fit = fitted.fit
            if self._pass and fit.compared == self._pass:
                return fitted
            layers = fit.layers if self._scattered else self.layers
            if self._serves(fit, layers if self._pass else [layer]):
                fit.compared = self._pass
                return fitted
        self._number_cache = {}
        layers = self._together(layer)
        # checkpointing counts what a block saves; the fit belongs to no block
        unhooked = saved_tensors_hooks(lambda saved: saved, lambda saved: saved)
        with unhooked, torch.set_grad_enabled(mode[0]):
            self._fit(layers, mode)
        self._number_cache = {}
        return self._fits[id(layer)]

    def _needed_mode(self) -> tuple[bool, ...]:
        """Whether the fit needs a graph, has inference tensors, and belongs to a CUDA graph.

        Gradient checkpointing first runs without gradients: a fit in training has a graph anyway.
        """
        inference = torch.is_inference_mode_enabled()
        graph = torch.is_grad_enabled() or (self._training and not inference)
        return graph, inference, is_captured() and not self.numbers_stay

    def _serves(self, fit: _Fit, layers: list[HasMember]) -> bool:
        """Whether `fit` still holds for `layers`; waits for the device only without gradients."""
        graph, _, captured = fit.mode
        if self._training and (fit.measures or not fit.measured):
            return False
        if graph and fit.steps != optimizer_steps():
            return False
        if not all(self._is_current(layer, fit) for layer in layers):
            return False
        if graph or captured or self.numbers_stay:
            return True
        now = [n for layer in layers for n in layer.numbers(self.adapter)]
        return same_numbers(now, [v for layer in layers for v in self._fits[id(layer)].values])

    def _is_current(self, layer: HasMember, fit: _Fit) -> bool:
        fitted = self._fits.get(id(layer))
        if fitted is None or fitted.fit is not fit:
            return False
        numbers = layer.numbers(self.adapter)
        if len(numbers) != len(fitted.numbers):
            return False
        same = all(now is then for now, then in zip(numbers, fitted.numbers, strict=True))
        if self._scattered and not are_here(numbers, layer.has_factors(self.adapter)):
            return False
        # what was gathered again for the backward pass may lie elsewhere
        return same and (self._scattered or list(map(mark, numbers)) == fitted.marks)

    def _together(self, layer: HasMember) -> list[HasMember]:
        """The layers to be fitted with `layer`: all, or those whose numbers come with its own."""
        if not any(other is layer for other in self.layers):
            raise RuntimeError(SHALLOW_COPY.format("this layer"))
        if self._model is not None and self._units is None:
            self._units = units(self._model)
        unit_of = self._units or {}
        if unit_of:
            require_gathered_with(layer, unit_of)
        numbers = self._numbers(layer)
        if not self._is_here(layer):
            raise RuntimeError(ABSENT.format(self.adapter))
        if held_by_zero_3(numbers):  # those of others may be on their way, which nothing says
            self._scattered = True
            return [layer]
        unit = unit_of.get(id(layer))
        unit_mates = [other for other in self.layers if unit_of.get(id(other)) is unit]
        mates_here = [o for o in unit_mates if o is layer or self._is_here(o)]
        has_own_fit = len(mates_here) < len(self.layers) or bool(unit_of) or fsdp2_is_used()
        self._scattered = self._scattered or has_own_fit
        return [o for o in mates_here if o is layer or not self._is_settled(o)]

    def _is_here(self, layer: HasMember) -> bool:
        return are_here(self._numbers(layer), layer.has_factors(self.adapter))

    def _is_settled(self, layer: HasMember) -> bool:
        """Whether `layer` has a fit of this pass that another one must not replace."""
        entry = self._fits.get(id(layer)) if self._scattered and self._pass else None
        return entry is not None and entry.fit.compared == self._pass

    def _numbers(self, layer: HasMember) -> list[Tensor]:
        numbers = self._number_cache.get(id(layer))
        if numbers is None:
            numbers = layer.numbers(self.adapter)
            if any(n.is_meta for n in numbers):
                bring_home(layer)
                numbers = layer.numbers(self.adapter)
            self._number_cache[id(layer)] = numbers
        return numbers

    def _fit(self, layers: list[HasMember], mode: tuple[bool, ...]) -> None:
        training, steps = self._training, optimizer_steps()
        measures = training and any([layer.observe(self.adapter) for layer in layers])
        fit = _Fit(layers, mode, steps, training, measures, self._pass)
        self.fits += 1
        with torch.no_grad():
            members = [layer.member(self.adapter) for layer in layers]
            reaches = [layer.reach(self.adapter) for layer in layers]
        groups: dict[tuple[Phi, bool, torch.device], list[int]] = defaultdict(list)
        for i, member in enumerate(members):
            phi = member.nonlinearity
            groups[(phi.phi, phi.grid_is_learned, member.b.device)].append(i)
        fits = dict(self._fits) if self._scattered else {}
        for key, indices in groups.items():
            group, radii = [members[i] for i in indices], [reaches[i] for i in indices]
            result, proxies = self._fit_group(key, mode, layers[0], group, radii_of(group, radii))
            fit.bounds.append(result.bound.max())
            fit.size = max(fit.size, proxy_size(result.proxy))
            for i, proxy in zip(indices, proxies, strict=True):
                numbers = self._numbers(layers[i])
                values = [] if mode[0] else [n.detach().clone() for n in numbers]
                marks = list(map(mark, numbers))
                fits[id(layers[i])] = _Fitted(proxy, numbers, marks, values, {}, fit)
        self._fits = fits

    def _fit_group(
        self,
        key: tuple[Phi, bool, torch.device],
        mode: tuple[bool, ...],
        first_layer: HasMember,
        group: list[Member],
        radii: Tensor,
    ) -> tuple[Fit, list[Proxy]]:
        """Without gradients, and on a CPU, the fit depends on the numbers alone.

        So the same weights give the same bits, whether merged, reloaded or neither. Training steps
        on a GPU choose their proxies by what was measured some steps ago and never wait, unless
        torch is set to be deterministic, since when a measurement arrives is a matter of chance.
        """
        phi, _, device = key
        copies = [m.nonlinearity.copies for m in group]
        first = group[0].nonlinearity
        numbers_of = [m.nonlinearity.numbers for m in group]
        numbers = [stacked(parts, copies) for parts in zip(*numbers_of, strict=True)]
        in_force = first.parameters_in_force([n.stack for n in numbers])
        waits = not torch.is_grad_enabled() or torch.are_deterministic_algorithms_enabled()
        if not waits and device.type in self.lagging:
            whose = (*key, id(first_layer) if self._scattered else 0)
            fitter = self._fitters.setdefault(whose, ProxyFitter(self.tolerance, waits=False))
            fit = fitter.fit(phi, in_force, radii)
        else:
            fit = fit_proxy(phi, in_force, radii, self.tolerance)
        coefficients, *others = fit.proxy.tensors
        lie: Sequence[Tensor | None] = [None] * len(fit.proxy.tensors)
        if self._compiled and not self._scattered and not is_captured():
            lie = places(self._memory, (*key, mode), fit.proxy.tensors)
        rows = [unstacked(differentiable(coefficients, numbers, lie[0]), copies)]
        for tensor, place in zip(others, lie[1:], strict=True):
            rows.append(unstacked(moved(tensor.detach(), place), copies))
        return fit, [fit.proxy.rebuilt(row) for row in zip(*rows, strict=True)]
