"""How the ranks of an adapter's updates are spread over the model: by part and by depth."""

import statistics
from collections.abc import Callable, Mapping, Sequence

from torch import nn

from adapters.module_names import block_of, depths
from adapters.placement import matches
from adapters.spectrum.modules import ModuleSpectrum

MEASURES: Mapping[str, Callable[[ModuleSpectrum], float]] = {
    "stable_rank": lambda module: module.stable_rank,
    "effective_rank": lambda module: module.effective_rank,
    "rank": lambda module: float(module.rank),
}


def rank_statistics(model: nn.Module, modules: Sequence[ModuleSpectrum]) -> dict[str, float]:
    """Numbers that say how ranks differ between the adapted `modules` of `model`.

    `PART/MEASURE` is the mean over modules of a measure (`stable_rank`, `effective_rank`, `rank`)
    in a part of the model (`all`, `attention`, `mlp`), and with `_spread` the standard deviation.
    With `_early` and `_late` it is the mean over the first and the last third of the blocks, and
    with `_rise` what the last third has more. `all/raised_share` is the share of modules whose phi
    has raised the stable rank of B A. What no module belongs to is left out.
    """
    depth = depths([module.name for module in modules])
    adapted = {name: name.removeprefix("base_model.model.") for name, _ in model.named_modules()}
    names = [name for name, own in adapted.items() if own in depth]
    attention = {adapted[name] for name in matches(model, "attention", names)}
    parts = {
        "all": list(modules),
        "attention": [m for m in modules if m.name in attention],
        "mlp": [m for m in modules if m.name not in attention and block_of(m.name) is not None],
    }
    found: dict[str, float] = {}
    for part, own in parts.items():
        inside = [m for m in own if block_of(m.name) is not None]
        early = [m for m in inside if depth[m.name] < 1 / 3]
        late = [m for m in inside if depth[m.name] >= 2 / 3]
        for measure, of in MEASURES.items() if own else ():
            name = f"{part}/{measure}"
            found[name] = statistics.fmean(map(of, own))
            found[f"{name}_spread"] = statistics.pstdev(map(of, own))
            if early and late:
                first, last = (statistics.fmean(map(of, third)) for third in (early, late))
                found |= {f"{name}_early": first, f"{name}_late": last}
                found[f"{name}_rise"] = last - first
    raised = [m.stable_rank > m.usage.product_stable_rank for m in modules if m.usage is not None]
    return found | ({"all/raised_share": statistics.fmean(raised)} if raised else {})
