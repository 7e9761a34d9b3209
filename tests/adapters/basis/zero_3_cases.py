"""What test_zero_3.py runs in two processes at once: `python zero_3_cases.py FOLDER`.

Each case trains a model under DeepSpeed's ZeRO-3 and the same model whole, and tells how far their
losses, and what their parameters have become, are apart; RANK.json in FOLDER holds the distance or
the error of every case.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

import deepspeed
import torch
import torch.distributed as dist
from deepspeed.utils import safe_get_full_fp32_param
from peft import get_peft_model
from torch import nn
from torch.multiprocessing import start_processes
from torch.utils.checkpoint import checkpoint

from adapters import BasisConfig

CASES: dict[str, dict[str, Any]] = {
    "a phi for each module": {},
    "one phi, learned scale": {"sharing": "all", "input_scale": "learned"},
    "measured scale": {"input_scale": "rms", "input_scale_options": {"value": 0.05}},
    "recomputed": {"recompute": True},
    "a relative change": {"form": "hadamard"},
    "another family, learned centers": {"basis": "gaussian_rbf", "grid": "learned"},
    "a base that was never whole": {"partitioned": True},
}
SETTINGS = {
    "train_micro_batch_size_per_gpu": 4,
    "gradient_clipping": 0.0,
    "zero_allow_untested_optimizer": True,
    "zero_optimization": {"stage": 3, "stage3_param_persistence_threshold": 0},
}
ROWS = torch.randn(5, 8, 16, generator=torch.Generator().manual_seed(1))


class Block(nn.Module):
    def __init__(self, recompute: bool) -> None:
        super().__init__()
        self.up, self.down, self.recompute = nn.Linear(16, 24), nn.Linear(24, 16), recompute

    def inner(self, x):
        """(*, 16) -> (*, 16)."""
        return x + self.down(torch.tanh(self.up(x)))

    def forward(self, x):
        """As `inner`."""
        if self.recompute and self.training:
            return checkpoint(self.inner, x, use_reentrant=False)
        return self.inner(x)


def make(recompute: bool = False, partitioned: bool = False, **options: Any) -> Any:
    torch.manual_seed(0)
    # as transformers loads a model where DeepSpeed is configured
    with deepspeed.zero.Init(enabled=partitioned, config_dict_or_path=SETTINGS):
        base = nn.Sequential(*[Block(recompute) for _ in range(3)], nn.Linear(16, 3))
    config = BasisConfig(
        r=4, num_basis=8, target_modules=["up", "down"], init_weights=False, **options
    )
    return get_peft_model(base, config)


def sgd(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1e-3)


def distance(options: dict[str, Any]) -> float:
    """The largest difference of a loss, and of the change of a parameter, as shares of these."""
    half = slice(4 * dist.get_rank(), 4 * dist.get_rank() + 4)
    whole, sharded = make(**{**options, "partitioned": False}), make(**options)
    optimizer = sgd(whole)
    engine, *_ = deepspeed.initialize(model=sharded, config=SETTINGS, optimizer=sgd(sharded))
    worst = 0.0
    for step, x in enumerate(ROWS):
        training = step < len(ROWS) - 1
        whole.train(training)
        engine.train(training)
        with torch.set_grad_enabled(training):
            want, got = whole(x).square().mean(), engine(x[half]).square().mean()
        if training:
            optimizer.zero_grad()
            want.backward()
            optimizer.step()
            engine.backward(got)
            engine.step()
        mean = got.detach().clone()
        dist.all_reduce(mean)
        worst = max(worst, abs(float(mean) / 2 - float(want)) / float(want))
    start = dict(make(**{**options, "partitioned": False}).named_parameters())
    pairs = zip(whole.named_parameters(), sharded.parameters(), strict=True)
    for (name, want), held in pairs:
        if want.requires_grad:
            found, before = safe_get_full_fp32_param(held).detach(), start[name].detach()
            change = (want.detach() - before).norm()
            worst = max(worst, float((found - want.detach()).norm() / change))
    return worst


def run(rank: int, folder: Path) -> None:
    torch.set_num_threads(1)
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2"}
    dist.init_process_group(
        "gloo", init_method=f"file://{folder / 'store'}", rank=rank, world_size=2
    )
    deepspeed.init_distributed("gloo", auto_mpi_discovery=False)
    told: dict[str, float | str] = {}
    for name, options in CASES.items():
        try:
            told[name] = distance(options)
        except Exception as error:
            told[name] = f"{type(error).__name__}: {error}"
    (folder / f"{rank}.json").write_text(json.dumps(told))
    dist.destroy_process_group()


if __name__ == "__main__":
    start_processes(run, (Path(sys.argv[1]),), nprocs=2, start_method="spawn")
