"""B-splines."""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from basis_zoo.basis import Array, Claim, LinearBasis, register_basis


@register_basis("bspline")
@dataclass(frozen=True)
class BSpline(LinearBasis):
    r"""B-splines of one degree on the breakpoints of the grid (Cox-de Boor recursion).

    $$B_{i,0}(x) = [t_i \le x < t_{i+1}], \qquad
    B_{i,k}(x) = \frac{x - t_i}{t_{i+k} - t_i} B_{i,k-1}(x)
               + \frac{t_{i+k+1} - x}{t_{i+k+1} - t_{i+1}} B_{i+1,k-1}(x)$$

    $G - k + 1$ grid points $g_j$ are the breakpoints. `clamped` knots repeat both ends $k$ times,
    and the polynomials of the end pieces go on outside; `extended` knots continue the first and
    last spacing outwards, and the functions fade to zero there.

    Reference: de Boor, *A Practical Guide to Splines* (2001), chapter IX, equations 4-5.
    """

    degree: int = 3
    """The degree k; the order is k + 1."""
    knots: str = "clamped"
    """`clamped` or `extended`."""

    variants: ClassVar[tuple[dict[str, Any], ...]] = (
        {},
        {"knots": "extended"},
        *({"degree": k, "knots": knots} for k in (0, 1, 2, 5) for knots in ("clamped", "extended")),
    )
    formula: ClassVar[str] = (
        r"B_{i,k} = \frac{x-t_i}{t_{i+k}-t_i} B_{i,k-1}"
        r" + \frac{t_{i+k+1}-x}{t_{i+k+1}-t_{i+1}} B_{i+1,k-1}"
    )
    reference: ClassVar[str] = "de Boor, A Practical Guide to Splines (2001), IX"

    def __post_init__(self) -> None:
        if not 0 <= self.degree <= 10:
            raise ValueError(f"`degree` must be from 0 to 10, got {self.degree}")
        if self.knots not in ("clamped", "extended"):
            raise ValueError(f"`knots` must be 'clamped' or 'extended', got {self.knots!r}")
        super().__post_init__()

    @property
    def claims(self) -> frozenset[Claim]:  # type: ignore[override]  # nobody writes the base's
        """Lines from degree 1 on; degree 0 is a staircase."""
        more = Claim.REPRODUCES_LINES if self.degree else Claim.ZERO_GRADIENT
        return frozenset({Claim.PARTITION_OF_UNITY, Claim.NON_NEGATIVE, Claim.BOUNDED, more})

    @property
    def order(self) -> float | None:
        """degree + 1."""
        return self.degree + 1

    @property
    def extrapolation(self) -> str:  # type: ignore[override]  # nor this
        """Continued as a line where the end pieces are polynomials that explode."""
        return "linear" if self.knots == "clamped" and self.degree > 1 else "exact"

    @property
    def min_basis(self) -> int:
        """One piece: degree + 1 functions."""
        return self.degree + 1

    @property
    def num_points(self) -> int:
        """The breakpoints."""
        return self.num_basis - self.degree + 1

    @property
    def smoothness(self) -> float:
        """degree - 1 continuous derivatives."""
        return self.degree - 1

    def ends(self, grid: Tensor) -> Tensor:
        """The first and last breakpoint: beyond, end pieces are only continued."""
        return torch.cat([grid[..., :1], grid[..., -1:]], dim=-1)

    def breakpoints(self, grid: Tensor, bandwidth: Tensor) -> Tensor:
        """All distinct knots at which two pieces meet."""
        return grid[..., 1:-1] if self.knots == "clamped" else self._knots(grid)

    def _knots(self, grid: Tensor) -> Tensor:
        k = self.degree
        steps = torch.arange(1, k + 1, device=grid.device, dtype=grid.dtype)
        if self.knots == "clamped":
            steps = torch.zeros_like(steps)
        first, last = grid[..., :1], grid[..., -1:]
        left = first - steps.flip(0) * (grid[..., 1:2] - first)
        right = last + steps * (last - grid[..., -2:-1])
        return torch.cat([left, grid, right], dim=-1)

    def design_matrix(self, x: Tensor, grid: Tensor, bandwidth: Tensor) -> Tensor:
        """All G functions by the recursion; 0/0 at repeated knots counts as 0."""
        k = self.degree
        t = self._knots(grid)[..., None, :]
        x = x[..., :, None]
        if self.knots == "extended" and k:  # zero beyond; powers of x would overflow there
            x = torch.clamp(x, t[..., :1], t[..., -1:])
        past = 1 + torch.sign(x - t).clamp(max=0)  # x >= t, with a derivative, which is zero
        if self.knots == "clamped" or k == 0:  # nothing follows: the end pieces go on
            ones = torch.ones_like(past[..., : k + 1])
            past = torch.cat([ones, past[..., k + 1 : -k - 1], 1 - ones], dim=-1)
        b = past[..., :-1] - past[..., 1:]
        for j in range(1, k + 1):
            width = t[..., j:] - t[..., :-j]
            scale = torch.where(width > 0, 1 / torch.where(width > 0, width, 1), 0)
            rising = (x - t[..., : -j - 1]) * scale[..., :-1]
            falling = (t[..., j + 1 :] - x) * scale[..., 1:]
            b = rising * b[..., :-1] + falling * b[..., 1:]
        return b

    def oracle(self, x: Array, grid: Array, bandwidth: Array) -> Array:
        """`scipy.interpolate.BSpline` of unit vectors."""
        import numpy as np
        from scipy import interpolate

        k, n = self.degree, self.num_basis
        if self.knots == "clamped":
            left, right = np.repeat(grid[0], k), np.repeat(grid[-1], k)
        else:
            steps = np.arange(1, k + 1)
            left = grid[0] - steps[::-1] * (grid[1] - grid[0])
            right = grid[-1] + steps * (grid[-1] - grid[-2])
        t = np.r_[left, grid, right]
        if self.knots == "clamped" or k == 0:
            design: Array = interpolate.BSpline(t, np.eye(n), k)(x)
            return design
        pieces = [interpolate.BSpline.basis_element(t[i : i + k + 2], False) for i in range(n)]
        design = np.nan_to_num(np.stack([p(x) for p in pieces], axis=-1))
        return design
