"""What test_sharded.py runs in two processes at once: `python sharded_cases.py FOLDER DEVICE`.

Each case trains a model as FSDP shards it and the same model whole, and tells how far they are
apart; RANK.json in FOLDER holds the distance or the error of every case.
"""

import json
import os
import sys
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from pathlib import Path

import torch
import torch.distributed as dist
from peft import get_peft_model
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FullyShardedDataParallel as FSDP
from torch.distributed.fsdp import ShardingStrategy, fully_shard
from torch.distributed.fsdp.wrap import ModuleWrapPolicy
from torch.multiprocessing import start_processes
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import checkpoint

from adapters import BasisConfig

CASES: dict[str, Callable[[], float]] = {}
DEVICE = torch.device("cpu")
"""Of this process; `run` sets it."""
ROWS = torch.randn(2, 8, 16, generator=torch.Generator().manual_seed(1))
"""Two micro-batches; each process takes half of the rows."""


class Block(nn.Module):
    """What a unit holds."""

    def __init__(self, recompute: str | None):
        super().__init__()
        self.norm, self.up, self.down = nn.LayerNorm(16), nn.Linear(16, 24), nn.Linear(24, 16)
        self.recompute = recompute

    def inner(self, x):
        """(*, 16) -> (*, 16)."""
        return x + self.down(torch.tanh(self.up(self.norm(x))))

    def forward(self, x):
        """As `inner`."""
        if self.recompute and self.training:
            return checkpoint(self.inner, x, use_reentrant=self.recompute == "reentrant")
        return self.inner(x)


class Net(nn.Module):
    """Two blocks, and a head that belongs to no unit but the root."""

    def __init__(self, recompute):
        super().__init__()
        self.layers = nn.ModuleList([Block(recompute) for _ in range(2)])
        self.head = nn.Linear(16, 3)

    def forward(self, x):
        """(*, 16) -> (*, 3)."""
        for layer in self.layers:
            x = layer(x)
        return self.head(x)


def make(recompute=None, **options):
    torch.manual_seed(0)
    given = {"r": 4, "num_basis": 8, "target_modules": ["up", "down", "head"], "b_std": 0.3}
    config = BasisConfig(init_weights=False, **{**given, **options})
    return get_peft_model(Net(recompute), config).to(DEVICE)


def fsdp1(model, **options):
    given = {"auto_wrap_policy": ModuleWrapPolicy({Block}), "use_orig_params": True}
    return FSDP(model, device_id=DEVICE, **{**given, **options})


def fsdp2(model, units=True, base=False, **options):
    mesh = init_device_mesh(DEVICE.type, (dist.get_world_size(),))
    for block in model.base_model.model.layers if units else ():
        if base:
            fully_shard(block.up.base_layer, mesh=mesh)
        fully_shard(block, mesh=mesh, **options)
    return fully_shard(model, mesh=mesh)


def train(model, rows, steps=2):
    """Plain gradient descent over two micro-batches a step; the inputs want gradients too."""
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1e-3)
    for _ in range(steps):
        for last, x in enumerate(ROWS.to(DEVICE)):
            if hasattr(model, "keeps_whole"):
                model.set_reshard_after_backward(bool(last))
            model.train()(x[rows].clone().requires_grad_()).square().mean().div(2).backward()
        optimizer.step()
        optimizer.zero_grad()
    with torch.no_grad():
        return [model.eval()(x[rows]) for x in (*ROWS.to(DEVICE), *ROWS.to(DEVICE))]


def whole_parameters(model):
    """The trained parameters by name, gathered."""
    with FSDP.summon_full_params(model) if isinstance(model, FSDP) else torch.no_grad():
        return {
            name.replace("_fsdp_wrapped_module.", "").removeprefix("module."): p.full_tensor()
            .detach()
            .clone()
            if hasattr(p, "full_tensor")
            else p.detach().clone()
            for name, p in model.named_parameters()
            if p.requires_grad
        }


