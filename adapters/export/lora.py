"""Write an adapter as a plain PEFT LoRA, which loads without this project."""

import copy
import itertools
import json
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

from peft import LoraConfig, get_peft_model_state_dict
from safetensors.torch import save_file
from torch import Tensor, nn

from adapters.basis.field_types import require_one_of
from adapters.basis.weighted_sums import sums_of
from adapters.export.rank_allocation import allocate
from adapters.export.updates import LayerUpdate, layer_updates
from adapters.placement.module_names import IN_PEFT

WHOLE = ("refuse", "keep", "leave_out")
"""What may become of modules that were trained whole."""
_MUTATING = ("pissa", "corda", "olora", "loftq", "lora_ga")
"""Values of `init_lora_weights` with which PEFT changes the base weights."""


@dataclass(frozen=True)
class LayerReport:
    """What the export keeps of one layer."""

    name: str
    shape: tuple[int, int]
    """(out, in)"""
    rank: int
    kept_energy: float
    """Share of the update's squared Frobenius norm."""
    relative_error: float
    """Frobenius norm of what is lost over that of the update: sqrt(1 - kept_energy)."""

    @property
    def parameters(self) -> int:
        """Parameters of the LoRA factors."""
        return self.rank * sum(self.shape)


class Pair(NamedTuple):
    """The factors of one layer, with the scale in them."""

    b: Tensor
    """(out, k)"""
    a: Tensor
    """(k, in)"""


@dataclass(frozen=True)
class LoraExport:
    """A LoRA adapter in memory, and what it costs."""

    config: LoraConfig
    pairs: dict[str, Pair]
    """The factors by layer; layers of rank 0 are missing."""
    whole: dict[str, Tensor]
    """Modules that are saved whole, such as a head, by their names in the file."""
    layers: list[LayerReport]
    kept_energy: float
    """Over all layers: share of the squared norm of all updates together."""
    source_parameters: int
    """Parameters that the adapter was trained with, phi included."""

    @property
    def parameters(self) -> int:
        """Parameters of all LoRA factors."""
        return sum(layer.parameters for layer in self.layers)

    @property
    def relative_error(self) -> float:
        """The relative error over all layers."""
        error: float = (1 - self.kept_energy) ** 0.5
        return error

    def update_of(self, update: LayerUpdate) -> Tensor | None:
        """B A of one layer, (out, in) float32; None where nothing of it is kept."""
        pair = self.pairs.get(update.name)
        return None if pair is None else pair.b @ pair.a

    def state_dict(self) -> dict[str, Tensor]:
        """The tensors of PEFT's `adapter_model.safetensors`, with the modules trained whole."""
        return self.factors() | self.whole

    def factors(self) -> dict[str, Tensor]:
        """The tensors of the LoRA layers alone."""
        state = {}
        for name, pair in self.pairs.items():
            state[f"{IN_PEFT}{name}.lora_A.weight"] = pair.a
            state[f"{IN_PEFT}{name}.lora_B.weight"] = pair.b
        return state

    def save(self, folder: str | Path, modules_to_save: str = "refuse") -> Path:
        """Write PEFT's two files and `export_report.json` into `folder`; returns it.

        Args:
            folder: It is made where it is missing.
            modules_to_save: What becomes of modules that were trained whole, such as a head:
                `refuse`, `keep` them in the file, which PEFT reads and servers such as vLLM refuse,
                or `leave_out`, where `save_base` has put them into the base model.

        Raises:
            ValueError: There are such modules, and they are refused.
        """
        require_one_of("modules_to_save", modules_to_save, WHOLE)
        if self.whole and modules_to_save == "refuse":
            raise ValueError(
                f"the adapter trains {', '.join(self.config.modules_to_save or self.whole)} whole, "
                "which a LoRA for servers such as vLLM cannot hold: write the base model with them "
                "by adapters.export.save_base(model, FOLDER) and save this with "
                "modules_to_save='leave_out', or for PEFT alone with modules_to_save='keep'"
            )
        keep, config = modules_to_save == "keep", copy.copy(self.config)
        if self.whole and not keep:  # for a task with a head, PEFT would look for one in the file
            config.modules_to_save = config.task_type = None
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        tensors = self.state_dict() if keep else self.factors()
        state = {name: part.detach().cpu().contiguous().clone() for name, part in tensors.items()}
        save_file(state, folder / "adapter_model.safetensors", metadata={"format": "pt"})
        config.save_pretrained(str(folder))
        report = {
            "parameters": self.parameters,
            "source_parameters": self.source_parameters,
            "kept_energy": self.kept_energy,
            "relative_error": self.relative_error,
            "layers": [asdict(layer) for layer in self.layers],
        }
        (folder / "export_report.json").write_text(json.dumps(report, indent=1))
        return folder

    def table(self) -> str:
        """A table to print: rank, kept energy and error of every layer."""
        width = max(len(layer.name) for layer in self.layers)
        lines = [f"{'layer'.ljust(width)}  {'shape':>13}  rank  kept energy  relative error"]
        for layer in self.layers:
            shape = "x".join(map(str, layer.shape))
            numbers = f"{100 * layer.kept_energy:9.2f} %  {layer.relative_error:14.4f}"
            lines.append(f"{layer.name.ljust(width)}  {shape:>13}  {layer.rank:4d}  {numbers}")
        lines.append(
            f"{self.parameters:,} parameters ({self.source_parameters:,} trained), "
            f"{100 * self.kept_energy:.2f} % of the energy, error {self.relative_error:.4f}"
        )
        return "\n".join(lines)


