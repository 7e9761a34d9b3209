"""What every section of a study file is made of, and the sections `after` and `search`."""

from collections.abc import Iterable
from typing import Annotated

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    Strict,
    StringConstraints,
    field_validator,
    model_validator,
)

Int = Annotated[int, Strict()]
Float = Annotated[float, Strict()]
Bool = Annotated[bool, Strict()]


def _printable(text: str) -> str:
    if not text.isprintable():
        raise ValueError(f"expected printable text on one line, got {text!r}")
    return text


Line = Annotated[
    str, StringConstraints(strip_whitespace=True, min_length=1), AfterValidator(_printable)
]
"""Printable text on one line."""


class Section(BaseModel):
    """Refuses unknown keys; a value that cannot be changed."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


PARA_FACTS = ("parameters", "kept_energy", "rank_mean", "rank_spread")
"""What is said of a pruned adapter beside its metrics: LoRA parameters, share of the squared norm
of all updates, mean and standard deviation over layers of the ranks."""


class Para(Section):
    """Ranks cut after training, by one threshold over all layers (PARA, arXiv 2604.27796)."""

    kept: Annotated[tuple[Annotated[Float, Field(gt=0, le=1)], ...], Field(min_length=1)]
    """Shares of the trained parameters that are kept, each evaluated."""

    @field_validator("kept")
    @classmethod
    def _shares_differ(cls, kept: tuple[float, ...]) -> tuple[float, ...]:
        names = [f"{share:g}" for share in kept]
        if len(set(names)) < len(names):
            raise ValueError(f"each share once, got {', '.join(names)}")
        return kept


class Landscape(Section):
    """The validation loss along a random direction through the trained parameters."""

    points: Int = Field(11, ge=3)
    """Odd, so that the trained parameters themselves are one."""
    radius: Float = Field(0.5, gt=0)
    """Largest step, in units of the norm of each row of each matrix."""

    @property
    def steps(self) -> list[float]:
        """From -radius to radius, 0 in the middle."""
        half = self.points // 2
        return [self.radius * i / half for i in range(-half, half + 1)]

    @field_validator("points")
    @classmethod
    def _has_a_middle(cls, points: int) -> int:
        if points % 2 == 0:
            raise ValueError(f"expected an odd number, so that step 0 is one of them, got {points}")
        return points


class After(Section):
    """Evaluations of every trained model beyond its own; they become metrics `after/...`."""

    para: Para | None = None
    affine: Bool = False
    """Every phi replaced by its best affine fit."""
    landscape: Landscape | None = None
    spectra: Bool = False
    """Singular values of every update, and every phi, kept beside the result for the figures."""

    @model_validator(mode="after")
    def _asks_something(self) -> "After":
        if not (self.para or self.affine or self.landscape or self.spectra):
            raise ValueError(
                "nothing to evaluate: give `para`, `affine: true`, `landscape` or `spectra: true`"
            )
        return self

    def names(self, metrics: Iterable[str]) -> list[str]:
        """The metrics that this adds, where a task reports `metrics` on each split."""
        splits = [f"{split}/{metric}" for split in ("valid", "test") for metric in metrics]
        shares = () if self.para is None else self.para.kept
        found = [f"{para_name(s)}/{name}" for s in shares for name in (*splits, *PARA_FACTS)]
        if self.affine:
            found += [f"after/affine/{name}" for name in (*splits, "non_affine_share")]
            found += [f"after/affine/difference/{name}" for name in splits]
        if self.landscape is not None:
            found += [landscape_name(step) for step in self.landscape.steps]
        return found


def para_name(share: float) -> str:
    """What metrics of the adapter pruned to `share` begin with: after/para_0.25."""
    return f"after/para_{share:g}"


def landscape_name(step: float) -> str:
    """The metric that is the validation loss at `step`: after/landscape/-0.1."""
    return f"after/landscape/{step:g}"
