"""Figures of what arms look like inside: ranks by depth, spectra, utilization, and phi itself.

Of an arm that was also looked at in its training there are figures with a line for each time.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from matplotlib.figure import Figure

from basis_zoo.drawing.styles import arm_styles
from studies.engine.definition.sections import BANDWIDTH_SIZES, SPECTRA
from studies.engine.reporting.outcome import Outcome
from studies.engine.reporting.panels import about, file_names, first_kept, labels, styles

if TYPE_CHECKING:
    from studies.engine.trials.spectra_file import Inside

END = "end"
"""What the time of the trained model is called."""


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

    spectra = first_kept(outcome, trials_dir, read_spectra)
    if not spectra:
        return {}
    names, looks = labels(outcome), styles(outcome)
    # arms that were drawn elsewhere keep their colours
    drawn: dict[str, Any] = {
        "styles": {names[arm]: look for arm, look in looks.items()},
        "about": f"one trial of each arm; {about(outcome)}",
    }
    modules = {names[arm]: inside.modules for arm, (_, inside) in spectra.items()}
    drawings = {
        "stable_rank": plot_depth(modules, **drawn),
        "spectra": plot_spectra(modules, **drawn),
    }
    curves = {names[arm]: inside.curves for arm, (_, inside) in spectra.items() if inside.curves}
    if curves:
        with_phi = {name: modules[name] for name in curves}
        drawings["utilization"] = plot_depth(with_phi, "utilization", **drawn)
        first = [curve.name for curve in next(iter(curves.values()))]
        alike = {n: c for n, c in curves.items() if [curve.name for curve in c] == first}
        drawings["phi"] = plot_phi(alike, **drawn)
    for name, file in file_names(spectra, odd=r"[^A-Za-z0-9.=]+").items():
        title = f"one trial of {names[name]}; {about(outcome)}"
        drawings |= _over_time(title, file, _times(*spectra[name]))
    return drawings


def _times(folder: Path, end: "Inside") -> dict[str, tuple[float, "Inside"]]:
    """Each time of a trial's training with its place on the scale, and the end unless it is one."""
    from studies.engine.trials.spectra_file import read_spectra, saved_steps

    times: dict[str, tuple[float, Inside]] = {}
    for step in saved_steps(folder):
        if (inside := read_spectra(folder, step)) is not None:
            times[f"step {step}"] = float(step), inside
    if times and not _same(list(times.values())[-1][1], end):
        times[END] = float("inf"), end
    return times


def _same(one: "Inside", other: "Inside") -> bool:
    updates = zip(one.modules, other.modules, strict=True)
    phis = zip(one.curves, other.curves, strict=True)
    return all(a.values.equal(b.values) for a, b in updates) and all(
        a.y.equal(b.y) for a, b in phis
    )


def _over_time(
    title: str, file: str, times: Mapping[str, tuple[float, "Inside"]]
) -> dict[str, Figure]:
    """Figures of one arm, one line a time, on a scale of colours; none without times."""
    if not times:
        return {}
    from adapters.spectrum.plots import plot_depth, plot_phi

    scale = [{name: place for name, (place, _) in times.items()}]
    drawn: dict[str, Any] = {"styles": arm_styles(list(times), sweeps=scale), "about": title}
    modules = {name: inside.modules for name, (_, inside) in times.items()}
    drawings = {f"stable_rank_over_time_{file}": plot_depth(modules, "stable_rank", **drawn)}
    curves = {name: inside.curves for name, (_, inside) in times.items() if inside.curves}
    if curves:
        drawings[f"phi_over_time_{file}"] = plot_phi(
            curves, what="φ in the course of training", each_line="time", **drawn
        )
        has = {size for own in curves.values() for curve in own for size in curve.numbers()}
        sizes = [size for size in ("amplitude_norm", BANDWIDTH_SIZES[-1]) if size in has]
        drawings[f"sizes_over_time_{file}"] = plot_depth(curves, *sizes, **drawn)
    return drawings
