"""Training steps of whole models against PEFT's LoRA in each way that people run it.

Wall time, the time that the GPU is busy, and peak memory stand apart: what the host takes depends
on the host. Ours is compared with LoRA run the same way, eager with PEFT's own default.
"""

import functools
import gc
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import nn

from adapters.ops.dense_gradient import takes_float8
from bench.adapter.models import SHAPES, Shape, build, stepper
from bench.adapter.record import Row, Run
from bench.adapter.timing import alternate, busy_ms, captured, seconds

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
LORA, OURS, FLOAT8 = "LoRA", "sinc, G = 50", "sinc, G = 50, gradient in 8 bits"
_CONFIGS = METHODS | {FLOAT8: METHODS[OURS] | {"gradient_dtype": "float8"}}
"""The last is for models with layers large enough."""


class Way(NamedTuple):
    """How a model is run."""

    method: str
    narrow: bool = False
    autocast: bool = False
    compiled: bool = False
    reduced: bool = False
    """Compiled with `mode="reduce-overhead"`, torch's own CUDA graphs."""
    captured: bool = False
    """Its whole step, optimizer included, in one CUDA graph."""

    def __str__(self) -> str:
        """As the rows call it."""
        names = {"compiled": "compiled", "reduced": "reduce-overhead", "captured": "captured"}
        words = [
            text for name, text in {"autocast": "autocast", **names}.items() if getattr(self, name)
        ]
        narrow = ["adapters in its dtype"] if self.narrow else []
        return ", ".join([self.method, *narrow, *words])


WAYS = (
    Way(LORA),
    Way(LORA, autocast=True),
    Way(LORA, narrow=True),
    Way(LORA, narrow=True, captured=True),
    Way(LORA, narrow=True, compiled=True),
    Way(LORA, narrow=True, reduced=True),
    Way(LORA, narrow=True, compiled=True, captured=True),
    Way(OURS),
    Way(OURS, captured=True),
    Way(FLOAT8, captured=True),
    Way(OURS, compiled=True),
    Way(OURS, reduced=True),
    Way(OURS, compiled=True, captured=True),
    Way(FLOAT8, compiled=True, captured=True),
)
_EAGER, _CAPTURED, _COMPILED, _REDUCED, _BOTH = (
    (Way(OURS), Way(LORA)),
    (Way(OURS, captured=True), Way(LORA, narrow=True, captured=True)),
    (Way(OURS, compiled=True), Way(LORA, narrow=True, compiled=True)),
    (Way(OURS, reduced=True), Way(LORA, narrow=True, reduced=True)),
    tuple(
        Way(method, narrow=method == LORA, compiled=True, captured=True) for method in (OURS, LORA)
    ),
)
_CAPTURED_8, _BOTH_8 = ((ours._replace(method=FLOAT8), lora) for ours, lora in (_CAPTURED, _BOTH))
PAIRS = {
    "eager": _EAGER,
    "captured": (_CAPTURED_8[0], *_CAPTURED),
    "compiled": _COMPILED,
    "reduce-overhead": _REDUCED,
    "compiled-captured": (_BOTH_8[0], *_BOTH),
}
"""Ours and LoRA, each the same way; by what `--way` calls it."""
GOALS: dict[str, tuple[float | None, float | None, float | None]] = {
    "Qwen2-0.5B": (1.0, 0.85, 1.15),
    "Llama-3.2-1B": (0.95, 0.95, 1.25),
    "half a Llama-3-8B": (1.0, 1.2, 1.5),
    "half a Llama-3-8B, long": (None, None, 1.3),
    "MiniLM": (None, 1.1, None),
    "ViT-S": (None, None, None),
}
"""Of the step eager, of the GPU's time captured, of the step compiled."""
_MEMORY = 1.05


class Cost(NamedTuple):
    """What a step takes."""

    wall: float
    """Milliseconds."""
    busy: float
    """Milliseconds in which the GPU computes."""
    memory: float
    """GiB at the peak."""


UNITS = {"wall": "ms", "busy": "ms", "memory": "GiB"}
"""Of the fields of `Cost`."""


def steps(name: str, run: Run, device: str, quick: bool, pairs: Sequence[str] = ()) -> None:
    """The shape `name` in every way, or in those of `pairs`; what does not fit says so."""
    chosen = pairs or (PAIRS if quick else ())
    ways = [way for pair in chosen for way in PAIRS[pair][::-1]] or WAYS
    costs: dict[Way, Cost] = {}
    for way in ways:
        if way.autocast and SHAPES[name].dtype is torch.float32:
            continue
        if way.method == FLOAT8 and not _is_large(SHAPES[name]):
            continue
        cost = measured_cost(SHAPES[name], _CONFIGS[way.method], way, device, 4 if quick else 10)
        print(f"    {name}, {way}: {cost or 'does not fit'}", flush=True)
        if cost is not None:
            costs[way] = cost
        for what in UNITS:
            run.add(_row(name, what, (way, cost), (Way(LORA), costs.get(Way(LORA)))))
    for compared, goal, what in (
        ((_EAGER,), GOALS[name][0], "wall"),
        ((_CAPTURED,), GOALS[name][1], "busy"),
        ((_CAPTURED_8,), GOALS[name][1], "busy"),
        ((_BOTH_8,), GOALS[name][2], "wall"),
        ((_COMPILED, _REDUCED, _BOTH), GOALS[name][2], "wall"),
        ((_COMPILED, _REDUCED, _BOTH), _MEMORY, "memory"),
    ):
        ours, lora = (_least(side, costs, what) for side in zip(*compared, strict=True))
        if ours and lora:
            run.add(_row(name, what, ours, lora, goal))


