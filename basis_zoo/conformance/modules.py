"""Checks of a family at work: starts, extrapolation, saving, copying, compiling, proxies."""

import copy
import io
import math

import torch

from basis_zoo.conformance.check import at_most, check, require
from basis_zoo.conformance.subject import Subject
from basis_zoo.fit import responses
from basis_zoo.nonlinearity import Nonlinearity
from basis_zoo.phi import EXTRAPOLATIONS, Phi, stack_parameters
from basis_zoo.starts import Identity, RandomAmplitudes, get_start, list_starts

_LEAVE_W_ALONE = {"paper", "small", "anchored", "identity", "identity_anchored", "random"}
_DRAWS = 20
_TOLERANCE = 1e-5  # asked of proxies, as a share of max |phi|


@check(per_grid=True)
def check_starts(s: Subject) -> str:
    """Every start gives what it says, with the linear term and without, or refuses by name."""
    s = s.medium
    refused = []
    for name in list_starts():
        for linear in (False, True):
            try:
                module = s.module(name, linear=linear)
            except ValueError as error:
                is_refusal = "cannot start as the identity" in str(error) and not linear
                require(is_refusal, f"start {name!r} with linear={linear}: {error}")
                refused.append(name)
                continue
            _check_start(s, name, module, linear)
    return f"{len(list_starts())} starts" + (f"; refuses {', '.join(refused)}" if refused else "")


def _check_start(s: Subject, name: str, module: Nonlinearity, linear: bool) -> None:
    what = f"start {name!r} with linear={linear}"
    low, high = s.basis.interval
    x = torch.linspace(low, high, 301, dtype=torch.float32)
    y = module(x)
    require(bool(y.isfinite().all()), f"{what}: phi is not finite")
    start = get_start(name)
    origin, p = torch.zeros(1, dtype=torch.float32), module.parameters_in_force()
    if start.anchored:
        zero = module(origin).abs().item()
        require(zero == 0, f"{what}: anchored, but phi(0) = {zero:.2g}")
    silent = not s.basis.phi(x, p.amplitude * 0, p.grid, p.bandwidth).any()
    if name in _LEAVE_W_ALONE and (start.zero_b or silent):
        update = (module(origin) if start.zero_b else y).abs().max()  # BA is zero where B is
        require(update <= 1e-6 * s.half, f"{what}: phi changes W by {update:.2g} before training")
    if isinstance(start, Identity):
        shift = module.phi._sum(origin, p) * start.anchored
        error = (y + shift - x).abs().max().item()
        limit = start.tolerance + 1e-4 * s.half
        at_most(error, limit, f"{what}: max |phi(x) - x|")
    if name in ("paper", "small", "anchored"):
        require(not module.amplitude.any(), f"{what}: amplitudes are not zero")
    if name == "random":
        _check_variance(s, what)
    grad = torch.autograd.grad(y.sum(), module.amplitude, retain_graph=True)[0]
    require(bool(grad.isfinite().all()), f"{what}: the gradient to the amplitudes is not finite")
    reached = bool(torch.autograd.grad(y.square().sum() + y @ x, module.amplitude)[0].any())
    require(reached, f"{what}: no gradient reaches the amplitudes")


def _check_variance(s: Subject, what: str) -> None:
    p = s.natural
    x = torch.linspace(*s.basis.interval, 301, dtype=torch.float64)
    design = responses(s.basis, x, p.grid, p.bandwidth)
    squares = []
    for seed in range(_DRAWS):
        start = RandomAmplitudes(seed=seed)
        a = start.values(s.basis, p.grid, p.bandwidth, False).amplitude
        squares.append((design @ a).square().mean().item())
    ratio = math.sqrt(sum(squares) / _DRAWS) / start.scale
    require(0.5 < ratio < 2, f"{what}: phi has {ratio:.2g} times the deviation asked for")


@check()
def check_extrapolation(s: Subject) -> str:
    """Outside the interval phi does what each of the five rules says."""
    s = s.small
    low, high = s.basis.interval
    p = s.numbers
    ends = torch.tensor([low, high], dtype=torch.float64)
    away = torch.tensor([-1.0, 1.0], dtype=torch.float64) * s.half
    inner = s.inside(9)
    inner = inner[(inner > low) & (inner < high)]
    scale = s.scale(torch.cat([inner, ends]))
    for rule in EXTRAPOLATIONS:
        phi = Phi(s.basis, extrapolation=rule)
        twice = phi(ends.repeat(2, 1), stack_parameters([p, p]))
        require(torch.equal(twice[0], twice[1]), f"rule {rule!r} differs for stacked phis")
        at = {k: phi(ends + k * away, p) for k in (0.0, 1e-9, 0.25, 0.5, 0.75)}
        error = (phi(inner, p) - s.phi(inner)).abs().max().item()
        if rule == "clamp":
            error = max(error, (at[0.5] - at[0.0]).abs().max().item())
        if rule == "linear":
            bend = (at[0.75] - 2 * at[0.5] + at[0.25]).abs().max().item()
            slope = (at[0.75] - at[0.25]).abs().max().item()
            jump = (at[1e-9] - at[0.0]).abs().max().item()
            error = max(error, bend - 1e-9 * slope, jump - 1e-8 * slope)
        if rule == "zero":
            error = max(error, at[0.5].abs().max().item())
        if rule == "periodic":
            again = phi(inner + 2 * 2 * s.half, p)
            error = max(error, (again - s.phi(inner)).abs().max().item())
        require(error <= 1e-8 * scale, f"rule {rule!r} is off by {error:.2g} of {scale:.2g}")
    return ", ".join(EXTRAPOLATIONS)


