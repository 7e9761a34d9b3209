"""All phis of an adapter, evaluated together once a forward pass.

Each adapted layer asks for its proxy; the first to ask has those of all layers fitted, in one
batched computation for each kind of phi. A fit holds while no number behind it has changed. Where
gradients flow it holds for one forward pass only, since its graph can be walked back only once.
"""

from collections import defaultdict
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from basis_zoo import Nonlinearity, Phi, stack_parameters
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
    """A layer's proxy and what it was made from."""

    proxy: Proxy
    numbers: list[Tensor]
    versions: list[tuple[int, int]]
    mode: tuple[bool, bool]


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
        self._fits: dict[int, _Fitted] = {}
        self._fitters: dict[tuple, ProxyFitter] = {}
        self._has_graph = False
        self._bounds: list[Tensor] = []

    @property
    def bound(self) -> float:
        """Largest error in force at the last fit, as a share of max |phi|; waits for the device."""
        return max((float(bound) for bound in self._bounds), default=0.0)

    @torch.compiler.disable
    def begin_pass(self, training: bool) -> None:
        """A forward pass of the whole model begins; input scales are measured when training."""
        self._drop_graph()
        if training:
            for layer in self.layers:
                layer.observe(self.adapter)

    def __getstate__(self) -> dict[str, Any]:
        """Copies and files carry no fits: these belong to the layers of this process."""
        return {**self.__dict__, "_fits": {}, "_fitters": {}, "_has_graph": False}

    def _drop_graph(self) -> None:
        if self._has_graph:
            self._fits, self._has_graph = {}, False

    @torch.compiler.disable
    def proxy(self, layer: HasMember) -> Proxy:
        """The proxy of the phi of `layer`, differentiable where gradients are on."""
        fitted = self._fits.get(id(layer))
        if fitted is None or not _is_current(fitted, layer.numbers(self.adapter)):
            # checkpointing counts what a block saves; the fit belongs to no block
            with saved_tensors_hooks(lambda saved: saved, lambda saved: saved):
                self._fit()
            fitted = self._fits[id(layer)]
        return fitted.proxy

    def _fit(self) -> None:
        members = [layer.member(self.adapter) for layer in self.layers]
        groups: dict[tuple, list[int]] = defaultdict(list)
        for i, member in enumerate(members):
            groups[(member.nonlinearity.phi, member.b.device)].append(i)
        self._fits, self._has_graph = {}, torch.is_grad_enabled()
        mode = _mode()
        bounds, sizes = [], []
        for key, indices in groups.items():
            group = [members[i] for i in indices]
            fit = self._fit_group(key, group)
            if fit.proxy.coefficients.requires_grad:
                # runs when every layer's backward has passed its gradient here
                fit.proxy.coefficients.register_hook(lambda _: self._drop_graph())
            bounds.append(fit.bound.max())
            sizes.append(proxy_size(fit.proxy))
            for row, i in enumerate(indices):
                held = self.layers[i].numbers(self.adapter)
                proxy = _row(fit, row)
                self._fits[id(self.layers[i])] = _Fitted(proxy, held, _versions(held), mode)
        self._bounds, self.degree = bounds, max(sizes)

    def _fit_group(self, key: tuple[Phi, torch.device], group: list[Member]) -> Fit:
        """Without gradients, and on a CPU, the fit depends on nothing but the numbers.

        So the same weights give the same bits, merged, reloaded or not. Steps of training on a
        GPU choose their proxies by what was measured steps ago, and never wait, unless torch is to
        be deterministic: when a measurement arrives is chance.
        """
        phi, device = key
        numbers = stack_parameters([m.nonlinearity.parameters_in_force() for m in group])
        radii = _radii(group)
        waits = not torch.is_grad_enabled() or torch.are_deterministic_algorithms_enabled()
        if waits or device.type != "cuda":
            return fit_proxy(phi, numbers, radii, self.tolerance)
        fitter = self._fitters.setdefault(key, ProxyFitter(self.tolerance))
        return fitter.fit(phi, numbers, radii)


def _mode() -> tuple[bool, bool]:
    return torch.is_grad_enabled(), torch.is_inference_mode_enabled()


def _is_current(fitted: _Fitted, numbers: list[Tensor]) -> bool:
    if fitted.mode != _mode() or len(numbers) != len(fitted.numbers):
        return False
    same = all(now is then for now, then in zip(numbers, fitted.numbers, strict=True))
    return same and _versions(numbers) == fitted.versions


def _versions(numbers: list[Tensor]) -> list[tuple[int, int]]:
    """In-place changes move the first, an assignment to `.data` the second."""
    return [(n._version, n.data_ptr()) for n in numbers]


def _row(fit: Fit, row: int) -> Proxy:
    return fit.proxy.rebuilt(tuple(tensor[row] for tensor in fit.proxy.tensors))


def _radii(members: list[Member]) -> Tensor:
    """The range of every member's B A, (members,): one norm for each shape of factors."""
    shapes: dict[tuple, list[int]] = defaultdict(list)
    for i, m in enumerate(members):
        shapes[(m.b.shape, m.a.shape)].append(i)
    radii: dict[int, Tensor] = {}
    for indices in shapes.values():
        b = torch.stack([members[i].b.detach().float() for i in indices])
        a = torch.stack([members[i].a.detach().float() for i in indices])
        radii |= dict(zip(indices, range_radius(b, a).unbind(), strict=True))
    return torch.stack([radii[i] for i in range(len(members))])
