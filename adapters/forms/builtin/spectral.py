"""phi on the singular values of W."""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from adapters.forms.form import FactoredForm, Operands, register_form
from adapters.forms.phi_function import PhiFunction
from basis_zoo.basis import Array


@register_form("spectral")
@dataclass(frozen=True)
class Spectral(FactoredForm):
    r"""$U f(S) V^\top$ with $f(\sigma) = \sigma + s\,\frac{\sigma_1}{R}\,\phi(R\,\sigma/\sigma_1)$.

    $W = U S V^\top$ is decomposed once and frozen; R is the upper end of the interval, so that φ
    sees $(0, R]$ whatever the size of W. There are no factors B and A: φ is all that is trained.
    A layer keeps U and V, twice the memory of a square W in float32.
    """

    formula: ClassVar[str] = "U (f(S) − S) Vᵀ, f learned"
    reference: ClassVar[str] = "this project; SVDiff (ICCV 2023) trains every singular value"
    needs_weight: ClassVar[bool] = True

    def factor_rank(self, r: int) -> int:
        """None."""
        return 0

    def reach(self, of: Operands) -> Tensor | None:
        """The upper end of the interval."""
        return of.b.new_full((), of.interval[1])

    def points(self, of: Operands) -> Tensor:
        """The singular values, as φ sees them."""
        return of.frozen[1] * of.interval[1]

    def freeze(self, weight: Tensor) -> tuple[Tensor, ...]:
        """U (out, k), S / S₁ (k,), S₁ () and Vᵀ (k, in), float32."""
        wide = torch.promote_types(weight.dtype, torch.float32)
        u, s, v = torch.linalg.svd(weight.detach().to(wide), full_matrices=False)
        largest = s.amax().clamp_min(torch.finfo(wide).tiny)
        return u, s / largest, largest, v

    def factors(self, of: Operands, phi: PhiFunction) -> tuple[Tensor, Tensor]:
        """U φ(R S / S₁) S₁ / R, and Vᵀ."""
        u, s, largest, v = of.frozen
        end = of.interval[1]
        return u * (phi(s * end) * (largest / end)), v

    def oracle(self, b: Array, a: Array, weight: Array, phi: Any, **options: Any) -> Array:
        """By numpy's decomposition."""
        import numpy as np

        u, s, v = np.linalg.svd(weight, full_matrices=False)
        end = options["interval"][1]
        changed: Array = (u * (phi(s / s[0] * end) * s[0] / end)) @ v
        return changed