@check(per_grid=True)
def check_state_dict(s: Subject) -> str:
    """Saved and loaded without pickle, phi is the same to the last bit."""
    saved, loaded = s.module(linear=True), s.module("paper", linear=True)
    loaded.phi = saved.phi  # anchoring belongs to the configuration, not to the numbers
    with torch.no_grad():
        for parameter in saved.parameters():
            parameter.add_(0.05)
    file = io.BytesIO()
    torch.save(saved.state_dict(), file)
    file.seek(0)
    loaded.load_state_dict(torch.load(file, weights_only=True))
    x = s.inside(50).float()
    require(torch.equal(saved(x), loaded(x)), "phi differs after the round trip")
    return f"{len(saved.state_dict())} tensors"


@check()
def check_copy(s: Subject) -> str:
    """A deep copy has the same phi and numbers of its own."""
    module = s.module()
    twin = copy.deepcopy(module)
    x = s.inside(20).float()
    require(twin.phi == module.phi, "the copy's phi is not equal: families compare by fields")
    require(torch.equal(twin(x), module(x)), "the copy's values differ")
    before = module(x)
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.add_(0.1)
    require(torch.equal(module(x), before), "training the copy changes the original")
    return "independent"


@check()
def check_proxy(s: Subject) -> str:
    """Proxies give phi, its slope and the gradient to amplitudes, near 0 and all over."""
    from basis_zoo.proxy import fit_proxy

    lines = []
    phi = s.rule
    for share in (0.02, 0.9):
        radius = torch.tensor(share * s.half, dtype=torch.float32)
        numbers = s.numbers._replace(amplitude=s.numbers.amplitude.clone().requires_grad_())
        fit = fit_proxy(phi, numbers, radius, tolerance=_TOLERANCE)
        x = torch.linspace(-1, 1, 777, dtype=torch.float64) * radius.double() * 0.9999
        kinks = phi.breakpoints(numbers)
        if len(kinks):  # proxies round breakpoints to float32
            x = x[(x[:, None] - kinks).abs().amin(dim=1) > 1e-6 * s.half]
        x.requires_grad_()
        want = phi(x, numbers)
        slope, pull = torch.autograd.grad(want.sum(), [x, numbers.amplitude])
        got = fit.proxy.pullback(x.detach().float(), torch.ones_like(x).float())
        (proxy_pull,) = torch.autograd.grad(fit.proxy.coefficients, numbers.amplitude, got)
        where = f"of the proxy for |x| <= {radius.item():.2g}"
        size = want.abs().max().item()
        error = _distance(fit.proxy.value(x.detach()), want, size)
        at_most(error, max(4 * fit.bound.item(), _TOLERANCE), f"error {where}")
        steep = max(slope.abs().max().item(), size / radius.item())
        error_of_slope = _distance(fit.proxy.slope(x.detach()), slope, steep)
        at_most(error_of_slope, 1e-3, f"error of the slope {where}")
        terms = responses(s.basis, x.detach(), numbers.grid, numbers.bandwidth).abs().sum(dim=0)
        error_of_pull = _distance(proxy_pull, pull, terms.max().item())
        at_most(error_of_pull, 1e-3, f"error of the amplitudes' gradient {where}")
        lines.append(f"{type(fit.proxy).__name__} {error:.0e}")
    return ", ".join(lines)


def _distance(got: torch.Tensor, want: torch.Tensor, scale: float) -> float:
    return (got - want).abs().max().item() / max(scale, 1e-30)


@check(slow=True)
def check_compile(s: Subject) -> str:
    """torch.compile traces the module as one graph with the same values and gradients."""
    s = s.small
    torch._dynamo.reset()
    module = s.module()
    compiled = torch.compile(module, backend="aot_eager", fullgraph=True)
    results = []
    for call in (module, compiled):
        x = s.inside(30).float().requires_grad_()
        y = call(x)
        results.append([y.detach(), *torch.autograd.grad(y.sum(), [x, module.amplitude])])
    for plain, traced in zip(*results, strict=True):
        error = (plain - traced).abs().max().item()
        require(error <= 1e-5 * (1 + plain.abs().max().item()), f"compiled differs by {error:.2g}")
    return "one graph, forward and backward"
