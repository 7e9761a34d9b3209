"""The options of phi, of the form around it and of the factors that it sees, as one value."""

import dataclasses
from typing import Any, Protocol

import torch

from adapters.basis.field_types import check_field_types, require
from adapters.forms import Form, get_form
from adapters.forms.start_check import check_start
from basis_zoo import Basis, Grid, InputScale, Nonlinearity, Start, get_basis, get_grid, get_start


@dataclasses.dataclass(frozen=True)
class PhiConfig:
    """What a module's phi is before training; `BasisConfig` says what each option means.

    Raises:
        ValueError: A value does not have the type of its annotation, at construction.
    """

    basis: str
    num_basis: int
    interval: tuple[float, float]
    basis_options: dict[str, Any]
    grid: str
    grid_options: dict[str, Any]
    start: str
    start_options: dict[str, Any]
    bandwidth: float | str
    extrapolation: str | None
    linear: bool
    train_amplitude: bool
    train_bandwidth: bool
    b_std: float
    input_scale: float | str
    input_scale_options: dict[str, Any]
    form: str
    form_options: dict[str, Any]

    def __post_init__(self) -> None:
        object.__setattr__(self, "interval", _pair(self.interval))
        check_field_types(self, PhiConfig)
        require(self.b_std > 0, "b_std", "positive", self.b_std)

    @torch.no_grad()
    def check(self, init_weights: bool = True) -> None:
        """Build every part once, to see that it can be built; without `init_weights`, at random.

        Raises:
            ValueError: An option cannot be used, or the start changes the model before the first
                step, or leaves nothing that is trained.
            TypeError: A part lacks an option, or cannot take a value of its type.
        """
        phi, form = self.build_nonlinearity(), self.build_form()
        self.build_input_scale()
        zero_b = self.build_start().zero_b
        if not form.elementwise:
            if init_weights:
                check_start(form, phi, 0.0 if zero_b else self.b_std)
            return
        y = phi(torch.linspace(*self.interval, 33))
        # the checks of a family report what is not finite
        if init_weights and not zero_b and y[y.isfinite()].any():
            raise ValueError(
                f"family {self.basis!r} with start {self.start!r} is not zero: with a random B it "
                "would change the model before the first step. Take start 'identity', whose B is "
                "zero"
            )
        if init_weights and zero_b and not phi.learns_at(torch.zeros(1)):
            raise ValueError(
                f"start {self.start!r} has B = 0, and there family {self.basis!r} gives no "
                "gradient to B or to a number of phi: nothing would be trained. Take start "
                "'anchored', the linear term, or another family"
            )

    def build_basis(self) -> Basis:
        """The family, or what the form makes of it."""
        basis = get_basis(
            self.basis, num_basis=self.num_basis, interval=self.interval, **self.basis_options
        )
        return self.build_form().basis_of(basis)

    def build_form(self) -> Form:
        """The form."""
        return get_form(self.form, **self.form_options)

    def build_grid(self) -> Grid:
        """The grid."""
        return get_grid(self.grid, **self.grid_options)

    def build_start(self) -> Start:
        """The start."""
        return get_start(self.start, **self.start_options)

    def build_nonlinearity(self) -> Nonlinearity:
        """A new phi with its values before training."""
        return Nonlinearity(
            self.build_basis(),
            self.build_grid(),
            self.build_start(),
            bandwidth=self.bandwidth,
            linear=self.linear,
            train_amplitude=self.train_amplitude,
            train_bandwidth=self.train_bandwidth,
            extrapolation=self.extrapolation,
        )

    def build_input_scale(self) -> InputScale | None:
        """The factor on B A, or None where there is none."""
        if self.input_scale == "none":
            if self.input_scale_options:
                raise ValueError(
                    f"`input_scale_options` {self.input_scale_options} need an `input_scale`"
                )
            return None
        if isinstance(self.input_scale, int | float):
            return InputScale("fixed", self.input_scale, **self.input_scale_options)
        return InputScale(self.input_scale, **self.input_scale_options)


class PhiSettings(Protocol):
    """Settings whose phi may differ from module to module, such as `BasisConfig`."""

    phi_pattern: dict[str, dict[str, Any]]
    depth_start: dict[str, Any]
    init_weights: bool
    sharing: str
    sharing_scope: str

    @property
    def phi(self) -> PhiConfig:
        """The options of phi where neither pattern nor depth sets others."""


PHI_OPTIONS = tuple(field.name for field in dataclasses.fields(PhiConfig))
"""Their names."""


def _pair(interval: Any) -> tuple[float, float]:
    pair = isinstance(interval, list | tuple) and len(interval) == 2
    if not pair or not all(isinstance(end, int | float) for end in interval):
        raise ValueError(f"`interval` must be two ends such as (-3.0, 3.0), got {interval!r}")
    return (float(interval[0]), float(interval[1]))
