"""Medians of times."""

import statistics
import time
from collections.abc import Callable

import torch

Call = Callable[[], object]


def median_us(call: Call, device: str, *, quick: bool = False) -> float:
    """Median microseconds of `call`; on a GPU its kernels' time, the L2 cache cleared before."""
    if device == "cuda":
        from triton.testing import do_bench

        warmup, rep = (5, 20) if quick else (10, 60)
        return 1e3 * do_bench(call, warmup=warmup, rep=rep, return_mode="median")
    return 1e6 * statistics.median(seconds(call, device, 3 if quick else 9))


def seconds(call: Call, device: str, count: int, *, warmup: int = 2) -> list[float]:
    """Wall-clock seconds of each of `count` calls, the device waited for."""
    for _ in range(warmup):
        call()
    times = []
    for _ in range(count):
        synchronize(device)
        began = time.perf_counter()
        call()
        synchronize(device)
        times.append(time.perf_counter() - began)
    return times


def alternate(calls: list[Call], device: str, count: int) -> list[list[float]]:
    """Seconds of each call, in turns, so that a busy machine slows all of them alike."""
    times: list[list[float]] = [[] for _ in calls]
    for index in range(count):
        for one, held in zip(calls, times, strict=True):
            held += seconds(one, device, 1, warmup=0 if index else 2)
    return times


def synchronize(device: str) -> None:
    """Wait for the device."""
    if device == "cuda":
        torch.cuda.synchronize()
