"""What a trained adapter looks like inside, beside its result: `spectra.npz` in the run folder."""

import json
import zipfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from adapters.spectrum import ModuleSpectrum, PhiCurve, phi_curves, spectra
from adapters.spectrum.modules import PhiUsage
from studies.engine.definition.sections import SPECTRA

NAME = SPECTRA
POINTS = 101
"""At which each phi is kept, over the range of its own x."""


class Inside(NamedTuple):
    """The adapted modules of one trial, in the model's order."""

    modules: list[ModuleSpectrum]
    curves: list[PhiCurve]
    """Empty for methods without phi."""


def write_spectra(
    model: nn.Module, folder: Path, before: nn.Module | None = None
) -> list[ModuleSpectrum]:
    """Decompose the updates of `model` and keep what they show in `folder`.

    Args:
        model: The trained model.
        folder: The trial's.
        before: The model as it was; needed where the method adds no matrix to the weight.
    """
    modules, curves = spectra(model, before=before), phi_curves(model, count=POINTS)
    about = {
        "modules": [
            [m.name, m.kind, m.block, m.shape, None if m.usage is None else tuple(m.usage)]
            for m in modules
        ],
        "curves": [[c.name, c.kind, c.block, c.used] for c in curves],
    }
    arrays = {"about": np.array(json.dumps(about))}
    for i, module in enumerate(modules):
        arrays[f"values_{i}"] = module.values.float().cpu().numpy()
        if module.product_values is not None:
            arrays[f"product_{i}"] = module.product_values.float().cpu().numpy()
    for i, curve in enumerate(curves):
        arrays[f"curve_{i}"] = torch.stack([curve.x, curve.y]).numpy()
    np.savez_compressed(folder / NAME, **arrays)
    return modules


def read_spectra(folder: Path) -> Inside | None:
    """What `write_spectra` kept in `folder`; None where there is nothing whole."""
    try:
        with np.load(folder / NAME, allow_pickle=False) as file:
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
            PhiCurve(name, kind, block, *arrays[f"curve_{i}"], used)
            for i, (name, kind, block, used) in enumerate(about["curves"])
        ]
    except (FileNotFoundError, EOFError, KeyError, ValueError, TypeError, zipfile.BadZipFile):
        return None
    return Inside(modules, curves)
