"""Checks of derivatives: autograd against differences, smoothness as declared."""

import math
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from basis_zoo.basis import Claim
from basis_zoo.conformance.check import check, require
from basis_zoo.conformance.subject import Subject


def _inputs(s: Subject) -> tuple[Tensor, ...]:
    x = s.inside(7, margin=0.1)
    p = s.numbers
    return tuple(q.clone().requires_grad_() for q in (x, p.amplitude, p.grid, p.bandwidth))


def _message(error: Exception) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    return " ".join(lines[:1])[:160]


@check(per_grid=True)
def check_gradient(s: Subject) -> str:
    """Gradients to x, amplitudes, grid and bandwidths agree with finite differences."""
    s = s.small
    inputs = _inputs(s)
    require(s.phi(inputs[0]).requires_grad, "phi has no gradient to x: an operation cuts the graph")
    return _agree(partial(torch.autograd.gradcheck, atol=1e-5, rtol=1e-4), s, inputs, "first")


@check(per_grid=True)
def check_second_gradient(s: Subject) -> str:
    """Second derivatives, off kinks, agree with finite differences of the first."""
    s = s.small
    x, *numbers = _inputs(s)
    inputs = (x[::3].detach().clone().requires_grad_(), *numbers)
    return _agree(partial(torch.autograd.gradgradcheck, atol=1e-4, rtol=1e-3), s, inputs, "second")


def _agree(compare: Callable[..., bool], s: Subject, inputs: tuple[Tensor, ...], order: str) -> str:
    """Have torch `compare` the derivatives of phi to those of `inputs` that the family reads."""
    used = [t for t in inputs if t.numel()]

    def phi(*tensors: Tensor) -> Tensor:
        given = iter(tensors)
        return s.basis.phi(*(next(given) if t.numel() else t for t in inputs))

    try:
        compare(phi, used, eps=1e-6)
    except RuntimeError as error:  # gradcheck's own error is one
        require(False, f"{order} derivatives: {_message(error)}")
    return f"{sum(t.numel() for t in used)} inputs"


def _derivatives(s: Subject, x: Tensor, count: int) -> list[Tensor]:
    """phi and its first `count` derivatives at `x`, by autograd."""
    x = x.detach().clone().requires_grad_()
    values = [s.phi(x)]
    for _ in range(count):
        last = values[-1]
        grad = None
        if last.requires_grad:
            grad = torch.autograd.grad(last.sum(), x, create_graph=True, allow_unused=True)[0]
        values.append(torch.zeros_like(x) if grad is None else grad)
    return [v.detach() for v in values]


@check(lambda basis: basis.smoothness >= 2, per_grid=True)
def check_second_derivative_at_centers(s: Subject) -> str:
    """Where phi is twice differentiable, autograd's second derivative is right at centers too."""
    s = s.small
    p = s.numbers
    low, high = s.basis.interval
    special = torch.tensor([low, (low + high) / 2, high], dtype=torch.float64)
    x = torch.cat([p.grid, s.kinks, special])
    step = 1e-5 * s.half
    at = _derivatives(s, x, 2)[2]
    around = (_derivatives(s, x - step, 2)[2] + _derivatives(s, x + step, 2)[2]) / 2
    scale = around.abs().max().item() + 1e-12
    error = (at - around).abs() / scale
    worst = int(error.nan_to_num(nan=math.inf).argmax())
    message = f"at x = {x[worst]:.4g} it is {at[worst]:.6g}, and {around[worst]:.6g} around"
    require(bool(error[worst] <= 1e-2), f"second derivative: {message}")
    return f"{len(x)} points, relative difference {error.max().item():.1e}"


@check(lambda basis: basis.smoothness < math.inf, per_grid=True)
def check_smoothness(s: Subject) -> str:
    """phi has as many continuous derivatives at its breakpoints as declared, and no more."""
    s = s.small
    kinks, step = s.kinks, 1e-7 * s.half
    require(len(kinks) > 0, "less than smooth, but `breakpoints` gives none")
    order = int(s.basis.smoothness)
    left = _derivatives(s, kinks - step, order + 2)
    right = _derivatives(s, kinks + step, order + 2)
    for j in range(order + 1):
        slope = torch.maximum(left[j + 1].abs(), right[j + 1].abs()).max().item()
        scale = torch.maximum(left[j].abs(), right[j].abs()).max().item()
        gap = (left[j] - right[j]).abs()
        allowed = 4 * step * slope + 1e-8 * scale
        worst = int(gap.argmax())
        require(
            gap[worst].item() <= allowed,
            f"derivative {j} jumps by {gap[worst]:.2g} at x = {kinks[worst]:.4g}, "
            f"but smoothness {order} is declared",
        )
    jump = (left[order + 1] - right[order + 1]).abs().max().item()
    scale = torch.cat([left[order + 1], right[order + 1]]).abs().max().item()
    require(jump > 1e-3 * scale, f"derivative {order + 1} is continuous too: declare more")
    return f"derivative {order + 1} jumps by {jump:.2g} at {len(kinks)} breakpoints"


@check(per_grid=True)
def check_breakpoints(s: Subject) -> str:
    """Between declared breakpoints phi is smooth: no kink or jump is left undeclared."""
    s = s.small
    low, high = s.basis.interval
    beyond = 0.3 * (high - low)
    x = torch.linspace(low - beyond, high + beyond, 1201, dtype=torch.float64) + 1.7e-4 * s.half
    levels = 3 if s.basis.smoothness == math.inf else 1
    d = _derivatives(s, x, levels)
    clear = torch.ones(len(x) - 1, dtype=torch.bool)
    if len(s.kinks):
        cell = torch.searchsorted(x, s.kinks) - 1
        clear[cell[(cell >= 0) & (cell < len(clear))]] = False
    for j in range(levels):
        defect = _defect(x, d[j], d[j + 1]) * clear
        scale = d[j].abs().max().item() + 1e-30
        for i in defect.topk(4).indices.tolist():
            if defect[i] <= 1e-8 * scale:
                continue
            fine = torch.linspace(x[i].item(), x[i + 1].item(), 17, dtype=torch.float64)
            near = _derivatives(s, fine, j + 1)
            left = _defect(fine, near[j], near[j + 1]).max().item()
            require(
                left <= defect[i].item() / 80,  # 16 pieces: 1/4096 where smooth, 1/16 at a kink
                f"phi is not smooth near x = {fine[8]:.4g}, where `breakpoints` names nothing",
            )
    return f"{int(clear.sum())} cells, {len(s.kinks)} breakpoints"


def _defect(x: Tensor, value: Tensor, slope: Tensor) -> Tensor:
    """How far each rise is from the trapezoid rule for its slope."""
    return (value.diff() - x.diff() * (slope[1:] + slope[:-1]) / 2).abs()


@check()
def check_gradient_reaches_x(s: Subject) -> str:
    """A and B are trained through phi, unless the family claims that they are not."""
    x = s.inside(301).requires_grad_()
    grad = torch.autograd.grad(s.phi(x).sum(), x)[0].abs().max().item()
    silent = Claim.ZERO_GRADIENT in s.basis.claims
    if silent:
        require(grad == 0, f"claims a zero gradient, but max |phi'| is {grad:.2g}")
    require(silent or grad > 1e-6, f"max |phi'| is {grad:.2g}: claim ZERO_GRADIENT")
    return f"max |phi'| {grad:.2g}"
