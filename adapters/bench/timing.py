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


def alternate(calls: list[Call], count: int) -> list[list[tuple[float, float]]]:
    """Seconds by the clock and of this process on its processors, for calls on a CPU.

    The calls take turns, so that a busy machine slows all of them alike; processor time leaves
    out most of what other processes do.
    """
    times: list[list[tuple[float, float]]] = [[] for _ in calls]
    for index in range(-2, count):
        for call, held in zip(calls, times, strict=True):
            began = time.perf_counter(), time.process_time()
            call()
            if index >= 0:
                held.append((time.perf_counter() - began[0], time.process_time() - began[1]))
    return times


def synchronize(device: str) -> None:
    """Wait for the device."""
    if device == "cuda":
        torch.cuda.synchronize()
