r"""A polynomial in the Chebyshev basis in place of a smooth phi on $[-R, R]$.

$$\phi(x) \approx \sum_{p=0}^{P} c_p T_p(x / R)$$

Values of phi at the Chebyshev points of the first kind give the coefficients by one fixed matrix,
in float64; the cost of an evaluation does not depend on the family or on G.

Reference: Trefethen, *Approximation Theory and Approximation Practice* (2013), chapters 3, 4, 8.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from basis_zoo.proxy.constants import constant

HORNER_DEGREE = 12
"""Up to here powers are evaluated: as exact as Chebyshev polynomials for coefficients that fall."""
EPSILON = 2.0**-23
"""The distance of 1 to the next float32."""


@constant
def points(count: int, device: torch.device) -> Tensor:
    """`count` Chebyshev points of the first kind on [-1, 1], (count,) float64."""
    j = torch.arange(count, dtype=torch.float64)
    return torch.cos(math.pi * (j + 0.5) / count).to(device)


@constant
def analysis_matrix(count: int, device: torch.device) -> Tensor:
    """Values at `points(count)` to coefficients 0..count-1, (count, count) float64."""
    j = torch.arange(count, dtype=torch.float64)
    matrix = 2 / count * torch.cos(math.pi * j[:, None] * (j + 0.5) / count)
    matrix[0] /= 2
    return matrix.to(device)


@constant
def integral_matrix(count: int, device: torch.device) -> Tensor:
    """Slopes at `points(count)` to coefficients of the polynomial of those slopes that is 0 at 0.

    (count, count) float64, for values in u; the term of degree `count` is left out.
    """
    q = torch.arange(1, count, dtype=torch.float64)
    slopes = analysis_matrix(count, torch.device("cpu"))
    slopes = torch.cat([2 * slopes[:1], slopes[1:], torch.zeros_like(slopes[:1])])
    rows = (slopes[:-2] - slopes[2:]) / (2 * q[:, None])
    at_zero = torch.cos(math.pi / 2 * q) @ rows
    return torch.cat([-at_zero[None], rows]).to(device)


@constant
def synthesis_matrix(count: int, device: torch.device) -> Tensor:
    """Coefficients 0..count-1 to values at `points(count)`, (count, count) float64."""
    j = torch.arange(count, dtype=torch.float64)
    return torch.cos(math.pi * (j[:, None] + 0.5) / count * j).to(device)


@constant
def rounding_weights(degree: int, count: int, device: torch.device) -> Tensor:
    """What float32 loses at most by |coefficient| when a proxy is evaluated, (count,) float64.

    Powers lose by their sum, which for T_p grows like 2.4^p; Clenshaw's rule, near the ends, by
    the degree. Zero beyond `degree`.
    """
    weights = 2.0 + 2 * torch.arange(count, dtype=torch.float64)
    if degree <= HORNER_DEGREE:
        weights[: degree + 1] = power_matrix(degree, torch.device("cpu")).abs().sum(0)
    weights[degree + 1 :] = 0
    return (EPSILON * weights).to(device)


@constant
def power_matrix(degree: int, device: torch.device) -> Tensor:
    """Chebyshev coefficients to those of the powers 1, u, u^2, ..., float64; (P+1, P+1)."""
    size = degree + 1
    t = torch.zeros(size, size, dtype=torch.float64)  # row p: powers of T_p
    t[0, 0] = 1
    if degree:
        t[1, 1] = 1
    for p in range(2, size):
        t[p, 1:] = 2 * t[p - 1, :-1]
        t[p] -= t[p - 2]
    return t.T.contiguous().to(device)


@constant
def derivative_matrix(degree: int, device: torch.device) -> Tensor:
    """Coefficients of a sum of T_p to those of its derivative, float64; (P+1, P+1)."""
    size = degree + 1
    d = torch.zeros(size, size, dtype=torch.float64)
    for p in range(size):
        for q in range(p - 1, -1, -2):
            d[q, p] = 2 * p
    d[0] /= 2
    return d.to(device)


class ChebyshevProxy(NamedTuple):
    """phi as a polynomial; several are stacked along `*batch`. Made by `of`."""

    coefficients: Tensor
    """(*batch, P + 1) float32, differentiable with respect to phi's numbers."""
    radius: Tensor
    """(*batch,) float32, R: the proxy holds for |x| <= R."""
    terms: Tensor
    """(*batch, 2, P + 1) float32, what is evaluated at u = x / R: phi, then phi'. Powers of u up
    to degree 12, Chebyshev polynomials beyond."""

    @classmethod
    def of(cls, coefficients: Tensor, radius: Tensor) -> "ChebyshevProxy":
        """The proxy with these Chebyshev coefficients, (*batch, P + 1), on [-radius, radius]."""
        exact = coefficients.detach().double()
        degree = exact.shape[-1] - 1
        matrix = _terms_matrix(degree, exact.device)
        terms = torch.einsum("tqp,...p->...tq", matrix, exact)
        over_radius = torch.stack([torch.ones_like(radius), radius], dim=-1)[..., None].double()
        return cls(coefficients.float(), radius.float(), (terms / over_radius).float())

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """All numbers, the coefficients first."""
        return tuple(self)

    def rebuilt(self, tensors: tuple[Tensor, ...]) -> "ChebyshevProxy":
        """The same proxy of other tensors, in the order of `tensors`."""
        return ChebyshevProxy(*tensors)

    @property
    def copies(self) -> int:
        """How many proxies are stacked."""
        return self.radius.numel()

    @property
    def degree(self) -> int:
        """P."""
        return self.coefficients.shape[-1] - 1

    def value(self, x: Tensor) -> Tensor:
        """phi(x), elementwise; of a stack, each proxy at its own points, x (*batch, n)."""
        return _evaluate(self.terms[..., 0, :], self._u(x))

    def slope(self, x: Tensor) -> Tensor:
        """phi'(x), as `value`."""
        terms = self.terms[..., 1, : max(self.degree, 1)]
        return _evaluate(terms, self._u(x), self.degree)

    def _u(self, x: Tensor) -> Tensor:
        return x / (self.radius[..., None] if self.radius.ndim else self.radius)

    def pullback(self, x: Tensor, grad: Tensor) -> Tensor:
        """The moments sum(grad * T_p(x / R)): dL/d coefficients, (*batch, P + 1) float32."""
        if self.radius.ndim:
            return self._pullbacks(self._u(x), grad)
        u, flat = self._u(x).flatten(), grad.flatten()
        sums, before, now = [flat.sum(), torch.dot(flat, u)], None, flat
        twice = (u * u).mul_(4).sub_(2)
        for k in range(1, self.degree // 2 + 1):  # g T_2k up to sign: signs that make it a sum
            if before is None:
                before, now = now, (twice * now).mul_(0.5)
            else:
                before, now = now, before.addcmul(twice, now, value=1 if k % 2 else -1)
            sign = -1 if k % 4 >= 2 else 1
            sums += [sign * now.sum(), sign * torch.dot(now, u)]
        stacked = torch.stack(sums[: self.degree + 1]).double()
        return (moment_matrix(self.degree, x.device) @ stacked).float()

    def _pullbacks(self, u: Tensor, grad: Tensor) -> Tensor:
        """`pullback` of a stack, by the recurrence of T_p as it stands."""
        before, now = torch.ones_like(u), u
        sums = [grad.sum(-1)]
        for _ in range(self.degree):
            sums.append((grad * now).sum(-1))
            before, now = now, 2 * u * now - before
        return torch.stack(sums, dim=-1).float()


@constant
def moment_matrix(degree: int, device: torch.device) -> Tensor:
    """What makes the moments of T_p of sums over T_0, T_0 u, T_2, T_2 u, ..., (P+1, P+1) float64.

    T_{2k+1} = 2 u T_{2k} - T_{2k-1}.
    """
    m = torch.eye(degree + 1, dtype=torch.float64)
    for p in range(3, degree + 1, 2):
        m[p] = -m[p - 2]
        m[p, p] = 2
    return m.to(device)


@constant
def _terms_matrix(degree: int, device: torch.device) -> Tensor:
    """Coefficients to the terms of the value and of the slope in u, (2, P + 1, P + 1) float64."""
    derivative = derivative_matrix(degree, device)
    matrix = torch.stack([torch.eye(degree + 1, dtype=torch.float64, device=device), derivative])
    return power_matrix(degree, device) @ matrix if degree <= HORNER_DEGREE else matrix


def _evaluate(terms: Tensor, u: Tensor, degree: int | None = None) -> Tensor:
    """The sum of `terms` at `u`, elementwise: powers if `degree` is at most 12, else Clenshaw."""
    c = terms.to(u.dtype).unbind(-1)
    if terms.ndim > 1:
        c = tuple(term[..., None] for term in c)
    if (len(c) - 1 if degree is None else degree) <= HORNER_DEGREE:
        if len(c) == 1:
            return c[0].expand_as(u)
        y = torch.addcmul(c[-2], c[-1], u)
        for term in reversed(c[:-2]):
            y = torch.addcmul(term, y, u)
        return y
    b1, b2 = c[-1].expand_as(u), torch.zeros_like(u)
    for p in range(len(c) - 2, 0, -1):
        b1, b2 = torch.addcmul(c[p] - b2, u, b1, value=2), b1
    return torch.addcmul(c[0] - b2, u, b1)