def distance(options, shard):
    """The largest difference in outputs and trained parameters, over their size."""
    half = slice(4 * dist.get_rank(), 4 * dist.get_rank() + 4)
    whole, sharded = make(**options), shard(make(**options))
    wants, gots = train(whole, slice(None)), train(sharded, half)
    pairs = [(got, want[half]) for got, want in zip(gots, wants, strict=True)]
    wanted, found = whole_parameters(whole), whole_parameters(sharded)
    assert wanted.keys() == found.keys()
    start = whole_parameters(make(**options))
    pairs += [(found[n] - start[n], wanted[n] - start[n]) for n in wanted]
    return max(float((got - want).norm() / want.norm()) for got, want in pairs)


def case(name, shard, **options):
    CASES[name] = partial(distance, options, shard)


def kept_whole(model, **options):
    """FSDP2 that shards anew before the optimizer's step only."""
    model = fsdp2(model, reshard_after_forward=False, **options)
    model.keeps_whole = True
    return model


MOMENTUM = {"input_scale": "rms", "input_scale_options": {"value": 0.05, "momentum": 0.5}}
SHARED = {"sharing": "all", "sharing_scope": "layer", "input_scale": "learned"}
KINKS = {"basis": "hat", "grid": "learned"}
for version, shard in (("fsdp1", fsdp1), ("fsdp2", fsdp2)):
    case(f"{version}, recomputed", shard, recompute="plain", merge_once=True, **SHARED)
    case(f"{version}, kinks, measured scale", shard, **KINKS, **MOMENTUM)
ZERO2 = {"sharding_strategy": ShardingStrategy.SHARD_GRAD_OP, "forward_prefetch": True}
case("fsdp1, reentrant, ZeRO-2", partial(fsdp1, **ZERO2), recompute="reentrant")
case("fsdp1, one unit, shared by all", partial(fsdp1, auto_wrap_policy=None), sharing="all")
PARAMETERS = {"target_modules": ["down"], "target_parameters": ["up.weight"]}
for version, shard in (("fsdp1", fsdp1), ("fsdp2", fsdp2)):
    case(f"{version}, a parameter, recomputed", shard, recompute="plain", **PARAMETERS)
case("fsdp2, kept whole", kept_whole)
case("fsdp2, one unit, kept whole, shared by all", partial(kept_whole, units=False), sharing="all")
case("fsdp2, base layers by themselves", partial(fsdp2, base=True))


def compiled(shard, model):
    """`shard` of a model, compiled as a whole."""
    made = shard(model)
    made.compile(backend="aot_eager")
    return made


KEPT = []
"""torch frees a reducer with the GIL held and joins a thread that may be waiting for it."""


def ddp(model):
    KEPT.append(DistributedDataParallel(model))
    return KEPT[-1]


case("ddp", ddp)
case("ddp, shared by all", ddp, sharing="all")
case("ddp, compiled", partial(compiled, ddp))
case("fsdp2, compiled", partial(compiled, fsdp2))


def run(rank: int, folder: Path, kind: str) -> None:
    global DEVICE
    torch.set_num_threads(1)
    if kind == "cuda":
        DEVICE = torch.device(kind, rank)
        torch.cuda.set_device(DEVICE)
    dist.init_process_group(
        "gloo" if kind == "cpu" else "nccl",
        init_method=f"file://{folder / 'store'}",
        rank=rank,
        world_size=2,
        timeout=timedelta(seconds=120),
    )
    told: dict[str, float | str] = {}
    for name, work in CASES.items():
        try:
            told[name] = work()
        except Exception as error:
            told[name] = f"{type(error).__name__}: {error}"
        (folder / f"{rank}.json").write_text(json.dumps(told))
    dist.destroy_process_group()
    os._exit(0)  # with what is kept


if __name__ == "__main__":  # forked, so that what is imported is imported once
    torch.compile(torch.sin, backend="aot_eager")(torch.ones(1))  # which imports most of all
    start_processes(run, (Path(sys.argv[1]), sys.argv[2]), nprocs=2, start_method="fork")
