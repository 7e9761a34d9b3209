"""One weight: the merge and the gradient pass against the memory traffic they cannot avoid."""

import functools
import math

import torch

from adapters.ops import merge
from basis_zoo import get_basis, list_bases
from basis_zoo.proxy import proxy_size
from bench.adapter.cases import KINDS, RANK, Case, case, kind
from bench.adapter.floors import Ceilings
from bench.adapter.record import Row, Run
from bench.adapter.timing import median_us

SQUARE, TALL = (4096, 4096), (14336, 4096)
_KINKED = {"hat": {}, "relu": {}, "bspline, degree 1": {"degree": 1}}


def merges(run: Run, device: str, quick: bool) -> None:
    """W' = W + phi(BA) in bfloat16 against a copy of W; the same for other G and families."""
    ceilings = Ceilings.measured(device, quick)
    for shape in [SQUARE] if quick else [SQUARE, TALL]:
        w = _weight(shape, device)
        copy = torch.empty_like(w)
        base = median_us(functools.partial(copy.copy_, w), device, quick=quick)
        us = _merge_us(kind("degree 8", shape, RANK, device), w, device, quick)
        floor = 1e6 * 2 * w.numel() * w.element_size() / ceilings.bytes_per_second
        run.add(
            Row("merge", f"W' = W + phi(BA), bf16, {_size(shape)}, r {RANK}", us / base, 1.2,
                ours=us, other=base, against="a copy of W", unit="us",
                note=f"bytes at the measured bandwidth: {floor:.1f} us")
        )  # fmt: skip
    _over_sizes(run, device, quick)
    _over_families(run, device, quick)


def _over_sizes(run: Run, device: str, quick: bool) -> None:
    """At the paper's bandwidth, so that phi is equally smooth whatever G is."""
    w = _weight(SQUARE, device)
    times, sizes = {}, {}
    for count in (8, 512):
        subject = case("sinc", 0.05, SQUARE, RANK, device, num_basis=count, bandwidth=1.0)
        times[count], sizes[count] = _merge_us(subject, w, device, quick), proxy_size(subject.proxy)
    run.add(
        Row("merge", f"G = 512 against G = 8, {_size(SQUARE)}", times[512] / times[8], 1.02,
            ours=times[512], other=times[8], against="G = 8", unit="us",
            note=f"degrees {sizes[512]} and {sizes[8]}")
    )  # fmt: skip


def _over_families(run: Run, device: str, quick: bool) -> None:
    w = _weight(SQUARE, device)
    names = [n for n in list_bases() if math.isinf(get_basis(n).smoothness)]
    times = []
    for name in names[:4] if quick else names:
        subject = case(name, 0.05, SQUARE, RANK, device, bandwidth=1.0)
        times.append((_merge_us(subject, w, device, quick), name, proxy_size(subject.proxy)))
    (fast, first, low), (slow, last, high) = min(times), max(times)
    run.add(
        Row("merge", f"slowest against fastest of {len(times)} smooth families", slow / fast, 1.05,
            ours=slow, other=fast, against=f"{first}, degree {low}", unit="us",
            note=f"slowest: {last}, degree {high}")
    )  # fmt: skip


def tables(run: Run, device: str, quick: bool) -> None:
    """Families with kinks against the polynomial of degree 8, forward and gradient pass."""
    w = _weight(SQUARE, device)
    smooth = kind("degree 8", SQUARE, RANK, device)
    base = _merge_us(smooth, w, device, quick), _gradient_us(smooth, w, device, quick)
    for label in list(_KINKED)[: 1 if quick else None]:
        subject = kinked(label, SQUARE, device)
        times = _merge_us(subject, w, device, quick), _gradient_us(subject, w, device, quick)
        pieces = proxy_size(subject.proxy)
        for what, us, other, goal in zip(
            ("merge", "gradient pass"), times, base, (1.3, 2.0), strict=True
        ):
            run.add(
                Row("table", f"{what}, {label} ({pieces} pieces)", us / other, goal,
                    ours=us, other=other, against="degree 8", unit="us")
            )  # fmt: skip


def kinked(label: str, shape: tuple[int, int], device: str) -> Case:
    """One of `_KINKED` on a range that holds the two kinks nearest to zero."""
    family, options = label.split(",")[0], _KINKED[label]
    return case(family, 0.1, shape, RANK, device, bandwidth=1.0, **options)


def gradients(run: Run, device: str, quick: bool) -> None:
    """dB, dA and the moments of phi against reading G once, as fast as a copy reads it."""
    ceilings = Ceilings.measured(device, quick)
    for shape, goal in [(SQUARE, 4.0)] if quick else [(SQUARE, 4.0), (TALL, None)]:
        g = _weight(shape, device)
        copy = functools.partial(torch.empty_like(g).copy_, g)
        base = median_us(copy, device, quick=quick) / 2
        us = _gradient_us(kind("degree 8", shape, RANK, device), g, device, quick)
        flops = 6 * g.numel() * RANK  # BA, H A^T and B^T H
        floor = 1e6 * g.numel() * g.element_size() / ceilings.bytes_per_second
        run.add(
            Row("gradient", f"gradient pass, bf16, {_size(shape)}, r {RANK}", us / base, goal,
                ours=us, other=base, against="half a copy of G", unit="us",
                note=f"bytes {floor:.1f} us, products {1e6 * flops / ceilings.flops:.1f} us")
        )  # fmt: skip
    if device == "cuda" and not quick:
        for name in KINDS:
            subject = kind(name, SQUARE, RANK, device)
            w = _weight(SQUARE, device)
            run.add(
                Row("gradient", f"{name} ({proxy_size(subject.proxy)})", None,
                    ours=_merge_us(subject, w, device, quick),
                    other=_gradient_us(subject, w, device, quick),
                    against="gradient pass; first the merge", unit="us")
            )  # fmt: skip


def _merge_us(subject: Case, w: torch.Tensor, device: str, quick: bool) -> float:
    call = functools.partial(merge.merged_weight, w, subject.b, subject.a, subject.proxy, 1.0)
    return median_us(call, device, quick=quick)


def _gradient_us(subject: Case, g: torch.Tensor, device: str, quick: bool) -> float:
    call = functools.partial(merge.merge_gradients, g, subject.b, subject.a, subject.proxy, 1.0)
    return median_us(call, device, quick=quick)


def _weight(shape: tuple[int, int], device: str) -> torch.Tensor:
    return (0.02 * torch.randn(shape, device=device)).bfloat16()


def _size(shape: tuple[int, int]) -> str:
    return f"{shape[0]} x {shape[1]}"