def to_lora(
    model: nn.Module,
    *,
    rank: int | None = None,
    energy: float | None = None,
    budget: int | float | None = None,
    threshold: float | None = None,
    adapter: str = "default",
) -> LoraExport:
    """The additive adapter `adapter` of a PEFT model as LoRA, of unequal ranks.

    Exactly one of `rank`, `energy`, `budget` and `threshold` decides the ranks: see
    `rank_allocation`. A float `budget` is a share of the parameters that the adapter was
    trained with. Works on LoRA adapters too, where it is PARA itself.

    Raises:
        ValueError: The adapter is not additive or all zero, it trains what a LoRA cannot hold, its
            base model was changed, the rule is wrong, or nothing is kept.
    """
    _require_plain(model, adapter)
    updates = layer_updates(model, adapter)
    source = source_parameters(updates)
    ranks = allocate(
        updates, rank=rank, energy=energy, budget=budget, threshold=threshold, reference=source
    )
    if not any(ranks):
        raise ValueError("the rule keeps no singular value of any layer: allow more")
    return build(model, adapter, updates, ranks)


def build(
    model: nn.Module, adapter: str, updates: list[LayerUpdate], ranks: list[int]
) -> LoraExport:
    """The export with these ranks; with none at all it is the base model, and no file."""
    pairs: dict[str, Pair] = {}
    layers, kept_energy = [], 0.0
    for update, rank in zip(updates, ranks, strict=True):
        u, s, v = (part[..., :rank] for part in update.leading(max(rank, 1)))
        layer_energy = min(float(s.double().square().sum()), update.energy)
        kept_energy += layer_energy
        share = layer_energy / update.energy if update.energy else 1.0
        layers.append(LayerReport(update.name, update.shape, rank, share, (1 - share) ** 0.5))
        if rank:
            root = s.sqrt()
            pairs[update.name] = Pair((u * root).float(), (v * root).T.float())
    total = sum(update.energy for update in updates)
    return LoraExport(
        config=_config(model, adapter, {layer.name: layer.rank for layer in layers if layer.rank}),
        pairs=pairs,
        whole=_whole(model, adapter, updates),
        layers=layers,
        kept_energy=kept_energy / total,
        source_parameters=source_parameters(updates),
    )


def _config(model: nn.Module, adapter: str, ranks: dict[str, int]) -> LoraConfig:
    """alpha = rank everywhere: the scale is in the factors.

    `r` is the largest rank, and `lora_alpha / r` is 1: servers such as vLLM reserve room for `r`,
    scale by these two, and read no pattern.
    """
    largest = max(ranks.values(), default=1)
    config: Any = getattr(model, "peft_config", {}).get(adapter)
    pattern = {_key(name, ranks): rank for name, rank in ranks.items() if rank != largest}
    whole = getattr(config, "modules_to_save", None) or ()
    names = [name for name, _ in model.named_modules()]
    return LoraConfig(
        r=largest,
        lora_alpha=largest,
        rank_pattern=pattern,
        alpha_pattern=dict(pattern),
        target_modules=sorted(ranks),
        modules_to_save=[w for w in dict.fromkeys(whole) if any(n.endswith(w) for n in names)]
        or None,
        task_type=getattr(config, "task_type", None),
        base_model_name_or_path=getattr(config, "base_model_name_or_path", None),
        inference_mode=True,
    )


def _key(name: str, ranks: dict[str, int]) -> str:
    """`name`, or where another layer's name ends in it, a pattern that fits from the start only."""
    ambiguous = any(other != name and re.match(rf"(.*\.)({name})$", other) for other in ranks)
    return f"^{name}" if ambiguous else name


def _whole(model: nn.Module, adapter: str, updates: list[LayerUpdate]) -> dict[str, Tensor]:
    """What the file holds beside the adapter's own numbers."""
    if adapter in sums_of(model, adapter):
        return {}  # a weighted sum is of updates alone
    own = tuple(f"{IN_PEFT}{update.name}." for update in updates)
    state = get_peft_model_state_dict(model, adapter_name=adapter, save_embedding_layers=False)
    return {name: t for name, t in state.items() if not name.startswith(own)}


def source_parameters(updates: list[LayerUpdate]) -> int:
    """Numbers trained in the adapted layers; a shared number counts once."""
    sizes: dict[int, int] = {}
    for update in updates:
        summed = getattr(update.layer, "sums", {}).get(update.adapter, [update.adapter])
        for part, name in itertools.product(update.layer.adapter_layer_names, summed):
            entries = getattr(update.layer, part)
            if isinstance(entries, nn.ParameterDict | nn.ModuleDict) and name in entries:
                entry = entries[name]
                own = [entry] if isinstance(entry, nn.Parameter) else entry.parameters()
                sizes |= {id(p): p.numel() for p in own}
    return sum(sizes.values())


def _require_plain(model: nn.Module, adapter: str) -> None:
    """Refuse an adapter that is more than matrices added to the weights of the base model.

    Raises:
        ValueError: The message names what the adapter trains besides, and the remedy.
    """
    config: Any = getattr(model, "peft_config", {}).get(adapter)
    start = getattr(config, "init_lora_weights", None)
    if isinstance(start, str) and start.lower().startswith(_MUTATING):
        raise ValueError(
            f"`init_lora_weights` {start!r} has changed the base weights, so this LoRA fits no "
            "other copy of the base model: save it by PEFT with "
            "path_initial_model_for_weight_conversion, and export the result"
        )
    if getattr(config, "bias", "none") != "none" or getattr(config, "lora_bias", False):
        raise ValueError(
            "the adapter trains biases, which an exported LoRA cannot hold: train with bias='none' "
            "and lora_bias=False, or merge"
        )
    if getattr(config, "trainable_token_indices", None):
        raise ValueError(
            "the adapter trains single tokens (`trainable_token_indices`), which an exported LoRA "
            "cannot hold: merge instead"
        )
