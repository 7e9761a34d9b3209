"""Checks of shapes, dtypes, devices and layouts."""

import torch
from torch import Tensor

from basis_zoo.basis import LinearBasis
from basis_zoo.conformance.check import at_most, check, require
from basis_zoo.conformance.subject import Subject
from basis_zoo.phi import PhiParameters, stack_parameters


def _same(got: Tensor, want: Tensor, scale: float, what: str) -> None:
    require(got.shape == want.shape, f"{what}: shape {tuple(got.shape)}, not {tuple(want.shape)}")
    error = (got - want).abs().max().item() if got.numel() else 0.0
    require(error <= 1e-11 * scale, f"{what}: differs by {error:.2g} of {scale:.2g}")


@check()
def check_shape(s: Subject) -> str:
    """Results have the shape of x, and one call serves several stacked phis."""
    x = s.inside(5)
    p = s.numbers
    scale = s.scale(x)
    if isinstance(s.basis, LinearBasis):
        design = s.basis.design_matrix(x, p.grid, p.bandwidth)
        want = (5, s.basis.num_basis)
        require(tuple(design.shape) == want, f"design matrix is {tuple(design.shape)}, not {want}")
    other = p._replace(amplitude=p.amplitude.flip(0), bandwidth=p.bandwidth * 1.1)
    stacked = stack_parameters([p, other])
    both = s.phi(torch.stack([x, x + 0.1]), stacked)
    require(tuple(both.shape) == (2, 5), f"two stacked phis at (2, 5) give {tuple(both.shape)}")
    _same(both[0], s.phi(x, p), scale, "first of two stacked phis")
    _same(both[1], s.phi(x + 0.1, other), s.scale(x + 0.1, other), "second of two stacked phis")
    module = s.module()
    for shape in ((), (1,), (2, 3, 5)):
        got = tuple(module(torch.zeros(shape, dtype=torch.float32)).shape)
        require(got == shape, f"x of shape {shape} gives {got}")
    return "(), (1,), (2, 3, 5), stacked"


@check()
def check_elementwise(s: Subject) -> str:
    """Every entry depends on its own x alone."""
    x = s.inside(41)
    whole = s.phi(x)
    order = torch.randperm(41, generator=torch.Generator().manual_seed(0))
    _same(s.phi(x[order]), whole[order], s.scale(x), "permuted x")
    alone = torch.cat([s.phi(point[None]) for point in x])
    _same(alone, whole, s.scale(x), "x one by one")
    return "41 points"


@check()
def check_empty(s: Subject) -> str:
    """No points give no values, and the backward pass works."""
    for shape in ((0,), (3, 0)):
        x = torch.zeros(shape, dtype=torch.float32, requires_grad=True)
        y = s.module()(x)
        require(tuple(y.shape) == shape, f"x of shape {shape} gives {tuple(y.shape)}")
        y.sum().backward()
    return "(0,), (3, 0)"


@check()
def check_strided(s: Subject) -> str:
    """Transposed, sliced and expanded x give what a contiguous copy gives."""
    module = s.module()
    x = s.inside(24).float().reshape(4, 6)
    for name, view in {
        "transposed": x.T,
        "sliced": x[:, ::2],
        "expanded": x[:1].expand(5, 6),
        "reversed": x.flip(0)[1:],
    }.items():
        copy = module(view.contiguous())
        error = (module(view) - copy).abs().max().item()
        require(error <= 1e-5 * (1 + copy.abs().max().item()), f"{name} x differs by {error:.2g}")
    line = s.inside(24)
    _same(s.phi(line[::2]), s.phi(line[::2].clone()), s.scale(line), "every second point")
    return "transposed, sliced, expanded, reversed"


@check()
def check_dtype(s: Subject) -> str:
    """float32 agrees with float64, and results of the module have the dtype of x."""
    x = s.inside(101).float()
    single = s.phi(x, PhiParameters(*(q.float() for q in s.numbers)))
    require(single.dtype == torch.float32, f"float32 in gives {single.dtype}")
    double = s.phi(x.double())
    require(double.dtype == torch.float64, f"float64 in gives {double.dtype}")
    error = ((single - double).abs().max() / s.scale(x.double())).item()
    module = s.module()
    for dtype in (torch.float64, torch.float32, torch.bfloat16, torch.float16):
        got = module(x.to(dtype)).dtype
        require(got == dtype, f"the module gives {got} for {dtype}")
    # the rounding of x itself counts: slopes of polynomials grow with the square of G
    limit = 2e-5 * max(1.0, s.basis.num_basis / 64) ** 2
    return at_most(error, limit, "relative error of float32")


@check()
def check_device(s: Subject) -> str:
    """Nothing stays on the CPU when the numbers are elsewhere."""
    devices = ["meta"] + ["cuda"] * torch.cuda.is_available()
    for device in devices:
        p = PhiParameters(*(q.to(device) for q in s.numbers))
        x = s.inside(5).to(device)
        try:
            y = s.phi(x, p)
        except RuntimeError as error:
            require(False, f"numbers on {device}: {error}")
        breaks = s.basis.breakpoints(p.grid, p.bandwidth)
        for name, tensor in {"phi": y, "breakpoints": breaks}.items():
            require(tensor.device.type == device, f"{name} on {tensor.device}, not {device}")
    return ", ".join(devices)
