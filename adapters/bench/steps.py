"""Training steps of real model shapes against PEFT's LoRA: time and peak memory."""

import gc
import statistics
from typing import Any

import torch

from adapters.bench.models import SHAPES, build, stepper
from adapters.bench.record import Row, Run
from adapters.bench.timing import alternate, seconds

METHODS: dict[str, dict[str, Any]] = {
    "LoRA": {"method": "lora"},
    "sinc, G = 50": {"method": "basis", "num_basis": 50},
    "sinc, G = 512": {"method": "basis", "num_basis": 512},
    "hat, G = 50": {"method": "basis", "basis": "hat", "num_basis": 50},
    "sinc, G = 50, merge_once": {"method": "basis", "num_basis": 50, "merge_once": True},
    "sinc, G = 50, split": {"method": "basis", "num_basis": 50, "path": "split"},
    "DoRA": {"method": "dora"},
    "RandLoRA, r 32": {"method": "randlora", "r": 32},
    "VeRA, r 256": {"method": "vera", "r": 256},
}
_OURS = "sinc, G = 50"
_GOALS = {"Qwen2-0.5B": (1.0, 0.70), "Llama-3-8B": (1.25, 0.80)}
"""Of step time and of memory, for our default."""
_QUICK = ("LoRA", _OURS)


def steps(run: Run, device: str, quick: bool) -> None:
    """Every shape with every method; what does not fit says so."""
    for name, (step_goal, memory_goal) in _GOALS.items():
        first: tuple[float, float] | None = None
        for method in _QUICK if quick else METHODS:
            try:
                ms, gib = _measure(name, method, device, 4 if quick else 8)
            except torch.cuda.OutOfMemoryError:
                ms = gib = None
            gc.collect()
            torch.cuda.empty_cache()
            first = first or (ms, gib)
            for what, value, base, unit, goal in (
                ("step", ms, first[0], "ms", step_goal),
                ("peak memory", gib, first[1], "GiB", memory_goal),
            ):
                run.add(
                    Row("steps", f"{name}, {method}: {what}",
                        value / base if value and base else None,
                        goal if method == _OURS else None,
                        ours=value, other=base, against="LoRA", unit=unit,
                        note="" if value else "out of memory")
                )  # fmt: skip


def _measure(name: str, method: str, device: str, count: int) -> tuple[float, float]:
    """Median milliseconds of a step, and its peak GiB."""
    shape = SHAPES[name]
    step = stepper(build(shape, METHODS[method], device), shape, device)
    seconds(step, device, 0, warmup=4)
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    times = seconds(step, device, count, warmup=0)
    return 1e3 * statistics.median(times), torch.cuda.max_memory_allocated() / 2**30


def minilm(run: Run, device: str, quick: bool) -> None:
    """MiniLM's shape on a CPU, query and value, in turns with LoRA."""
    shape = SHAPES["MiniLM"]
    methods = [m for m in METHODS if m in _QUICK or (not quick and "merge" not in m)]
    calls = [stepper(build(shape, METHODS[m], device), shape, device) for m in methods]
    times = alternate(calls, 5 if quick else 15)
    sequences, tokens = shape.batch
    for method, held in zip(methods[1:], times[1:], strict=True):
        for clock, (what, goal) in enumerate((("step", 1.3), ("processor time of a step", None))):
            pairs = [(mine[clock], lora[clock]) for mine, lora in zip(held, times[0], strict=True)]
            ours, base = (1e3 * statistics.median(column) for column in zip(*pairs, strict=True))
            # of one turn each, so that what else the machine does cancels
            ratio = statistics.median(mine / lora for mine, lora in pairs)
            run.add(
                Row("minilm", f"CPU, MiniLM, {sequences} x {tokens}, {method}: {what}",
                    ratio, goal if method == _OURS else None,
                    ours=ours, other=base, against="LoRA", unit="ms")
            )  # fmt: skip
