"""The module that owns the numbers of one phi, or of several copies that learn apart."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from basis_zoo.basis import Basis
from basis_zoo.fit import fit_amplitudes
from basis_zoo.float32 import check_bandwidth, to_float32
from basis_zoo.grids import Grid
from basis_zoo.phi import Phi, PhiParameters
from basis_zoo.starts import Start
from basis_zoo.sums import SumBasis

NUMBERS = ("amplitude", "raw_bandwidth", "raw_grid", "line")
"""Every number of a phi that may be trained, in the order of `Nonlinearity.numbers`."""
_POINTS = 33
"""Points of the interval at which a new phi must be able to learn."""
_LEARNING: set[tuple[Phi, Grid, Start, tuple[str, ...]]] = set()
"""Kinds of phi that are known to learn, so that one is checked and not every layer's."""


def inverse_softplus(y: Tensor) -> Tensor:
    """The x with softplus(x) = y, for y > 0; exact for large y too."""
    return y + torch.log(-torch.expm1(-y))


def spacing_bandwidth(basis: Basis, points: Tensor) -> Tensor:
    """One over the local spacing of `points`, `(num_bandwidths,)` float64.

    Families whose bandwidths do not belong to points get one over the mean spacing of G points
    on the interval. A spacing counts as at least a quarter of the mean one: two points that
    nearly coincide do not make a spike.
    """
    if isinstance(basis, SumBasis):
        parts = basis.split(points, points.new_empty(basis.num_bandwidths))
        return torch.cat([spacing_bandwidth(part, own) for part, own, _ in parts])
    low, high = basis.interval
    mean = (high - low) / max(basis.num_basis - 1, 1)
    if len(points) != basis.num_bandwidths or len(points) < 2:
        return torch.full((basis.num_bandwidths,), 1 / mean, dtype=torch.float64)
    gaps = points.double().diff()
    local = (torch.cat([gaps[:1], gaps]) + torch.cat([gaps, gaps[-1:]])) / 2
    return 1 / local.clamp(min=gaps.mean().item() / 4)


