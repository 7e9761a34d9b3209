"""ElaLoRA: ranks move between layers while training, pruned where they matter least."""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from adapters.basis.field_types import require
from adapters.methods.registry import Method, register_method
from adapters.methods.tuner import FactoredUpdate, UpdateConfig, UpdateModel, register_update
from adapters.peft_integration.options import setting


@dataclass
class ElaloraConfig(UpdateConfig):
    """Settings of ElaLoRA; steps left at None are the authors' shares of the training (RTE)."""

    r: int = setting(10, "ranks of a layer at the start")
    max_r: int | None = setting(None, "most ranks of a layer; 2r")
    b: int = setting(4, "ranks that move each round, over all layers")
    k: int = setting(2, "ranks that may move in one layer")
    interval: int | None = setting(None, "steps between rounds")
    initial_steps: int | None = setting(None, "steps before round one")
    final_steps: int | None = setting(None, "steps after the last round")
    anneal: bool = setting(True, "b falls to 0 (cubic)")
    beta1: float = setting(0.85, "decay of the mean importance")
    beta2: float = setting(0.85, "decay of its uncertainty")
    orthogonality: float = setting(0.1, "weight of the penalty")
    seed: int = setting(0, "seed of the directions that are grown")
    total_steps: int | None = setting(None, "set by adapters.on_attach")

    method: ClassVar[str] = "elalora"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.max_r = 2 * self.r if self.max_r is None else self.max_r
        require(self.max_r >= self.r, "max_r", f"at least r = {self.r}", self.max_r)
        for name in ("b", "k", "interval"):
            value = getattr(self, name)
            require(value is None or value >= 1, name, "at least 1", value)
        for name in ("beta1", "beta2"):
            require(0 < getattr(self, name) < 1, name, "between 0 and 1", getattr(self, name))

    @property
    def places(self) -> int:
        """`max_r`, which is a number once the settings are made."""
        assert self.max_r is not None
        return self.max_r


class ElaloraUpdate(FactoredUpdate):
    r"""$\Delta W = \frac{\alpha}{r} B\,\mathrm{diag}(e)\,A$ over the ranks in force.

    There are `max_r` places, of which `active` are in force, so that tensors and the optimizer's
    state keep their shapes while ranks come and go. A, B ~ N(0, 0.02²) and e = 0 at the start.

    Importance of rank i: $s(e_i) + \mathrm{mean}_j s(A_{ij}) + \mathrm{mean}_j s(B_{ji})$ with
    $s(w) = \bar I \bar U$, the running means of $I = |w \nabla w|$ and of $|I - \bar I|$.

    Reference: Chang et al., *ElaLoRA* (arXiv 2504.00254); HuandongChang/ElaLoRA,
    loralib/loralib/elalora.py.
    """

    active: Tensor

    def __init__(self, base: nn.Linear, config: ElaloraConfig) -> None:
        super().__init__(base, config)
        (out, n), places = base.weight.shape, config.places
        self.a = nn.Parameter(torch.empty(places, n))
        self.b = nn.Parameter(torch.empty(out, places))
        self.e = nn.Parameter(torch.zeros(places))
        nn.init.normal_(self.a, std=0.02)
        nn.init.normal_(self.b, std=0.02)
        self.register_buffer("active", torch.arange(places) < config.r)
        self.config = config
        self.means: dict[str, tuple[Tensor, Tensor]] = {}

    def factors(self) -> tuple[Tensor, Tensor]:
        """B diag(e) with places not in force zeroed, and A."""
        return self.b * torch.where(self.active, self.e, 0.0), self.a

    def idle_parameters(self) -> int:
        """Numbers in places that are not in force; without weights, those at the start."""
        free = self.config.places - self.config.r
        if not self.active.is_meta:
            free = int((~self.active).sum())
        return free * (self.a.shape[1] + self.b.shape[0] + 1)

    def penalty(self) -> Tensor:
        """Mean distance of A A^T and B^T B from the identity, over the ranks in force."""
        a, b = self.a[self.active], self.b[:, self.active]
        eye = torch.eye(len(a), device=a.device, dtype=a.dtype)
        distance: Tensor = ((a @ a.T - eye).norm() + (b.T @ b - eye).norm()) / 2
        return distance

    @torch.no_grad()
    def observe(self, beta1: float, beta2: float) -> None:
        """Bring the running means up to date with the gradients in place."""
        for name, w in self.named_parameters():
            if w.grad is None:
                raise ValueError(
                    "ElaLoRA reads gradients after each step and found none: call "
                    "adapters.after_step after the optimizer's step and before zero_grad"
                )
            now = (w * w.grad).abs()
            mean, spread = self.means.get(name, (torch.zeros_like(w), torch.zeros_like(w)))
            mean = beta1 * mean + (1 - beta1) * now
            spread = beta2 * spread + (1 - beta2) * (now - mean).abs()
            self.means[name] = (mean, spread)

    def importance(self) -> Tensor:
        """(places,); infinite for places that are not in force."""
        score = {name: mean * spread for name, (mean, spread) in self.means.items()}
        total = score["e"] + score["a"].mean(dim=1) + score["b"].mean(dim=0)
        return torch.where(self.active, total, torch.inf)

    @torch.no_grad()
    def prune(self, place: int) -> None:
        """Take a rank out of force."""
        self.active[place] = False

    @torch.no_grad()
    def grow(self, generator: torch.Generator) -> None:
        """Put a free place in force, with directions away from those in force and a tiny e."""
        place = int((~self.active).nonzero()[0])
        for rows in (self.a, self.b.T):
            active, w = rows[self.active], rows[place]
            new = torch.randn(w.shape, generator=generator).to(w)
            new = new - active.T @ (active @ new)
            w.copy_(new / (new.norm() + 1e-6))
        smallest = self.e[self.active].abs().min() if self.active.any() else self.e.new_zeros(())
        self.e[place] = smallest.clamp(max=1e-13)
        self.active[place] = True
        for name, means in self.means.items():
            for mean in means:
                (mean.T if name == "b" else mean)[place] = 0.0


class PenalisedModel(UpdateModel):
    """Adds the orthogonality penalty to the loss while training."""

    peft_config: dict[str, ElaloraConfig]  # type: ignore[assignment]  # PEFT's is of its base class

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The model's output, its loss with the penalty in training."""
        output = self.model.forward(*args, **kwargs)
        loss = getattr(output, "loss", None)
        if self.training and isinstance(loss, Tensor):
            updates = [m for m in self.model.modules() if isinstance(m, ElaloraUpdate)]
            weight = self.peft_config[self.active_adapters[0]].orthogonality
            output.loss = loss + weight * sum(u.penalty() for u in updates) / len(updates)
        return output


register_update(ElaloraConfig, ElaloraUpdate, PenalisedModel)
register_method(
    Method(
        "elalora",
        ElaloraConfig,
        low_rank=True,
        formula=r"(alpha / r) B diag(e) A, ranks pruned and grown between layers",
        source="Chang et al., arXiv 2504.00254; HuandongChang/ElaLoRA",
        note="the authors' RTE run has r 10, b 4, k 2, rate 1.2e-3; the total rank stays r a layer",
    )
)
