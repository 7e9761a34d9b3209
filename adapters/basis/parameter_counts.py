"""How many numbers an adapter trains, module kind by module kind."""

from collections import defaultdict
from typing import NamedTuple

from torch import nn

from adapters.basis.layers import BasisLayer
from adapters.placement.module_names import short_kind


class Counts(NamedTuple):
    """Trained numbers of some modules; a shared number counts once."""

    modules: int
    factors: int
    """Numbers of A and B."""
    phi: int
    """Numbers of the nonlinearities, input scales included."""
    unshared_phi: int
    """What `phi` would be without sharing."""


def count_kinds(model: nn.Module, adapter: str = "default") -> dict[str, Counts]:
    """The counts of each kind of module, in order of appearance, and of all under `total`.

    A number shared between kinds counts for the first.
    """
    factors: dict[str, int] = defaultdict(int)
    phi: dict[str, int] = defaultdict(int)
    unshared: dict[str, int] = defaultdict(int)
    modules: dict[str, int] = defaultdict(int)
    seen: set[int] = set()
    for name, layer in model.named_modules():
        if not isinstance(layer, BasisLayer) or adapter not in layer.basis_phi:
            continue
        kind = short_kind(name)
        modules[kind] += 1
        for factor in (f[adapter] for f in (layer.basis_A, layer.basis_B) if adapter in f):
            factors[kind] += 0 if id(factor) in seen else factor.numel()
            seen.add(id(factor))
        for parts in (layer.basis_phi, layer.basis_scale):
            for parameter in parts[adapter].parameters() if adapter in parts else ():
                unshared[kind] += parameter.numel()
                phi[kind] += 0 if id(parameter) in seen else parameter.numel()
                seen.add(id(parameter))
    counts = {k: Counts(modules[k], factors[k], phi[k], unshared[k]) for k in modules}
    return counts | {"total": Counts(*(sum(c) for c in zip(*counts.values(), strict=True)))}


def parameter_table(model: nn.Module, adapter: str = "default") -> str:
    """A table to print: modules, factors and phi by kind, what sharing saves, phi's share.

    Raises:
        ValueError: The model has no such adapter.
    """
    if not any(isinstance(m, BasisLayer) and adapter in m.basis_phi for m in model.modules()):
        raise ValueError(f"no module of {type(model).__name__} carries a basis adapter {adapter!r}")
    header = ("modules of a block", "number", "A and B", "phi", "phi unshared", "phi / A and B")
    rows: list[tuple[str, ...]] = [header]
    for kind, c in count_kinds(model, adapter).items():
        share = f"{100 * c.phi / c.factors:.2f} %" if c.factors else "all"
        rows.append((kind, *(f"{n:,}" for n in c), share))
    widths = [max(len(row[i]) for row in rows) for i in range(len(header))]
    lines = [
        "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in rows
    ]
    return "\n".join([lines[0], "  ".join("-" * w for w in widths), *lines[1:]])
