"""How ranks and sizes of phi are spread over the model: by part and by depth."""

import statistics
from collections.abc import Mapping, Sequence

from torch import nn

from adapters.placement.module_names import IN_PEFT, block_of, depths
from adapters.placement.targets import matches
from adapters.spectrum.modules import ModuleSpectrum
from adapters.spectrum.sizes import SIZES, phi_sizes

Values = Mapping[str, Mapping[str, float]]
"""Numbers of modules: what each is called, by the module's name."""


def part_statistics(model: nn.Module, values: Values) -> dict[str, float]:
    """How numbers of adapted modules of `model` differ by part and depth, called `PART/NUMBER`.

    It is the mean over the modules of a part of the model (`all`, `attention`, `mlp`), and with
    `_spread` the standard deviation. With `_early` and `_late` it is the mean over the first and
    the last third of the blocks, with `_rise` what the last third has more, and with `_slope` the
    least-squares slope over depth, which is 0 in the first block and 1 in the last. What no module
    belongs to is left out, and so is a slope where all are in one block.
    """
    depth = depths(list(values))
    adapted = {name: name.removeprefix(IN_PEFT) for name, _ in model.named_modules()}
    names = [name for name, own in adapted.items() if own in depth]
    attention = {adapted[name] for name in matches(model, "attention", names)}
    parts = {
        "all": list(values),
        "attention": [name for name in values if name in attention],
        "mlp": [n for n in values if n not in attention and block_of(n) is not None],
    }
    numbers: dict[str, float] = {}
    for part, own in parts.items():
        for number in dict.fromkeys(key for name in own for key in values[name]):
            values_of_number = {
                name: values[name][number] for name in own if number in values[name]
            }
            places = [
                (depth[n], value)
                for n, value in values_of_number.items()
                if block_of(n) is not None
            ]
            numbers |= {
                f"{part}/{number}": statistics.fmean(values_of_number.values()),
                f"{part}/{number}_spread": statistics.pstdev(values_of_number.values()),
            } | {f"{part}/{number}{end}": value for end, value in _by_depth(places).items()}
    return numbers


def _by_depth(places: Sequence[tuple[float, float]]) -> dict[str, float]:
    """How values grow with depth, by the suffix of each statistic."""
    numbers: dict[str, float] = {}
    early = [value for depth, value in places if depth < 1 / 3]
    late = [value for depth, value in places if depth >= 2 / 3]
    if early and late:
        first, last = statistics.fmean(early), statistics.fmean(late)
        numbers = {"_early": first, "_late": last, "_rise": last - first}
    if len({depth for depth, _ in places}) > 1:
        numbers["_slope"] = statistics.linear_regression(*zip(*places, strict=True)).slope
    return numbers


def rank_statistics(model: nn.Module, modules: Sequence[ModuleSpectrum]) -> dict[str, float]:
    """Numbers that say how ranks differ between the adapted `modules` of `model`.

    `part_statistics` of `stable_rank`, `effective_rank` and `rank`; `all/raised_share` is the share
    of modules whose phi has raised the stable rank of B A.
    """
    values = {
        m.name: {"stable_rank": m.stable_rank, "effective_rank": m.effective_rank, "rank": m.rank}
        for m in modules
    }
    numbers = part_statistics(model, values)
    raised = [m.stable_rank > m.usage.product_stable_rank for m in modules if m.usage is not None]
    return numbers | ({"all/raised_share": statistics.fmean(raised)} if raised else {})


def size_statistics(model: nn.Module, start: Values | None = None) -> dict[str, float]:
    """Numbers that say how large the amplitudes and bandwidths of the phis of `model` are.

    `part_statistics` of what `phi_sizes` returns. Given `start`, what it returned before training,
    `_start` is the mean at that time and `_change` how much larger it is now.
    """
    numbers = part_statistics(model, phi_sizes(model))
    before = part_statistics(model, start or {})
    for name in [f"{part}/{size}" for part in ("all", "attention", "mlp") for size in SIZES]:
        if name in numbers and name in before:
            numbers[f"{name}_start"] = before[name]
            numbers[f"{name}_change"] = numbers[name] - before[name]
    return numbers
