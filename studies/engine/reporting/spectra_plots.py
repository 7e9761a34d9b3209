"""Figures of what arms look like inside: ranks by depth, spectra, utilization, and phi itself."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from matplotlib.figure import Figure

from studies.engine.definition.sections import SPECTRA
from studies.engine.reporting.outcome import Outcome
from studies.engine.reporting.panels import about, labels, styles

if TYPE_CHECKING:
    from studies.engine.trials.spectra_file import Inside


def figures(outcome: Outcome, trials_dir: Path) -> dict[str, Figure]:
    """Figures by file name, one line an arm, from the first seed of each that kept its spectra.

    Args:
        outcome: Of the study.
        trials_dir: Holds `<key>/spectra.npz`.
    """
    keys = [arm.keys[seed] for arm in outcome.arms for seed in arm.values]
    if not any((trials_dir / key / SPECTRA).exists() for key in keys):
        return {}
    # with torch and peft, which other reports do without
    from adapters.spectrum.plots import plot_depth, plot_phi, plot_spectra
    from studies.engine.trials.spectra_file import read_spectra

    found: dict[str, Inside] = {}
    for arm in outcome.arms:
        kept = (read_spectra(trials_dir / arm.keys[seed]) for seed in arm.values)
        if (inside := next(filter(None, kept), None)) is not None:
            found[arm.name] = inside
    if not found:
        return {}
    names, looks = labels(outcome), styles(outcome)
    # arms that were drawn elsewhere keep their colours
    drawn: dict[str, Any] = {
        "styles": {names[arm]: look for arm, look in looks.items()},
        "about": f"one trial of each arm; {about(outcome)}",
    }
    modules = {names[arm]: inside.modules for arm, inside in found.items()}
    made = {
        "stable_rank": plot_depth(modules, **drawn),
        "spectra": plot_spectra(modules, **drawn),
    }
    curves = {names[arm]: inside.curves for arm, inside in found.items() if inside.curves}
    if curves:
        with_phi = {name: modules[name] for name in curves}
        made["utilization"] = plot_depth(with_phi, "utilization", **drawn)
        first = [curve.name for curve in next(iter(curves.values()))]
        alike = {n: c for n, c in curves.items() if [curve.name for curve in c] == first}
        made["phi"] = plot_phi(alike, **drawn)
    return made
