"""Figures of what arms look like inside: ranks by depth, spectra, utilization, and phi itself."""

from pathlib import Path

from matplotlib.figure import Figure

from adapters.spectrum.plots import plot_depth, plot_phi, plot_spectra
from studies.engine.reporting.outcome import Outcome
from studies.engine.trials.spectra_file import Inside, read_spectra


def figures(outcome: Outcome, trials_dir: Path) -> dict[str, Figure]:
    """Figures by file name, one line an arm, from the first seed of each that kept its spectra.

    Args:
        outcome: Of the study.
        trials_dir: Holds `<key>/spectra.npz`.
    """
    found: dict[str, Inside] = {}
    for arm in outcome.arms:
        kept = (read_spectra(trials_dir / arm.keys[seed]) for seed in arm.values)
        if (inside := next(filter(None, kept), None)) is not None:
            found[arm.name] = inside
    if not found:
        return {}
    modules = {name: inside.modules for name, inside in found.items()}
    made = {"stable_rank": plot_depth(modules), "spectra": plot_spectra(modules)}
    curves = {name: inside.curves for name, inside in found.items() if inside.curves}
    if curves:
        made["utilization"] = plot_depth({name: modules[name] for name in curves}, "utilization")
        names = [curve.name for curve in next(iter(curves.values()))]
        alike = {n: c for n, c in curves.items() if [curve.name for curve in c] == names}
        made["phi"] = plot_phi(alike)
    return made
