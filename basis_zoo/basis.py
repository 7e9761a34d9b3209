r"""The contract of a basis family.

A learnable nonlinearity is one scalar function

$$\phi(x) = \alpha x + \beta + \sum_{i=1}^{G} a_i\, \psi_i(x).$$

A *family* says what the $\psi_i$ are and nothing else: no tensors, no parameters, no device, no
clamping. Its instances are values, compared and logged by their fields. Three abstract classes,
each one step more special; a family extends the most special one that fits:

- `LocationScaleBasis`: $\psi_i(x) = \psi(\omega_i (x - c_i))$. Its author writes `psi` and,
  from numpy or scipy, `psi_oracle`.
- `LinearBasis`: any $\psi_i$. Its author writes `design_matrix` and `oracle`.
- `Basis`: $\phi$ need not be linear in its amplitudes (rational functions). Its author writes
  `phi` and `phi_oracle`.
"""

import enum
import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from basis_zoo.float32 import check_interval
from basis_zoo.registry import ClassRegistry

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from basis_zoo.grids import Grid

    Array = NDArray[Any]
else:  # numpy is imported only where an oracle runs
    Array = Any

_ORACLES = frozenset({"phi_oracle", "oracle", "psi_oracle"})


class Claim(enum.Enum):
    """What a family may promise; `basis_zoo.conformance` measures every promise.

    Promises that involve a grid are made for a uniform grid with bandwidth 1 / spacing.
    """

    PARTITION_OF_UNITY = "the functions sum to one on the interval"
    ORTHOGONAL = "orthogonal under `weight` on `orthogonality_interval`"
    INTERPOLATING = "each function is one at its own grid point and zero at all others"
    REPRODUCES_LINES = "every straight line on the interval is a sum of the functions"
    ZERO_MEAN = "psi integrates to zero over the real line"
    NON_NEGATIVE = "no function is negative on the interval"
    BOUNDED = "no function exceeds one in magnitude on the interval"
    ZERO_GRADIENT = "the derivative is zero almost everywhere: A and B are not trained through it"


@dataclass(frozen=True)
class Basis(ABC):
    """A family of `num_basis` functions on an interval.

    Shapes: points `x` are `(*batch, n)`; `amplitude` is `(*batch, num_amplitudes)`, `grid` is
    `(*batch, num_points)` and `bandwidth` is `(*batch, num_bandwidths)`. All of one call share
    dtype and device; evaluation is elementwise in `x` and differentiable in everything.
    """

    num_basis: int = 50
    """G, the number of functions."""
    interval: tuple[float, float] = (-3.0, 3.0)
    """The two ends of the interval that the functions cover."""

    name: ClassVar[str] = ""
    """The registered name, set by `register_basis`."""
    claims: ClassVar[frozenset[Claim]] = frozenset()
    parity: ClassVar[str | None] = None
    """`even` or `odd` where psi is so."""
    support: ClassVar[float] = math.inf
    """psi(z) is zero where |z| exceeds this (location-scale families)."""
    extrapolation: ClassVar[str] = "exact"
    """How phi goes on outside the interval unless told otherwise (see `basis_zoo.phi`)."""
    variants: ClassVar[tuple[dict[str, Any], ...]] = ({},)
    """The options under which the family is tested and shown."""
    formula: ClassVar[str] = ""
    """The formula in TeX, for the gallery."""
    reference: ClassVar[str] = ""
    """Where the mathematics is from."""

    def __post_init__(self) -> None:
        low, high = self.interval
        if not (math.isfinite(low) and math.isfinite(high) and low < high):
            raise ValueError(
                f"`interval` must be two finite ends in increasing order, got {self.interval}"
            )
        if self.num_basis < self.min_basis:
            raise ValueError(
                f"`num_basis` must be at least {self.min_basis} for {type(self).__name__}, "
                f"got {self.num_basis}"
            )
        check_interval(self.interval, self.num_basis)

    @property
    def min_basis(self) -> int:
        """The smallest number of functions the family can have."""
        return 1

    @property
    def num_amplitudes(self) -> int:
        """Length of the amplitude vector."""
        return self.num_basis

    @property
    def num_points(self) -> int:
        """How many grid points the family reads: centers, breakpoints, or none (0)."""
        return 0

    @property
    def num_bandwidths(self) -> int:
        """How many bandwidths the family reads, or none (0)."""
        return 0

    @property
    def smoothness(self) -> float:
        """Continuous derivatives of every function: inf for smooth, 0 with kinks, -1 with jumps."""
        return math.inf

    @property
    def order(self) -> float | None:
        """Order of convergence in the grid spacing for smooth targets; inf if faster than any."""
        return None

    @property
    def orthogonality_interval(self) -> tuple[float, float]:
        """Where a family that claims `Claim.ORTHOGONAL` is orthogonal."""
        return self.interval

    def weight(self, x: Tensor) -> Tensor:
        """The weight of that orthogonality, of the shape of `x`."""
        return torch.ones_like(x)

    def unit(self, x: Tensor) -> Tensor:
        """`x` moved and scaled so that the interval becomes [-1, 1]."""
        low, high = self.interval
        return (2 * x - (low + high)) / (high - low)

    def ends(self, grid: Tensor) -> Tensor:
        """Where extrapolation begins, `(*batch, 2)`: the interval, or the grid's own ends."""
        batch = grid.shape[:-1]  # filled, not copied from the host: that would wait for the device
        return torch.stack([grid.new_full(batch, end) for end in self.interval], dim=-1)

    def breakpoints(self, grid: Tensor, bandwidth: Tensor) -> Tensor:
        """Where the functions are less than smooth, `(*batch, k)`; k is 0 for smooth families."""
        return grid[..., :0]

    def place(self, grid: "Grid", samples: Tensor | None = None) -> Tensor:
        """The points of `grid` that the family reads, `(num_points,)` float64.

        Args:
            grid: A rule, as `basis_zoo.get_grid` makes it.
            samples: Values of x, for a rule that looks at them.
        """
        return grid.place(self.num_points, self.interval, samples)

    @abstractmethod
    def phi(self, x: Tensor, amplitude: Tensor, grid: Tensor, bandwidth: Tensor) -> Tensor:
        """The sum at the points `x`, of the shape of `x`."""

    @property
    def has_oracle(self) -> bool:
        """Whether the family's author wrote `phi_oracle`, `oracle` or `psi_oracle`."""
        members = (vars(c) for c in type(self).__mro__ if c.__module__ != __name__)
        return any(not _ORACLES.isdisjoint(names) for names in members)

    def phi_oracle(self, x: Array, amplitude: Array, grid: Array, bandwidth: Array) -> Array:
        """`phi` in float64 from numpy or scipy, written without this package's code.

        Conformance compares the two where a family has one. Here `x` is `(n,)`, no batch.
        """
        raise NotImplementedError(
            f"{type(self).__name__} has no oracle: write `phi_oracle`, `oracle` or `psi_oracle` "
            "with numpy or scipy, whichever its base class offers"
        )


