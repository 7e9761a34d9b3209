"""The rounds of ElaLoRA: when ranks move between layers, and which."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from adapters.methods.builtin.elalora import ElaloraConfig, ElaloraUpdate
from adapters.training.hooks import Hooks, register_hooks

SHARES = {"interval": 1 / 40, "initial_steps": 0.15, "final_steps": 0.25}
"""Shares of the training, where the settings are None: 50, 300 and 500 of about 1,950 steps
(RTE)."""


def _steps(config: ElaloraConfig, name: str) -> int:
    steps: int | None = getattr(config, name)
    if steps is not None:
        return steps
    assert config.total_steps is not None
    return max(1, round(SHARES[name] * config.total_steps))


def moves_at(config: ElaloraConfig, step: int) -> int:
    """How many ranks move after `step`; 0 between rounds."""
    assert config.total_steps is not None
    first, interval = _steps(config, "initial_steps"), _steps(config, "interval")
    last = config.total_steps - _steps(config, "final_steps")
    if not first < step < last or (step - first) % interval:
        return 0
    progress = (step - first) / (last - first)
    return round(config.b * (1 - progress**3)) if config.anneal else config.b


def move(updates: list[ElaloraUpdate], count: int, k: int, generator: torch.Generator) -> int:
    """Prune the `count` least important ranks and grow as many, within k a layer.

    Each layer puts its k least important ranks forward (never its last one). The least important
    of all are pruned; where the most important of them lie, layers still want for ranks: these
    grow. Layers whose places are all taken do not grow.

    Returns:
        How many ranks moved.
    """
    forward = []
    for i, update in enumerate(updates):
        score = update.importance()
        free = min(k, int(update.active.sum()) - 1)
        lowest = score.topk(max(free, 0), largest=False)
        pairs = zip(lowest.values.tolist(), lowest.indices.tolist(), strict=True)
        forward += [(s, i, place) for s, place in pairs]
    forward.sort()
    count = min(count, len(forward) // 2)
    room = [int((~u.active).sum()) for u in updates]
    grown: list[int] = []
    for _, i, _ in reversed(forward[count:]):
        if len(grown) < count and room[i]:
            room[i] -= 1
            grown.append(i)
    for _, i, place in forward[: len(grown)]:
        updates[i].prune(place)
    for i in grown:
        updates[i].grow(generator)
    return len(grown)


def _updates(model: nn.Module) -> list[ElaloraUpdate]:
    return [m for m in model.modules() if isinstance(m, ElaloraUpdate)]


def _on_attach(model: nn.Module, config: ElaloraConfig, total_steps: int) -> None:
    config.total_steps = total_steps
    first, final = _steps(config, "initial_steps"), _steps(config, "final_steps")
    if first + final > total_steps:
        raise ValueError(
            f"`initial_steps` {first} and `final_steps` {final} are more than the {total_steps} "
            "steps of the training; lower one of them"
        )


def _after_step(model: nn.Module, config: ElaloraConfig, step: int) -> None:
    if config.total_steps is None:
        raise ValueError(
            "ElaLoRA needs the number of steps: call adapters.on_attach(model, total_steps) "
            "before training, or set `total_steps`"
        )
    if step >= config.total_steps - _steps(config, "final_steps"):
        return
    updates = _updates(model)
    for update in updates:
        update.observe(config.beta1, config.beta2)
    count = moves_at(config, step)
    if count:
        generator = torch.Generator().manual_seed(config.seed * 1_000_003 + step)
        move(updates, count, config.k, generator)


def _state(model: nn.Module, config: ElaloraConfig) -> dict[str, Tensor]:
    """The running means of every update: `<place>.<parameter>.mean` and `.spread`."""
    return {
        f"{i}.{name}.{word}": tensor
        for i, update in enumerate(_updates(model))
        for name, pair in update.means.items()
        for word, tensor in zip(("mean", "spread"), pair, strict=True)
    }


def _load_state(model: nn.Module, config: ElaloraConfig, state: Mapping[str, Tensor]) -> None:
    for i, update in enumerate(_updates(model)):
        update.means = {
            name: (state[f"{i}.{name}.mean"].to(w.device), state[f"{i}.{name}.spread"].to(w.device))
            for name, w in update.named_parameters()
            if f"{i}.{name}.mean" in state
        }


register_hooks(
    ElaloraConfig,
    Hooks(on_attach=_on_attach, after_step=_after_step, state=_state, load_state=_load_state),
)
