"""A search as Markdown and as a figure: accuracy against parameters, with the Pareto set."""

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure

from basis_zoo.drawing.layout import finish, panels
from basis_zoo.drawing.styles import GREY, PAPER
from studies.engine.labels import short_names, short_value
from studies.engine.reporting.outcome import Outcome
from studies.engine.reporting.panels import BASELINE, nan_for_none, styles, title
from studies.engine.reporting.search_outcome import FEW_POINTS, SearchOutcome, SearchPoint
from studies.engine.reporting.tables import NONE, table


def markdown(search: SearchOutcome) -> str:
    """The section on the search."""
    states = [point.state for point in search.points]
    counts = ", ".join(
        f"{states.count(state)} {state}"
        for state in ("done", "pruned", "failed")
        if state in states
    )
    about = (
        f"{len(search.points)} of {search.trials} points ({counts or 'none yet'}) of "
        f"`{search.arm}`, chosen by {'TPE' if search.sampler == 'tpe' else 'chance'}, each trained "
        f"once with seed {search.seed}. `{search.metrics[0]}` chooses; the seeds of `{search.arm}` "
        f"are trained with the chosen point (**bold**). `{search.reported}` of a point stands "
        "beside it and decided "
        "nothing; what a chosen point has on validation is optimistic."
    )
    parts = [f"## Search\n\n{about}"]
    if len(search.metrics) > 1 and search.front:
        parts.append("### Pareto set\n\n" + _points(search, search.front))
    parts.append("### What decides\n\n" + _importances(search))
    if search.points:
        parts.append("### Every point\n\n" + _points(search, search.points))
    return "\n\n".join(parts)


def figures(search: SearchOutcome, outcome: Outcome) -> dict[str, Figure]:
    """The first objective against the second; none for one objective or no finished point."""
    drawn = len(search.metrics) > 1 and any(point.values for point in search.points)
    return {"search": _front(search, outcome)} if drawn else {}


def _front(search: SearchOutcome, outcome: Outcome) -> Figure:
    """Both splits against the second objective; the front is that of validation on both."""
    figure, (left, right) = panels(2, height=4.0, sharey=True)
    look = styles(outcome).get(search.arm)  # none before its seeds are trained
    own = PAPER if look is None else look.colour
    done = [point for point in search.points if point.values]
    sizes = [point.values[1] for point in done]
    for axes, metric, heights in (
        (left, search.metrics[0], {point.name: point.values[0] for point in done}),
        (right, search.reported, {p.name: p.reported for p in done if p.reported is not None}),
    ):
        for points, marker, colour, label in (
            ([p for p in done if not p.on_front], "o", GREY, "point"),
            ([p for p in search.front if not p.chosen], "D", own, "on the front of validation"),
            ([p for p in done if p.chosen], "*", own, f"chosen for {search.arm}"),
        ):
            known = [(p.values[1], heights[p.name]) for p in points if p.name in heights]
            if known:
                size = 13 if marker == "*" else 5.5
                axes.plot(*zip(*known, strict=True), marker, color=colour, ms=size, label=label,
                          alpha=0.85, zorder=3)  # fmt: skip
        line = sorted((p.values[1], heights[p.name]) for p in search.front if p.name in heights)
        if line:
            axes.plot(*zip(*line, strict=True), "-", color=own, lw=1.2, zorder=2)
        axes.set(title=metric, xlabel=search.metrics[1], ylabel=metric)
        if min(sizes) > 0 and max(sizes) / min(sizes) > 5:
            axes.set_xscale("log")
            axes.set_xlabel(f"{search.metrics[1]} (log scale)")
    if outcome.reference is not None:
        (mean,) = nan_for_none([outcome.reference.summary.mean])
        name = f"{outcome.baseline}, mean over its seeds"
        right.axhline(mean, label=name, **BASELINE)
    note = "Every point was trained once. The line joins the front of validation in both panels."
    return finish(figure, title(outcome, f"search of {len(done)} finished points"), note)


def _points(search: SearchOutcome, points: Sequence[SearchPoint]) -> str:
    names = short_names(points[0].settings)
    head = ["point", *names.values(), *search.metrics, search.reported, "state"]
    rows = []
    for point in points:
        values = [_number(value) for value in point.values] or [NONE] * len(search.metrics)
        mark = "**" if point.chosen else ""
        state = point.state if not point.message else f"{point.state}: {point.message}"
        rows.append(
            [
                f"{mark}{point.name}{mark}",
                *(short_value(point.settings[path]) for path in names),
                *values,
                NONE if point.reported is None else _number(point.reported),
                "on the front" if point.on_front and len(search.metrics) > 1 else state,
            ]
        )
    return table(head, rows)


def _importances(search: SearchOutcome) -> str:
    if not search.importances:
        done = sum(bool(point.values) for point in search.points)
        return f"{done} finished points are too few to say; it takes {FEW_POINTS}."
    first = search.importances[0]
    paths = sorted(search.points[0].settings, key=lambda path: -first.get(path, 0.0))
    names: Mapping[str, str] = short_names(paths)
    rows = [
        [
            names[path],
            *(f"{shares.get(path, 0.0):.0%}" if shares else NONE for shares in search.importances),
        ]
        for path in paths
    ]
    about = (
        "Importance of each setting for being among the best tenth of the finished points, by "
        "PED-ANOVA (Watanabe et al. 2023); the shares sum to 1 in each column. A column of "
        f"{NONE}: no setting decides it."
    )
    return f"{about}\n\n{table(['setting', *search.metrics], rows)}"


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4f}"
