"""Grids: where the centers or breakpoints of a basis lie."""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from basis_zoo.registry import ClassRegistry


@dataclass(frozen=True)
class Grid(ABC):
    """A rule that places points on an interval."""

    name: ClassVar[str] = ""
    """The registered name, set by `register_grid`."""
    learned: ClassVar[bool] = False
    """Whether the points are trained after they are placed; their order is kept."""

    @abstractmethod
    def place(
        self, count: int, interval: tuple[float, float], samples: Tensor | None = None
    ) -> Tensor:
        """`count` points in increasing order, `(count,)` float64 on the CPU.

        `samples` are values of x that the model really meets, where any are known.
        """


_GRIDS: ClassRegistry[Grid] = ClassRegistry("grid", Grid)
register_grid = _GRIDS.register
"""Decorator that registers a grid class under a name, as in `@register_grid("mine")`."""
list_grids = _GRIDS.names
"""Returns the names of all registered grids, sorted."""


def get_grid(name: str, **options: Any) -> Grid:
    """The grid registered under `name`, made with `options`."""
    return _GRIDS.get(name, **options)


def _uniform(count: int, low: float, high: float) -> Tensor:
    if count == 1:
        return torch.tensor([(low + high) / 2], dtype=torch.float64)
    return torch.linspace(low, high, count, dtype=torch.float64)


@register_grid("uniform")
@dataclass(frozen=True)
class Uniform(Grid):
    """Equally spaced points, both ends included (LR-LoRA section 3.3)."""

    overhang: int = 0
    """Points beyond each end of the interval, out of `count`: functions that fade, such as
    Gaussians, represent the ends only with two to four of them."""
    noise: float = 0.0
    """Each point but the two ends is moved, by at most this share of the spacing (LR-LoRA, table
    21); below 0.5, so that none overtakes another."""
    seed: int = 0
    """Seed of the noise; nothing else reads or changes the generator."""

    def __post_init__(self) -> None:
        if self.overhang < 0:
            raise ValueError(f"`overhang` must be at least 0, got {self.overhang}")
        if not 0 <= self.noise < 0.5:
            raise ValueError(f"`noise` must lie in [0, 0.5), got {self.noise}")

    def place(
        self, count: int, interval: tuple[float, float], samples: Tensor | None = None
    ) -> Tensor:
        """Equally spaced points; a single one lies in the middle.

        Raises:
            ValueError: `overhang` leaves fewer than two points on the interval.
        """
        low, high = interval
        if self.overhang and count:
            pieces = count - 1 - 2 * self.overhang
            if pieces < 1:
                raise ValueError(
                    f"`overhang` {self.overhang} leaves {pieces + 1} of {count} points on the "
                    "interval; at least 2 are needed: take more functions or less overhang"
                )
            beyond = self.overhang * (high - low) / pieces
            low, high = low - beyond, high + beyond
        points = _uniform(count, low, high)
        if self.noise and count > 2:
            generator = torch.Generator().manual_seed(self.seed)
            moved = 2 * torch.rand(count - 2, dtype=torch.float64, generator=generator) - 1
            points[1:-1] += moved * self.noise * (high - low) / (count - 1)
        return points


@register_grid("chebyshev")
@dataclass(frozen=True)
class Chebyshev(Grid):
    r"""Chebyshev points, dense towards the ends.

    First kind, the roots of $T_n$: $\cos\frac{(2j+1)\pi}{2n}$, both ends excluded. Second kind,
    the extrema of $T_{n-1}$: $\cos\frac{j\pi}{n-1}$, both ends included.

    Reference: Trefethen, *Approximation Theory and Approximation Practice* (2013), chapter 2.
    """

    kind: int = 2
    """1: the roots; 2: the extrema."""

    def __post_init__(self) -> None:
        if self.kind not in (1, 2):
            raise ValueError(f"`kind` must be 1 or 2, got {self.kind}")

    def place(
        self, count: int, interval: tuple[float, float], samples: Tensor | None = None
    ) -> Tensor:
        """Chebyshev points of the kind; a single one lies in the middle."""
        low, high = interval
        if count == 1:
            return _uniform(1, low, high)
        j = torch.arange(count, dtype=torch.float64)
        angle = (j + 0.5) / count if self.kind == 1 else j / max(count - 1, 1)
        return (low + high) / 2 - (high - low) / 2 * torch.cos(math.pi * angle)


@register_grid("random")
@dataclass(frozen=True)
class Random(Grid):
    """Both ends and points drawn uniformly between them, the same for the same seed."""

    seed: int = 0
    """Seed of the draw; nothing else reads or changes the generator."""

    def place(
        self, count: int, interval: tuple[float, float], samples: Tensor | None = None
    ) -> Tensor:
        """Sorted points; a single one lies in the middle."""
        low, high = interval
        points = _uniform(min(count, 2), low, high)
        if count <= 2:
            return points
        generator = torch.Generator().manual_seed(self.seed)
        inner = torch.rand(count - 2, dtype=torch.float64, generator=generator)
        return torch.cat([points[:1], low + (high - low) * inner.sort().values, points[1:]])


@register_grid("quantile")
@dataclass(frozen=True)
class Quantile(Grid):
    """Equally many samples between neighbours; uniform while there are no samples.

    A share of the uniform grid is mixed in, so that points never coincide (as in KAN's adaptive
    grid, Liu et al. 2024, section 2.5), and the interval stays covered.
    `Nonlinearity.refit_grid` brings the samples.
    """

    mix: float = 0.02
    """Share of the uniform grid in the mixture, in (0, 1]."""

    def __post_init__(self) -> None:
        if not 0 < self.mix <= 1:
            raise ValueError(f"`mix` must lie in (0, 1], got {self.mix}")

    def place(
        self, count: int, interval: tuple[float, float], samples: Tensor | None = None
    ) -> Tensor:
        """Quantiles of the finite samples, mixed with the uniform grid."""
        uniform = _uniform(count, *interval)
        if samples is None or count < 2:
            return uniform
        values = samples.detach().flatten().to("cpu", torch.float64)
        values = values[values.isfinite()].sort().values
        if not len(values):
            raise ValueError("a quantile grid needs at least one finite sample, got none")
        # torch.quantile refuses more than 16 million values, which one weight easily has
        place = torch.linspace(0, len(values) - 1, count, dtype=torch.float64)
        below, above = place.floor().long(), place.ceil().long()
        quantiles = torch.lerp(values[below], values[above], place - below)
        points = torch.lerp(quantiles, uniform, self.mix)
        points[0], points[-1] = min(points[0], uniform[0]), max(points[-1], uniform[-1])
        return points


@register_grid("learned")
@dataclass(frozen=True)
class Learned(Grid):
    """Points that start as another grid and are trained (LR-LoRA table 14)."""

    placed: str = "uniform"
    """The registered grid the points start as, with its defaults."""

    learned: ClassVar[bool] = True

    def place(
        self, count: int, interval: tuple[float, float], samples: Tensor | None = None
    ) -> Tensor:
        """The points of the other grid."""
        return get_grid(self.placed).place(count, interval, samples)
