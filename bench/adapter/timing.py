"""Medians of times."""

import statistics
import time
from collections.abc import Callable, Sequence

import torch

Call = Callable[[], object]


_FLUSH = 2**30
"""Bytes written before each timed call: the L2 cache is emptied, and the GPU is busy for long
enough (0.7 ms on an H100) that the host has launched the whole call when it begins."""


def median_us(call: Call, device: str, *, quick: bool = False) -> float:
    """Median microseconds of `call`; on a GPU of its kernels, the L2 cache cleared before."""
    if device != "cuda":
        return 1e6 * statistics.median(seconds(call, device, 3 if quick else 9))
    flush = torch.empty(_FLUSH, dtype=torch.uint8, device=device)
    for _ in range(3):
        call()
    events = []
    for _ in range(20 if quick else 60):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        for value in range(2):
            flush.fill_(value)
        start.record()
        call()
        end.record()
        events.append((start, end))
    synchronize(device)
    spans: list[float] = [start.elapsed_time(end) for start, end in events]
    return 1e3 * statistics.median(spans)


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


def busy_ms(step: Call, count: int = 3) -> float:
    """Milliseconds of a call in which the GPU computes, by the profiler's record of its kernels."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        for _ in range(count):
            step()
        torch.cuda.synchronize()
    busy: float = sum(event.self_device_time_total for event in profile.key_averages())
    return busy / 1e3 / count


def captured(step: Call) -> Call:
    """`step` as one CUDA graph, captured after what it warms up on a stream of its own."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(2):
            step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    return graph.replay


def alternate(calls: Sequence[Call], count: int) -> list[list[tuple[float, float]]]:
    """Seconds by the clock and of this process on its processors, for calls on a CPU.

    The calls take turns, so that a busy machine slows all of them alike; processor time leaves
    out most of what other processes do.
    """
    times: list[list[tuple[float, float]]] = [[] for _ in calls]
    for index in range(-2, count):
        for call, own_times in zip(calls, times, strict=True):
            began = time.perf_counter(), time.process_time()
            call()
            if index >= 0:
                own_times.append((time.perf_counter() - began[0], time.process_time() - began[1]))
    return times


def synchronize(device: str) -> None:
    """Wait for the device."""
    if device == "cuda":
        torch.cuda.synchronize()
