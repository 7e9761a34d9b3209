"""The spectrum of every adapted module, for our own adapters and PEFT's."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import torch
from peft import PeftModel
from torch import Tensor, nn

from adapters.basis.layers import BasisLayer
from adapters.export.svd import of_product
from adapters.export.updates import LayerUpdate, layer_updates
from adapters.placement.module_names import block_of, short_kind
from adapters.spectrum.measures import effective_rank, numerical_rank, singular_values, stable_rank
from adapters.spectrum.usage import measures, phis
from adapters.spectrum.weight_changes import weight_changes


class PhiUsage(NamedTuple):
    """How a module uses its phi; see `adapters.spectrum.usage`."""

    largest_product: float
    """max |x|, x = input_scale * B A, or what else the form asks phi at."""
    product_stable_rank: float
    """0 for a form without factors."""
    utilization: float
    grid_occupancy: float
    non_affine_share: float
    effective_degree: float


@dataclass(frozen=True)
class ModuleSpectrum:
    """One adapted module."""

    name: str
    kind: str
    """The name below its block, such as `self_attn.q_proj`."""
    block: int | None
    """Its block's index."""
    shape: tuple[int, int]
    """(out, in)"""
    values: Tensor
    """Singular values of the update, falling, (min(out, in),) float64."""
    product_values: Tensor | None = None
    """Singular values of B A, (r,); None for methods without phi and forms without factors."""
    usage: PhiUsage | None = None

    @property
    def stable_rank(self) -> float:
        """The stable rank of the update."""
        return stable_rank(self.values)

    @property
    def effective_rank(self) -> float:
        """The effective rank of the update."""
        return effective_rank(self.values)

    @property
    def rank(self) -> int:
        """The numerical rank of the update, in float32."""
        return numerical_rank(self.values, self.shape)

    def numbers(self) -> dict[str, float]:
        """All scalars by name."""
        own = {"stable_rank": self.stable_rank, "effective_rank": self.effective_rank}
        return own if self.usage is None else own | self.usage._asdict()


def spectra(
    model: nn.Module, adapter: str = "default", *, before: nn.Module | None = None
) -> list[ModuleSpectrum]:
    """The spectrum of each module that carries `adapter`, in the model's order.

    Decomposes whole matrices: exact, and slow for large models off a GPU.

    Args:
        before: The model before training, without adapters. The update of a module is then its
            weight with the adapter merged, minus its weight before. In a model without adapters,
            all linear layers of its blocks have one.

    Raises:
        ValueError: Without `before`: the model has no such adapter, or it is not additive.
    """
    updates: Sequence[LayerUpdate] = (
        layer_updates(model, adapter) if before is None else weight_changes(model, before, adapter)
    )
    values = singular_values([u.shape for u in updates], lambda i: updates[i].dense())
    return [_module(u, v) for u, v in zip(updates, values, strict=True)]


def spectra_of_saved(base: nn.Module, folder: str | Path) -> list[ModuleSpectrum]:
    """The spectra of an adapter saved in `folder`, on its base model, which is used up."""
    return spectra(PeftModel.from_pretrained(base, str(folder)))


def _module(update: LayerUpdate, values: Tensor) -> ModuleSpectrum:
    block = block_of(update.name)
    index = None if block is None else block.index
    described = ModuleSpectrum(update.name, short_kind(update.name), index, update.shape, values)
    if not isinstance(update.layer, BasisLayer):
        return described
    with torch.no_grad():
        b, a, _ = update.layer.member(update.adapter)
        of_copies = phis(update.layer, update.adapter)
        largest = max(float(x.abs().max()) for _, x in of_copies)
        shares = map(float, measures(of_copies))
        of_factors = of_product(b, a).s.cpu() if len(a) else None
        rank = 0.0 if of_factors is None else stable_rank(of_factors)
        usage = PhiUsage(largest, rank, *shares)
    return replace(described, product_values=of_factors, usage=usage)


def table(modules: list[ModuleSpectrum]) -> str:
    """A table to print: mean and standard deviation over the blocks, by kind of module."""
    kinds: dict[str, list[dict[str, float]]] = {}
    for module in modules:
        kinds.setdefault(module.kind, []).append(module.numbers())
    kinds["all"] = [module.numbers() for module in modules]
    columns = list(kinds["all"][0])
    rows = [("kind", "number", *(c.replace("_", " ") for c in columns))]
    for kind, of_kind in kinds.items():
        cells = []
        for column in columns:
            numbers = torch.tensor([row[column] for row in of_kind], dtype=torch.float64)
            cells.append(f"{numbers.mean():.3g} ± {numbers.std(correction=0):.2g}")
        rows.append((kind, str(len(of_kind)), *cells))
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join(
        "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in rows
    )
