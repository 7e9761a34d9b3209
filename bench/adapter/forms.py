"""Steps of other forms and of finer sharing, captured: against the plain form, or against LoRA."""

from typing import Any

from bench.adapter.models import SHAPES
from bench.adapter.record import Row, Run
from bench.adapter.steps import LORA, METHODS, OURS, Cost, Way, measured_cost

_PLAIN = METHODS[OURS]
_LEARNS = {"start": "identity_anchored", "linear": True}
FORMS: dict[str, tuple[dict[str, Any], str, float | None]] = {
    "head": ({"sharing": "all", "sharing_scope": "head"}, OURS, 1.15),
    "row": ({"sharing": "all", "sharing_scope": "row"}, OURS, 1.15),
    "row, G = 8": ({"sharing": "all", "sharing_scope": "row", "num_basis": 8}, OURS, 1.15),
    "column, G = 8": ({"sharing": "all", "sharing_scope": "column", "num_basis": 8}, OURS, None),
    "hadamard": ({"form": "hadamard"}, OURS, 1.15),
    "sum": ({"form": "sum"}, OURS, None),
    "components": ({"form": "components"}, OURS, None),
    "factors": ({"form": "factors", **_LEARNS}, LORA, 1.05),
    "activation": ({"form": "activation"}, LORA, 1.05),
    "spectral": ({"form": "spectral"}, LORA, None),
}
"""Options, what the step is compared with, and the goal of the ratio."""


def forms(run: Run, device: str, quick: bool) -> None:
    """Each form on Qwen2-0.5B's shape, its whole step in one CUDA graph."""
    shape, count = SHAPES["Qwen2-0.5B"], 4 if quick else 10
    bases: dict[str, Cost | None] = {}
    for name in (LORA, OURS):
        way = Way(name, narrow=name == LORA, captured=True)
        bases[name] = measured_cost(shape, METHODS[name], way, device, count)
    for name, (options, base, goal) in FORMS.items():
        way = Way(name, captured=True)
        cost, against = measured_cost(shape, _PLAIN | options, way, device, count), bases[base]
        print(f"    {name}: {cost or 'does not fit'}, {base}: {against}", flush=True)
        for what in ("wall", "busy"):
            mine, theirs = getattr(cost, what, None), getattr(against, what, None)
            ratio = mine / theirs if mine and theirs else None
            run.add(
                Row("forms", f"Qwen2-0.5B, {name}, captured: {what}", ratio, goal,
                    ours=mine, other=theirs, against=f"{base}, captured", unit="ms",
                    note="" if mine else "no figure")
            )  # fmt: skip
