"""The figure of docs/results.md: every arm of every study on GPUs against LoRA.

python -m tools.arms_figure docs/arms.png
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

from basis_zoo.drawing.layout import finish, panels
from basis_zoo.drawing.styles import GREY, INK, PAPER
from studies.engine.labels import span
from studies.engine.verdicts.statistics import Comparison, compare_arms
from tools.figures import shrink
from tools.pages import asked_file
from tools.results_index import RESULTS, read_reports

LORAS = {
    "base_rank": {r"r=(\d+)(.*)": r"lora-\1\2"},
    "learning_rate": {r"learning_rate=(.*)": r"lora \1"},
    "model_scale": {r"(small|large) .*": r"\1 lora"},
    "robustness": {r"rate-(half|double)": r"lora-rate-\1", ".*": "lora"},
}
"""Study to patterns of arms, each with the LoRA that they stand against; others: the baseline."""
EDGES = (-6.0, 6.0)
"""In points; what lies outside is drawn at the edge."""
LEVEL = 0.05
_BETTER, _WORSE = "#0072B2", "#CC79A7"
_ROW, _GAP = 1.0, 2.0
_NOTE = (
    "Points: differences in accuracy, paired by seed, with 95 % intervals. Coloured where "
    f"p < {LEVEL} after Holm's correction over the study's arms. Filled marks learn a φ, hollow "
    f"ones do not. Arrows: more than {EDGES[1]:g} points away, most arms at chance. The same runs "
    "of LoRA and of LR-LoRA stand in many studies, so studies are not independent."
)


class Row(NamedTuple):
    """One arm."""

    name: str
    comparison: Comparison
    learns_phi: bool
    published: float | None
    """The paper's difference from its own LoRA, where the study names one of its tables."""


def rows_of(report: Mapping[str, Any]) -> list[Row]:
    """The arms of one report against LoRA, in the report's order."""
    values = {a["arm"]: {int(s): v for s, v in a["seeds"].items()} for a in report["arms"]}
    against = {name: _lora_of(name, report) for name in values}
    loras = set(against.values())
    # differences from LoRA, so that Holm's correction is over all arms, whichever LoRA is theirs
    gains = {
        name: {
            seed: v - values[lora][seed] for seed, v in values[name].items() if seed in values[lora]
        }
        for name, lora in against.items()
        if name not in loras
    }
    zero = {seed: 0.0 for own in values.values() for seed in own}
    compared = compare_arms({"": zero, **gains}, "")
    rows = []
    for arm in report["arms"]:
        found = compared.get(arm["arm"])
        if found is None or found.difference is None:
            continue
        learns_phi = bool((arm["cost"] or {}).get("phi_parameters"))
        published = (arm["published"] or {}).get("difference")
        rows.append(Row(arm["arm"], found, learns_phi, published))
    return rows


def _lora_of(arm: str, report: Mapping[str, Any]) -> str:
    """The arm of plain LoRA that `arm` stands against."""
    names = [each["arm"] for each in report["arms"]]
    for pattern, lora in LORAS.get(report["study"], {}).items():
        found = re.fullmatch(pattern, arm)
        if found is not None and (name := found.expand(lora)) in names:
            return name
    return str(report["baseline"])


def studies_on_gpus() -> Iterator[tuple[str, list[Row]]]:
    """Every committed report of a GPU profile, by name, with its arms."""
    for _, report in read_reports(RESULTS):
        if report["profile"] != "embedded" and report["metric"].endswith("accuracy"):
            if not (rows := rows_of(report)):
                continue  # no arm has a seed in common with LoRA
            counts = [len(row.comparison.seeds) for row in rows]
            profile = "" if report["profile"] == "gpu" else f" {report['profile']}"
            yield f"{report['study']}{profile}, {span(min(counts), max(counts))} seeds", rows


def figure(studies: Sequence[tuple[str, list[Row]]]) -> Figure:
    """Two columns of studies; each arm is a line of its own, in the order of its report."""
    heights = [len(rows) * _ROW + _GAP for _, rows in studies]
    half, cut = sum(heights) / 2, 1
    while sum(heights[:cut]) < half:
        cut += 1
    columns = [studies[:cut], studies[cut:]]
    drawing, axes = panels(2, columns=2, height=max(2.5, 0.07 * half))
    for each, column in zip(axes, columns, strict=True):
        _draw(each, column)
    return finish(drawing, "Every arm of every study on GPUs, against LoRA", _NOTE)


def _draw(axes: Axes, studies: Sequence[tuple[str, list[Row]]]) -> None:
    y, ticks = 0.0, {}
    for name, rows in studies:
        ticks[name] = y + _ROW * (len(rows) - 1) / 2
        for row in rows:
            _draw_row(axes, y, row)
            y += _ROW
        axes.axhline(y - _ROW + (_ROW + _GAP) / 2, color=GREY, lw=0.3)
        y += _GAP
    axes.axvline(0, color=INK, lw=1.0, ls="--", label="LoRA")
    axes.set(xlim=(EDGES[0] - 0.3, EDGES[1]), ylim=(y - _GAP, -_GAP), xlabel="points of accuracy")
    axes.set_yticks(list(ticks.values()), labels=list(ticks))
    axes.tick_params(axis="y", length=0)
    axes.grid(visible=False, axis="y")


def _draw_row(axes: Axes, y: float, row: Row) -> None:
    found = row.comparison
    assert found.difference is not None
    mean = 100 * found.difference
    told = found.p_holm is not None and found.p_holm < LEVEL
    colour, label = GREY, "not significantly different"
    if told:
        colour, label = (_BETTER, "better") if mean > 0 else (_WORSE, "worse")
    if row.published is not None and not _beyond(axes, y, 100 * row.published, PAPER):
        axes.plot(100 * row.published, y, "s", color=PAPER, ms=2.2, label="the paper")
    if _beyond(axes, y, mean, colour):
        return
    if found.low is not None and found.high is not None:
        axes.plot([100 * found.low, 100 * found.high], [y, y], color=colour, lw=0.9)
    face = colour if row.learns_phi else "white"
    axes.plot(mean, y, "o", color=colour, mfc=face, mew=0.8, ms=2.8, label=label)
    if told and mean > 0 and found.high is not None:
        axes.annotate(row.name, (100 * found.high, y), xytext=(3, 0), va="center", fontsize=5,
                      textcoords="offset points", color=colour, zorder=5,
                      path_effects=[withStroke(linewidth=1.5, foreground="white")])  # fmt: skip


def _beyond(axes: Axes, y: float, points: float, colour: str) -> bool:
    """Draw an arrow at the edge beyond which `points` lie; False where they lie within."""
    if EDGES[0] <= points <= EDGES[1]:
        return False
    edge, arrow = (EDGES[0], "<") if points < 0 else (EDGES[1], ">")
    axes.plot(edge, y, arrow, color=colour, ms=3, clip_on=False)
    return True


if __name__ == "__main__":
    file = asked_file("arms_figure", "docs/arms.png")
    figure(list(studies_on_gpus())).savefig(file)
    shrink(file)