@dataclass(frozen=True)
class LinearBasis(Basis):
    """A family whose phi is linear in its amplitudes."""

    @abstractmethod
    def design_matrix(self, x: Tensor, grid: Tensor, bandwidth: Tensor) -> Tensor:
        """Every function at every point: `(*batch, n, num_basis)` for `x` of `(*batch, n)`."""

    def phi(self, x: Tensor, amplitude: Tensor, grid: Tensor, bandwidth: Tensor) -> Tensor:
        """The sum at the points `x`, of the shape of `x`."""
        design = self.design_matrix(x, grid, bandwidth)
        return torch.einsum("...ng,...g->...n", design, amplitude)

    def oracle(self, x: Array, grid: Array, bandwidth: Array) -> Array:
        """`design_matrix` in float64 from numpy or scipy: `(n, num_basis)` for `x` of `(n,)`."""
        raise NotImplementedError(
            f"{type(self).__name__} has no oracle: write `oracle` (or `psi_oracle`, for a "
            "location-scale family) with numpy or scipy"
        )

    def phi_oracle(self, x: Array, amplitude: Array, grid: Array, bandwidth: Array) -> Array:
        """The sum of the oracle's functions."""
        total: Array = self.oracle(x, grid, bandwidth) @ amplitude
        return total


@dataclass(frozen=True)
class LocationScaleBasis(LinearBasis):
    r"""A family made of one function, moved and stretched: $\psi(\omega_i (x - c_i))$."""

    @abstractmethod
    def psi(self, z: Tensor) -> Tensor:
        """The one function, elementwise."""

    def kinks(self) -> tuple[float, ...]:
        """Arguments z at which psi is less than smooth."""
        return ()

    @property
    def num_points(self) -> int:
        """One center for each function."""
        return self.num_basis

    @property
    def num_bandwidths(self) -> int:
        """One bandwidth for each function."""
        return self.num_basis

    def breakpoints(self, grid: Tensor, bandwidth: Tensor) -> Tensor:
        """The kinks of psi, moved and stretched: $c_i + z / omega_i$ for every kink z."""
        if not self.kinks():
            return grid[..., :0]
        return torch.cat([grid + z / bandwidth for z in self.kinks()], dim=-1)

    def design_matrix(self, x: Tensor, grid: Tensor, bandwidth: Tensor) -> Tensor:
        """psi at every scaled distance: `(*batch, n, num_basis)`."""
        distance = x[..., :, None] - grid[..., None, :]
        return self.psi(bandwidth[..., None, :] * distance)

    def psi_oracle(self, z: Array) -> Array:
        """`psi` in float64 from numpy or scipy, elementwise."""
        raise NotImplementedError(
            f"{type(self).__name__} has no oracle: write `psi_oracle` with numpy or scipy"
        )

    def oracle(self, x: Array, grid: Array, bandwidth: Array) -> Array:
        """The oracle of psi at every scaled distance."""
        return self.psi_oracle(bandwidth * (x[:, None] - grid))


_BASES: ClassRegistry[Basis] = ClassRegistry("basis family", Basis, shipped="basis_zoo.families")
register_basis = _BASES.register
"""Decorator that registers a family class under a name, as in `@register_basis("mine")`."""
list_bases = _BASES.names
"""Returns the names of all registered families, sorted."""
get_basis_class = _BASES.get_class


def get_basis(name: str, **options: Any) -> Basis:
    """The family registered under `name`, made with `options`.

    Raises:
        ValueError: Unknown name or option, or a value the family refuses; the message names the
            nearest known one.
    """
    return _BASES.get(name, **options)