def _is_large(shape: Shape) -> bool:
    """Whether gradients in 8 bits are for layers of this size."""
    return takes_float8(shape.config.intermediate_size, shape.config.hidden_size)


def _least(ways: Sequence[Way], costs: Mapping[Way, Cost], what: str) -> tuple[Way, Cost] | None:
    """The one of `ways` that costs least, of those that were measured."""
    measured = [(way, costs[way]) for way in ways if way in costs]
    return min(measured, key=lambda each: getattr(each[1], what), default=None)


def _row(
    name: str,
    what: str,
    ours: tuple[Way, Cost | None],
    other: tuple[Way, Cost | None],
    goal: float | None = None,
) -> Row:
    (way, cost), (against, base) = ours, other
    mine, theirs = getattr(cost, what, None), getattr(base, what, None)
    value = mine / theirs if mine and theirs else None
    return Row(
        "steps",
        f"{name}, {way}: {what}",
        value,
        goal,
        ours=mine,
        other=theirs,
        against=str(against),
        unit=UNITS[what],
        note="" if mine else "no figure",
    )


def measured_cost(
    shape: Shape, method: dict[str, Any], way: Way, device: str, count: int
) -> Cost | None:
    """The median of `count` steps with `method` run as `way` says; None where it does not fit."""
    torch.compiler.reset()
    model: nn.Module | None = None
    try:
        model = build(shape, method, device, narrow=way.narrow)
        return _measured(model, shape, way, device, count)
    except torch.cuda.OutOfMemoryError:
        return None
    finally:
        model = None
        gc.collect()
        torch.cuda.empty_cache()


def _measured(model: nn.Module, shape: Shape, way: Way, device: str, count: int) -> Cost:
    forward: Callable[..., object] = model
    if way.compiled or way.reduced:
        forward = torch.compile(model, mode="reduce-overhead" if way.reduced else None)
    options = {"autocast": way.autocast, "capturable": way.captured}
    step: Callable[[], object] = stepper(forward, model, shape, device, **options)
    seconds(step, device, 0, warmup=6)  # phi's proxies have found their size by then
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()  # a graph takes its memory once, when it is captured
    step = captured(step) if way.captured else step
    seconds(step, device, 0, warmup=2)
    times = seconds(step, device, count, warmup=0)
    peak = torch.cuda.max_memory_allocated() / 2**30
    return Cost(1e3 * statistics.median(times), busy_ms(step), peak)


STEPS = {
    "qwen": "Qwen2-0.5B",
    "llama-1b": "Llama-3.2-1B",
    "llama-8b": "half a Llama-3-8B",
    "llama-8b-long": "half a Llama-3-8B, long",
    "minilm-gpu": "MiniLM",
    "vit": "ViT-S",
}
"""Names of the benchmarks, and the shapes that they measure."""
BENCHES = {name: functools.partial(steps, shape) for name, shape in STEPS.items()}


def methods(run: Run, device: str, quick: bool) -> None:
    """The other methods, and our options, on the first shape: eager, as they come."""
    shape, base = SHAPES["Qwen2-0.5B"], None
    for name in (LORA, OURS) if quick else METHODS:
        cost = measured_cost(shape, METHODS[name], Way(name), device, 4 if quick else 10)
        base = base or cost
        for what in UNITS:
            run.add(_row("Qwen2-0.5B", what, (Way(name), cost), (Way(LORA), base)))


def minilm(run: Run, device: str, quick: bool) -> None:
    """MiniLM's shape on a CPU, all linear layers of the encoder, in turns with LoRA."""
    shape = SHAPES["MiniLM on a CPU"]
    quickly = (LORA, "G = 8")
    chosen = {**METHODS, "G = 8": {"method": "basis", "num_basis": 8}}
    chosen = {m: c for m, c in chosen.items() if m in quickly or (not quick and "merge" not in m)}
    models = [build(shape, config, device) for config in chosen.values()]
    calls = [stepper(model, model, shape, device) for model in models]
    times = alternate(calls, 5 if quick else 15)
    sequences, tokens = shape.batch
    for method, own_times in zip(list(chosen)[1:], times[1:], strict=True):
        for clock, (what, goal) in enumerate((("step", 1.3), ("processor time of a step", None))):
            pairs = [
                (mine[clock], lora[clock]) for mine, lora in zip(own_times, times[0], strict=True)
            ]
            ours, base = (1e3 * statistics.median(column) for column in zip(*pairs, strict=True))
            # of one turn each, so that what else the machine does cancels
            ratio = statistics.median(mine / lora for mine, lora in pairs)
            run.add(
                Row("minilm", f"CPU, MiniLM, {sequences} x {tokens}, {method}: {what}",
                    ratio, goal if method == "G = 8" else None,
                    ours=ours, other=base, against="LoRA", unit="ms")
            )  # fmt: skip
