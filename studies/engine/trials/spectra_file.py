"""What an adapter looks like inside, beside its result: `spectra.npz` in the run folder.

    about                       JSON: names, kinds, blocks, and what is a number of each
    values_<i>, product_<i>     singular values of the update and of B A of module i
    curve_<i>                   phi of module i, (2, points): x over the range of B A, and phi(x)
    amplitude_<i>, bandwidth_<i>, grid_<i>, slope_<i>, offset_<i>   its numbers in force

`spectra-100.npz` is of the model after step 100 of its training.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from adapters.spectrum import ModuleSpectrum, PhiCurve, phi_curves, spectra
from adapters.spectrum.modules import PhiUsage
from basis_zoo import PhiParameters
from studies.archives.unpack import DAMAGED
from studies.engine.definition.sections import SPECTRA

_STEP = re.compile(r"spectra-(\d+)\.npz")
POINTS = 101
"""At which each phi is kept, over the range of its own x."""


class Inside(NamedTuple):
    """The adapted modules of one trial, in the model's order."""

    modules: list[ModuleSpectrum]
    curves: list[PhiCurve]
    """Empty for methods without phi."""


def name_of(step: int | None) -> str:
    """The file of what was trained, or of the model after `step`."""
    return SPECTRA if step is None else f"spectra-{step}.npz"


def saved_steps(folder: Path) -> list[int]:
    """The steps of the training whose files lie in `folder`, rising."""
    return sorted(int(hit[1]) for path in folder.iterdir() if (hit := _STEP.fullmatch(path.name)))


def write_spectra(
    model: nn.Module, folder: Path, before: nn.Module | None = None, step: int | None = None
) -> list[ModuleSpectrum]:
    """Decompose the updates of `model` after `step` (None: the last); keep them in `folder`.

    `before` is the model as it was, needed where the method adds no matrix to the weight.
    """
    modules, curves = spectra(model, before=before), phi_curves(model, count=POINTS)
    about = {
        "modules": [
            [m.name, m.kind, m.block, m.shape, None if m.usage is None else tuple(m.usage)]
            for m in modules
        ],
        "curves": [[c.name, c.kind, c.block, c.used] for c in curves],
    }
    arrays: dict[str, Any] = {"about": np.array(json.dumps(about))}
    for i, module in enumerate(modules):
        arrays[f"values_{i}"] = module.values.float().cpu().numpy()
        if module.product_values is not None:
            arrays[f"product_{i}"] = module.product_values.float().cpu().numpy()
    for i, curve in enumerate(curves):
        arrays[f"curve_{i}"] = torch.stack([curve.x, curve.y]).numpy()
        for name, numbers in curve.parameters._asdict().items() if curve.parameters else ():
            arrays[f"{name}_{i}"] = numbers.float().numpy()
    np.savez_compressed(folder / name_of(step), **arrays)
    return modules


def read_spectra(folder: Path, step: int | None = None) -> Inside | None:
    """What `write_spectra` kept in `folder`; None where there is nothing whole."""
    try:
        path = folder / name_of(step)
        with np.load(path, allow_pickle=False) as file:
            about = json.loads(str(file["about"]))
            arrays = {key: torch.from_numpy(file[key]) for key in file.files if key != "about"}
        modules = [
            ModuleSpectrum(
                name, kind, block, tuple(shape), arrays[f"values_{i}"].double(),
                arrays.get(f"product_{i}"), None if usage is None else PhiUsage(*usage),
            )
            for i, (name, kind, block, shape, usage) in enumerate(about["modules"])
        ]  # fmt: skip
        curves = [
            PhiCurve(name, kind, block, x, y, used, _numbers(arrays, i))
            for i, (name, kind, block, used) in enumerate(about["curves"])
            for x, y in (arrays[f"curve_{i}"],)
        ]
    except (FileNotFoundError, KeyError, TypeError, *DAMAGED):
        return None
    return Inside(modules, curves)


def _numbers(arrays: Mapping[str, Tensor], i: int) -> PhiParameters | None:
    """Those of phi i; None in what an earlier version kept."""
    names = [f"{name}_{i}" for name in PhiParameters._fields]
    return PhiParameters(*map(arrays.__getitem__, names)) if names[0] in arrays else None