class Nonlinearity(nn.Module):
    r"""One learnable $\phi$; what is not trained is a buffer.

    Bandwidths are $\omega = \mathrm{softplus}(\text{raw})$ (LR-LoRA section 3.3); a learned grid
    is its first point and softplus gaps, so that its order is kept. All numbers are float32.

    Args:
        basis: The family.
        grid: Where its centers or breakpoints lie.
        start: The values before training.
        bandwidth: omega before training, in 1/x, one for all functions; or `spacing` for one
            over the distance to the neighbours.
        linear: Whether phi carries the trained line alpha x + beta.
        train_amplitude: Whether amplitudes are trained.
        train_bandwidth: Whether bandwidths are trained.
        extrapolation: How phi goes on outside the interval; None for the family's own rule.

    Attributes:
        start_residual: Largest distance on the interval between phi at the start and what the
            start asked for.
        copies: How many phis this is: `repeat` makes more than one.
    """

    amplitude: Tensor
    raw_bandwidth: Tensor
    raw_grid: Tensor
    line: Tensor

    def __init__(
        self,
        basis: Basis,
        grid: Grid,
        start: Start,
        *,
        bandwidth: float | str = 1.0,
        linear: bool = False,
        train_amplitude: bool = True,
        train_bandwidth: bool = True,
        extrapolation: str | None = None,
    ) -> None:
        super().__init__()
        self.copies = 1
        extrapolation = basis.extrapolation if extrapolation is None else extrapolation
        self.phi = Phi(basis, anchored=start.anchored, extrapolation=extrapolation)
        self.grid_rule = grid
        points = basis.place(grid)
        omega = _bandwidth(bandwidth, basis, points)
        raw_grid = to_float32("grid", self._raw_grid(points))
        raw_bandwidth = to_float32("bandwidth", inverse_softplus(omega))
        # a start fits the numbers that are stored, not those that were asked for
        stored = F.softplus(raw_bandwidth)
        values = start.values(basis, self._grid(raw_grid).double(), stored.double(), linear)
        self.start_residual = values.residual
        line = torch.tensor([values.slope, values.offset], dtype=torch.float64)
        self._own("amplitude", to_float32("amplitude", values.amplitude), train_amplitude)
        self._own("raw_bandwidth", raw_bandwidth, train_bandwidth)
        self._own("raw_grid", raw_grid, self.grid_is_learned)
        self._own("line", to_float32("line", line), linear)
        self._require_learning(start)

    def _require_learning(self, start: Start) -> None:
        basis = self.phi.basis
        kind = (self.phi, self.grid_rule, start, tuple(n for n, _ in self.named_parameters()))
        if kind in _LEARNING:
            return
        if not self.learns_at(torch.linspace(*basis.interval, _POINTS, dtype=torch.float64)):
            raise ValueError(
                f"phi of {basis.num_basis} function(s) of family {basis.name!r} is zero and can "
                f"never change: with start {start.name!r} no trained number moves it. Take more "
                "functions, the linear term, trained amplitudes, or a start that is not anchored"
            )
        _LEARNING.add(kind)

    def _own(self, name: str, value: Tensor, trained: bool) -> None:
        if trained and value.numel():
            self.register_parameter(name, nn.Parameter(value))
        else:
            self.register_buffer(name, value)

    def repeat(self, names: Sequence[str], copies: int) -> None:
        """Become `copies` phis, each with own numbers `names`, (copies, *shape); the rest is one.

        Numbers that are not trained stay as they are: all copies read the same ones.
        """
        trained = dict(self.named_parameters())
        own = [name for name in names if name in trained]
        if copies == 1 or not own:
            return
        for name in own:
            number = trained[name].detach()
            stack = number.expand(copies, *number.shape).clone()
            self.register_parameter(name, nn.Parameter(stack))
        self.copies = copies

    def single(self, index: int) -> "Nonlinearity":
        """The copy `index` by itself, with numbers of its own: to be looked at, not trained."""
        phi = Nonlinearity.__new__(Nonlinearity)
        nn.Module.__init__(phi)
        phi.phi, phi.grid_rule, phi.copies = self.phi, self.grid_rule, 1
        phi.start_residual = self.start_residual
        for name in NUMBERS:
            number = getattr(self, name)
            own = number.detach()[index] if number.ndim > 1 else number.detach()
            phi._own(name, own.clone(), number.requires_grad)
        return phi

    def learns_at(self, x: Tensor) -> bool:
        """Whether a loss of phi at the points `x`, (n,), has a gradient: to a trained number or x.

        True where the numbers are on the meta device and cannot be asked.
        """
        trained = [n.requires_grad for n in self.numbers]
        if any(n.is_meta for n in self.numbers):
            return True
        with torch.inference_mode(False), torch.enable_grad():
            numbers = [n.detach().clone().double() for n in self.numbers]
            leaves = [n.requires_grad_() for n, its in zip(numbers, trained, strict=True) if its]
            x = x.detach().to(self.amplitude.device, torch.float64, copy=True).requires_grad_()
            y = self.phi(x, self.parameters_in_force(numbers))
            weights = torch.linspace(1, 2, len(x), dtype=y.dtype, device=y.device).expand_as(y)
            gradients = torch.autograd.grad(y, [x, *leaves], weights, materialize_grads=True)
        return any(bool(gradient.any()) for gradient in gradients)

    @property
    def grid_is_learned(self) -> bool:
        """Whether the grid points are trained."""
        return self.grid_rule.learned and self.phi.basis.num_points > 0

    @property
    def numbers(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """What is stored, trained or not: amplitude, raw bandwidth, raw grid, line."""
        return self.amplitude, self.raw_bandwidth, self.raw_grid, self.line

    def _raw_grid(self, points: Tensor) -> Tensor:
        if not self.grid_is_learned:
            return points
        return torch.cat([points[:1], inverse_softplus(points.diff())])

    def _grid(self, raw: Tensor) -> Tensor:
        """The points that `_raw_grid` has made `raw` of, (*batch, num_points)."""
        if not self.grid_is_learned:
            return raw
        first = raw[..., :1]
        return torch.cat([first, first + F.softplus(raw[..., 1:]).cumsum(-1)], dim=-1)

    @property
    def grid(self) -> Tensor:
        """The grid points in force, (num_points,)."""
        return self._grid(self.raw_grid)

    @property
    def bandwidth(self) -> Tensor:
        """The bandwidths in force, (num_bandwidths,)."""
        return F.softplus(self.raw_bandwidth)

    def parameters_in_force(self, numbers: Sequence[Tensor] | None = None) -> PhiParameters:
        """The numbers that `Phi` reads, differentiable; those of copies along a first dimension.

        Args:
            numbers: Stored numbers in place of this module's own, in the order of `numbers`;
                those of several equal phis stacked along leading dimensions are done at once.
        """
        stored = self.numbers if numbers is None else numbers
        # what is stored in 16 bit is computed in 32: sums of gaps would lose their order
        wide = [n if n.dtype.itemsize >= 4 else n.float() for n in stored]
        if self.copies > 1:
            batch = torch.broadcast_shapes(*(n.shape[:-1] for n in wide))
            wide = [n.expand(*batch, n.shape[-1]) for n in wide]
        amplitude, raw_bandwidth, raw_grid, line = wide
        grid = self._grid(raw_grid)
        slope, offset = line.unbind(-1)
        return PhiParameters(amplitude, F.softplus(raw_bandwidth), grid, slope, offset)

    def forward(self, x: Tensor) -> Tensor:
        """phi(x) by direct evaluation of every function: exact, and slow for large x.

        Computed in float64, since an anchored phi near 0 cancels in float32; the result has the
        dtype of x. Copies take the first dimension of x, each its own entry.
        """
        p = self.parameters_in_force().double()
        points = x.reshape(-1) if self.copies == 1 else x.reshape(self.copies, -1)
        return self.phi(points.double(), p).reshape(x.shape).to(x.dtype)

    @torch.no_grad()
    def refit_grid(self, samples: Tensor, *, bandwidth: float | str = "keep") -> float:
        """Place the grid anew for the values that x really takes, and keep phi.

        Call it once after warm-up, not in every step: it waits for the device. Amplitudes are
        refitted by least squares on the interval; their optimiser state is stale afterwards.

        Args:
            samples: Values of x met so far, of any shape.
            bandwidth: `keep`, or what the constructor takes.

        Returns:
            The largest distance on the interval between phi before and after.

        Raises:
            ValueError: There are several copies.
        """
        if self.copies > 1:
            raise ValueError(
                f"cannot place one grid for {self.copies} copies of phi: they have amplitudes of "
                "their own; place it before `repeat`, or share phi within the module"
            )
        basis, before = self.phi.basis, self.parameters_in_force().double()
        points = basis.place(self.grid_rule, samples)
        omega = before.bandwidth
        if bandwidth != "keep":
            omega = _bandwidth(bandwidth, basis, points).to(omega.device)
        x = torch.linspace(*basis.interval, 1001, dtype=torch.float64, device=omega.device)
        y = basis.phi(x, before.amplitude, before.grid, before.bandwidth)
        self.raw_grid.copy_(self._raw_grid(points))
        self.raw_bandwidth.copy_(inverse_softplus(omega))
        after = self.parameters_in_force()
        fit = fit_amplitudes(basis, x, y, after.grid, after.bandwidth)
        self.amplitude.copy_(fit.amplitude)
        return fit.residual

    def extra_repr(self) -> str:
        """The family and what is trained."""
        return f"{self.phi}, trained={[n for n, _ in self.named_parameters()]}"


def _bandwidth(value: float | str, basis: Basis, points: Tensor) -> Tensor:
    if value == "spacing":
        omega = spacing_bandwidth(basis, points)
    elif isinstance(value, str):
        raise ValueError(f"`bandwidth` must be a positive number or 'spacing', got {value!r}")
    elif not value > 0:
        raise ValueError(f"`bandwidth` must be positive, got {value}")
    else:
        omega = torch.full((basis.num_bandwidths,), float(value), dtype=torch.float64)
    check_bandwidth(omega, basis.interval)
    return omega
