"""Tables and a plot from the files of runs."""

import json
from pathlib import Path
from typing import Any

from bench.adapter.record import Row, row_of

BEGIN, END = "<!-- bench: begin -->", "<!-- bench: end -->"
"""Lines of a document between which the tables stand."""
PLOT = "step_time.png"


def write(files: list[Path], into: Path | None) -> None:
    """Print the tables of `files`, or put them into the document `into`, with a plot beside it.

    Raises:
        ValueError: The document lacks the two lines between which the tables go.
    """
    runs = [json.loads(path.read_text(encoding="utf-8")) for path in files]
    text = "\n\n".join(page(record) for record in runs)
    if into is None:
        print(text)
        return
    has_plot = draw([record for record in runs if record["curves"]], into.with_name(PLOT))
    if has_plot:
        text += f"\n\n![Both passes of one update against the number of functions]({PLOT})"
    before, begin, rest = into.read_text(encoding="utf-8").partition(f"{BEGIN}\n")
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"{into} needs a line {BEGIN!r} and below it a line {END!r}")
    into.write_text(f"{before}{begin}\n{text}\n\n{end}{after}", encoding="utf-8")


def page(record: dict[str, Any]) -> str:
    """The tables of one run in Markdown."""
    rows = [row_of(row) for row in record["rows"]]
    versions = ", ".join(f"{name} {version}" for name, version in record["versions"].items())
    quick = ", a quick run" if record["quick"] else ""
    head = f"{record['device']}, {record['date']}, commit {record['commit']}{quick} ({versions})."
    count = len(record["checks"])
    parts = [f"### {record['device']}", f"{head} {count} comparisons with float64 passed first."]
    goals = [row for row in rows if row.goal is not None]
    if goals:
        goals_met = sum(row.is_met is True for row in goals)
        parts += [f"Goals met: {goals_met} of {len(goals)}.", _table(goals)]
    others = [row for row in rows if row.goal is None]
    if others:
        parts.append(_table(others))
    return "\n\n".join(parts)


def _table(rows: list[Row]) -> str:
    lines = ["| what | figure | goal | ours | against | |", "|---|---:|---|---:|---|---|"]
    for row in rows:
        goal = ""
        if row.goal is not None:
            verdict = {True: "met", False: "**missed**", None: "not measured"}[row.is_met]
            goal = f"{'≥' if row.at_least else '≤'} {row.goal:g}: {verdict}"
        ours = "" if row.ours is None else f"{row.ours:.4g} {row.unit}".strip()
        other = "" if row.other is None else f"{row.other:.4g} {row.unit}".strip()
        against = f"{row.against}: {other}" if other else row.against
        value = "–" if row.value is None else f"{row.value:.3g}"
        lines.append(f"| {row.what} | {value} | {goal} | {ours} | {against} | {row.note} |")
    return "\n".join(lines)


def draw(runs: list[dict[str, Any]], path: Path) -> bool:
    """Milliseconds over G, one panel a device; whether there was anything to draw."""
    if not runs:
        return False
    from basis_zoo.drawing.layout import finish, panels  # need matplotlib
    from basis_zoo.drawing.styles import arm_styles

    looks = arm_styles([curve["label"] for record in runs for curve in record["curves"]])
    figure, axes_of = panels(len(runs), columns=2, height=3.4)
    for record, axes in zip(runs, axes_of, strict=True):
        for curve in record["curves"]:
            look = looks[curve["label"]].line(len(curve["x"]))
            axes.plot(curve["x"], curve["y"], label=curve["label"], **look)
        axes.set(xscale="log", yscale="log", xlabel="G, number of functions", ylabel="ms")
        axes.set_title(record["device"])
    finish(figure, "Time of both passes of one update against the number of functions")
    figure.savefig(path)
    return True
