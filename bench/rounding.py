r"""When does it matter that W' is rounded to bfloat16?

A layer of MiniLM's shape with weights of bfloat16 learns a known update $\Delta W^*$ of rank 8 by
least squares on random inputs. Only the size of the update varies, from far below half an ulp of
a typical weight up; the factors and phi are float32 and of the same size in every case, since
alpha takes the size of the update. Errors is the relative error of the learned update,
$\lVert s\varphi(BA) - \Delta W^* \rVert / \lVert \Delta W^* \rVert$, and of the update that is
left when W' is merged and rounded to nearest.

    python -m bench.rounding [--steps 60] [--seeds 1] [--out bench/results]
"""

import argparse
import json
import statistics
from pathlib import Path
from typing import Any, NamedTuple

import torch
from peft import get_peft_model
from torch import Tensor, nn

from adapters import BasisConfig, BasisLinear
from bench.adapter.record import place

SIDE, TRUE_RANK, RANK, TOKENS = 384, 8, 16, 256
STD = 0.02
"""Of the frozen weights."""
HALF_ULP = 2.0**-14
"""Of bfloat16 at 2^-6 <= |w| < 2^-5, where weights of that deviation are."""
SIZES = (1 / 64, 1 / 16, 1 / 4, 1.0, 4.0, 16.0)
"""Root mean square of the true update, in half ulps."""
WAYS: dict[str, tuple[torch.dtype, dict[str, Any]]] = {
    "float32": (torch.float32, {}),
    "nearest": (torch.bfloat16, {}),
    "stochastic": (torch.bfloat16, {"rounding": "stochastic"}),
    "split": (torch.bfloat16, {"path": "split"}),
}


class Errors(NamedTuple):
    """Relative errors after training."""

    learned: float
    merged: float


def train(size: float, way: str, seed: int, steps: int) -> Errors:
    """Learn an update of `size` half ulps."""
    dtype, options = WAYS[way]
    torch.manual_seed(seed)
    linear = nn.Linear(SIDE, SIDE, bias=False)
    nn.init.normal_(linear.weight, std=STD)
    base = nn.Sequential(linear).bfloat16()
    weight = linear.weight.detach().float()
    factors = torch.randn(SIDE, TRUE_RANK), torch.randn(TRUE_RANK, SIDE)
    true = size * HALF_ULP * factors[0] @ factors[1] / TRUE_RANK**0.5
    config = BasisConfig(
        r=RANK, alpha=2.0 * RANK * size * HALF_ULP, target_modules=["0"], start="identity",
        linear=True, num_basis=16, bandwidth="spacing", b_std=0.1, **options,
    )  # fmt: skip
    model = get_peft_model(base.to(dtype), config).train()
    layer = next(m for m in model.modules() if isinstance(m, BasisLinear))
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.Adam(parameters, lr=2e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        x = torch.randn(TOKENS, SIDE).bfloat16()
        want = x.float() @ (weight + true).T
        loss = (model(x.to(dtype)).float() - want).square().mean() / true.square().mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
    with torch.no_grad():
        merged = layer.merged_matrix(linear.weight, layer.parts(["default"]))
        merged = merged.float() - weight
        return Errors(error(layer.get_delta_weight("default"), true), error(merged, true))


def error(got: Tensor, want: Tensor) -> float:
    """Relative, in the Frobenius norm."""
    return float((got - want).norm() / want.norm())


def main() -> None:
    """Train every way at every size, print the table, write it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("bench/results"))
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    print("error of the learned update (of the merged weight), by its size in half ulps of W")
    print("size    " + "".join(f"{way:>20}" for way in WAYS))
    rows = []
    for size in SIZES:
        cells = []
        for way in WAYS:
            trained = [train(size, way, seed, args.steps) for seed in range(args.seeds)]
            learned, merged = (statistics.mean(column) for column in zip(*trained, strict=True))
            rows.append(
                {"half_ulps": size, "way": way, "learned": learned, "merged": merged,
                 "each": [list(one) for one in trained]}
            )  # fmt: skip
            cells.append(f"{learned:.3f} ({merged:.3f})")
        print(f"{size:<8.3g}" + "".join(f"{cell:>20}" for cell in cells), flush=True)
    told = {**place("cpu"), "steps": args.steps, "seeds": args.seeds, "rows": rows}
    (args.out / "rounding.json").write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
