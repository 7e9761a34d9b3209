"""Every figure of a report, with many arms of long names: nothing cut off, no two arms alike."""

import functools
from dataclasses import replace
from itertools import combinations, pairwise
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text
from matplotlib.transforms import Bbox

from adapters.spectrum import ModuleSpectrum, PhiCurve
from adapters.spectrum.modules import PhiUsage
from basis_zoo import PhiParameters
from basis_zoo.drawing.layout import TEXT, _width, finish, panels, wrapped
from basis_zoo.drawing.styles import PAPER, Style, arm_styles
from studies.engine.definition.sections import SPECTRA, SURFACE
from studies.engine.reporting import (
    after_plots,
    plots,
    search_report,
    spectra_plots,
    surface_plots,
    two_factor_report,
)
from studies.engine.reporting.after_outcome import ArmAfter, Pruned
from studies.engine.reporting.outcome import collect
from studies.engine.reporting.panels import styles
from studies.engine.reporting.report import read_curves
from studies.engine.reporting.search_outcome import SearchOutcome, SearchPoint
from studies.engine.trials import spectra_file
from studies.engine.trials.spectra_file import Inside
from studies.engine.verdicts.statistics import compare, summarize

LONG = "with a name that its author, who had much to say, made far too long"
UNBROKEN = "train.learning_rate=0.001_adapter.input_scale=learned_adapter.interval=[-3.0,3.0]"
KINDS = ("q_proj", "self_attn.k_proj", "v_proj", "mlp.gate_proj.of_the_expert.of_the_layer")
PER_ARM = ("learning", "stable_rank", "spectra", "utilization", "phi", "kept_parameters")
FIGURES = ("comparison", "landscape", "loss_surface", "search", *PER_ARM)
OVER_TIME = ("stable_rank_over_time", "phi_over_time", "sizes_over_time")
COUNTS = {"words": 10, "sweep": 9, "two sweeps": 6}


def fabricated(fabricate, kind):
    study = fabricate.study
    study.question = f"Which of all these methods, {LONG}, is best where {UNBROKEN} is set? " * 2
    study.published = None
    study.objective.metric = "test/accuracy"
    fabricate.add("lora", [0.70, 0.72, 0.74], {"adapter.method": "lora"})
    for i in range(COUNTS[kind]):
        name, swept = f"{i} {LONG if i % 2 else UNBROKEN}", {"adapter.grid": f"word{i}"}
        if kind != "words":
            swept = {"adapter.num_basis": 2 ** (3 + i // (2 if kind == "two sweeps" else 1))}
            swept |= {"adapter.start": "paper"} if kind == "two sweeps" and i % 2 else {}
        fabricate.add(name, [0.71 + i / 99, 0.73, 0.741 + i / 200], swept)
    if kind == "sweep":  # far below all others, at the panel's edge
        fabricate.add(f"far {LONG}", [0.4, 0.41, 0.42],
                      {"adapter.num_basis": 8, "adapter.start": "paper"})  # fmt: skip
        fabricate.add(f"beside {UNBROKEN}", [0.71, 0.72, 0.73], {"adapter.basis": "sinc"})
    return collect(study, fabricate.pairs)


def after(arms):
    trained = {0: 0.7, 1: 0.72, 2: 0.71}
    less = {seed: value - 0.01 * (seed + 1) for seed, value in trained.items()}
    mean = summarize(list(less.values()))
    curve = [
        Pruned(share, 4000 * share + 7 * len(arm.name), 0.9, 3.0, 1.0, mean, compare(less, trained))
        for arm in arms
        for share in (1.0, 0.5)
    ]
    steps = tuple((step, mean) for step in (-1.0, 0.0, 1.0))
    return tuple(
        ArmAfter(arm.name, mean, tuple(curve[2 * i : 2 * i + 2]), None, steps)
        for i, arm in enumerate(arms)
    )


def search_of(arm):
    points = []
    for i in range(4):
        values, flags = (0.7 + i / 100, 1000.0 * 3**i), (i > 1, i == 2)
        points.append(SearchPoint(f"p{i}", {"adapter.r": i}, "done", values, 0.7, "", *flags))
    metrics = ("valid/accuracy", "cost/adapter_parameters")
    directions = ("maximize", "minimize")
    return SearchOutcome(arm, "tpe", 4, 0, metrics, directions, "test/accuracy", tuple(points), ())


def inside(place):
    modules, curves = [], []
    for i, kind in enumerate(KINDS):
        for block in range(3):
            name = f"layers.{block}.{kind}"
            values = torch.logspace(0, -3 - i, 12, dtype=torch.float64)
            usage = PhiUsage(0.1, 2.0, 0.1 + place / 20, 0.3, 0.01, 1.0)
            modules.append(ModuleSpectrum(name, kind, block, (12, 12), values, None, usage))
            reach = 0.01 * (1 + place)
            x = torch.linspace(-reach, reach, 101, dtype=torch.float64)
            y = (1 + place) * x + (50.0 if place == 3 else 0.0)
            ones = torch.ones(4, dtype=torch.float64)
            numbers = PhiParameters(place * ones, (block + 1) * ones, ones, ones[0], ones[0])
            curves.append(PhiCurve(name, kind, block, x, y, reach, numbers))
    return Inside(modules, curves)


@pytest.fixture(
    params=[
        "words",
        *(pytest.param(n, marks=pytest.mark.thorough) for n in ("sweep", "two sweeps")),
    ]
)
def made(fabricate, request, monkeypatch, tmp_path):
    """Every figure by name, with the outcome that they show."""
    outcome = fabricated(fabricate, request.param)
    outcome = replace(outcome, after=after(outcome.arms), search=search_of(outcome.arms[1].name))
    key_of = {arm.keys[0]: i for i, arm in enumerate(outcome.arms)}
    monkeypatch.setattr(
        spectra_file,
        "read_spectra",
        lambda folder, step=None: inside(key_of[folder.name] + (0 if step is None else step / 9e3)),
    )
    for key in key_of:
        (tmp_path / key).mkdir()
        (tmp_path / key / SPECTRA).touch()
        loss = np.add.outer([1.0, 0.0, 4.0], [2.0, 0.0, np.inf if key_of[key] == 1 else 9.0])
        np.savez(tmp_path / key / SURFACE, steps=[-1.0, 0.0, 1.0], loss=loss)
    seen, *_ = (key for key, place in key_of.items() if LONG in outcome.arms[place].name)
    for step in (100, 1000, 2000):
        (tmp_path / seen / spectra_file.name_of(step)).touch()
    found = {"comparison": plots.plot_comparison(outcome)}
    curves = read_curves(outcome, fabricate.out_dir.parent / "trials")
    found["learning"] = plots.plot_learning_curves(outcome, curves)
    found |= surface_plots.figures(outcome, tmp_path)
    found |= after_plots.figures(outcome) | spectra_plots.figures(outcome, tmp_path)
    found |= search_report.figures(outcome.search, outcome)
    timed = {name.partition("_time_")[0] + "_time" for name in found if "_over_time_" in name}
    assert timed == set(OVER_TIME)
    assert {name for name in found if "_over_time_" not in name} == set(FIGURES)
    return SimpleNamespace(figures=found, outcome=outcome)


@functools.cache  # drawing takes most of the time
def renderer_of(figure):
    assert isinstance(figure.canvas, FigureCanvasAgg)
    figure.draw_without_rendering()
    return figure.canvas.get_renderer()


@functools.cache
def texts_of(figure):
    """Each text that is drawn, with its box in pixels."""
    renderer = renderer_of(figure)
    drawn = []
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            box = axis.get_tightbbox(renderer)  # ticks beyond the limits are not in it
            drawn += [(f"ticks and label {axis.label.get_text()!r}", box)] if box else []
    ticks = {
        text
        for axes in figure.axes
        for axis in (axes.xaxis, axes.yaxis)
        for tick in (*axis.get_major_ticks(), *axis.get_minor_ticks())
        for text in tick.findobj(Text)
    }
    for text in set(figure.findobj(Text)) - ticks:
        if text.get_visible() and text.get_text().strip():
            drawn.append((text.get_text(), text.get_window_extent(renderer)))
    return drawn + [("legend", box.get_window_extent(renderer)) for box in figure.legends]


def outside(figure):
    width, height = figure.bbox.width, figure.bbox.height
    return [
        (text, box.extents.round(1))
        for text, box in texts_of(figure)
        if box.x0 < -0.5 or box.y0 < -0.5 or box.x1 > width + 0.5 or box.y1 > height + 0.5
    ]


def no_text_lies_outside_a_figure(made):
    for name, figure in made.figures.items():
        assert len(texts_of(figure)) > 5
        assert outside(figure) == [], name


def test_the_measure_sees_a_text_that_is_cut():
    for cut in ([], [LONG]):
        figure, (axes,) = panels(1)
        axes.plot([0, 1], [0, 1], label="fine")
        finish(figure, "title")
        for text in cut:
            axes.text(0.9, 0.5, text).set_in_layout(False)
        assert [text for text, _ in outside(figure)] == cut


def title_panels_legend_and_note_do_not_overlap(made):
    for name, figure in made.figures.items():
        renderer = renderer_of(figure)
        parts = [axes.get_tightbbox(renderer) for axes in figure.axes]
        parts += [box.get_window_extent(renderer) for box in figure.legends]
        parts += [text.get_window_extent(renderer) for text in figure.texts]
        for one, other in combinations(parts, 2):
            common = Bbox.intersection(one, other)
            assert common is None or min(common.width, common.height) < 3, (name, one, other)


def every_figure_has_a_title_and_says_what_its_bands_are(made):
    for name, figure in made.figures.items():
        assert made.outcome.name in figure.get_suptitle().replace("\n", " "), name
        said = " ".join(text.get_text() for text in figure.texts).replace("\n", " ")
        if any(axes.collections or axes.containers for axes in figure.axes) and name != "search":
            assert "Band" in said or "Bars" in said, name


def a_figure_is_never_wider_than_a_page(made):
    assert {figure.get_size_inches()[0] for figure in made.figures.values()} == {10.2}


def lines_of(figure):
    """Label to the colour, dashes and markers of its lines."""
    found = {}
    for axes in figure.axes:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            line = handle[0] if hasattr(handle, "has_yerr") else handle
            look = line.get_color(), str(line._unscaled_dash_pattern), str(line.get_marker())
            found.setdefault(label, set()).add(look)
    return found


def no_two_arms_of_a_figure_look_alike(made):
    for name, figure in made.figures.items():
        looks = lines_of(figure)
        assert all(len(own) == 1 for own in looks.values()) or name == "search", name
        assert len(set().union(*looks.values())) == len(looks), name


def an_arm_looks_the_same_in_all_figures(made):
    want = {a.name: styles(made.outcome)[a.name].colour for a in made.outcome.arms}
    for name in PER_ARM:
        looks = lines_of(made.figures[name])
        got = {label.removesuffix(" (baseline)"): own for label, own in looks.items()}
        assert {arm: {look[0] for look in own} for arm, own in got.items()} == {
            arm: {colour} for arm, colour in want.items()
        }, name
    drawn = {line.get_color() for axes in made.figures["comparison"].axes for line in axes.lines}
    assert set(want.values()) <= drawn


def times_are_on_one_scale_in_their_order(made):
    for name in OVER_TIME:
        (figure,) = (own for file, own in made.figures.items() if file.startswith(name))
        looks = lines_of(figure)
        assert list(looks) == ["step 100", "step 1000", "step 2000", "end"]
        light = [lightness(colour) for own in looks.values() for colour, *_ in own]
        assert light == sorted(light) and light[-1] - light[0] > 50
        assert LONG[:20] in figure.get_suptitle().replace("\n", " ")


def one_arms_constant_does_not_flatten_the_others(made):
    figure = made.figures["phi"]
    for axes in figure.axes:
        own = [line for line in axes.lines if not line.get_label().startswith("_")]
        assert all(abs(line.get_ydata()[50]) < 1e-12 for line in own)
        low, high = axes.get_ylim()
        steepest = max(float(line.get_ydata().max()) for line in own)
        assert 2 * steepest > 0.4 * (high - low)
        bars = [line for line in axes.lines if line.get_gid() == "range"]
        assert [line.get_color() for line in bars] == [line.get_color() for line in own]
        for bar, line in zip(bars, own, strict=True):
            assert bar.get_xdata()[1] == pytest.approx(float(line.get_xdata()[-1]))
    said = [text.get_text() for text in figure.axes[0].texts]
    assert said == ["φ(0) = 50"]


CHECKS = (
    no_text_lies_outside_a_figure,
    title_panels_legend_and_note_do_not_overlap,
    every_figure_has_a_title_and_says_what_its_bands_are,
    a_figure_is_never_wider_than_a_page,
    no_two_arms_of_a_figure_look_alike,
    an_arm_looks_the_same_in_all_figures,
    times_are_on_one_scale_in_their_order,
    one_arms_constant_does_not_flatten_the_others,
)


@pytest.mark.slow
def test_every_figure(made):
    for check in CHECKS:  # together: drawing takes seconds
        check(made)


def test_a_flat_surface_names_its_levels_apart() -> None:
    _, (axes,) = panels(1)
    steps = np.linspace(-0.5, 0.5, 5)
    surface_plots._draw(axes, steps, 0.6335 + 0.001 * np.outer(np.ones(5), steps))
    texts = [text.get_text() for text in axes.texts]
    assert len(texts) > 3 and len(set(texts)) == len(texts)


def test_a_search_is_drawn_before_its_arm_is_trained(fabricate):
    fabricate.study.published = None
    fabricate.add("lora", [0.70, 0.72, 0.74])
    (figure,) = search_report.figures(
        search_of("phi"), collect(fabricate.study, fabricate.pairs)
    ).values()
    assert outside(figure) == [] and "chosen for phi" in lines_of(figure)


def test_arms_whose_files_would_be_called_alike_keep_theirs(fabricate, monkeypatch, tmp_path):
    start = "num_basis=64 learning_rate=0.001 start=paper bandwidth=spacing grid=uniform"
    names = [f"{start} basis={basis}" for basis in ("sinc", "hat")] + ["φ", "ψ", "unnamed 2"]
    fabricate.add("lora", [0.5])
    for i, name in enumerate(names):
        fabricate.add(name, [0.5], {"adapter.r": i})
    outcome = collect(fabricate.study, fabricate.pairs)
    monkeypatch.setattr(spectra_file, "read_spectra", lambda folder, step=None: inside(step or 0))
    for arm in outcome.arms:
        (tmp_path / arm.keys[0]).mkdir()
        (tmp_path / arm.keys[0] / SPECTRA).touch()
        (tmp_path / arm.keys[0] / spectra_file.name_of(1)).touch()
    found = spectra_plots.figures(outcome, tmp_path)
    assert len([name for name in found if name.startswith("stable_rank_over_time")]) == 6


@pytest.mark.parametrize(("rows", "columns"), [(2, 2), (9, 4), (12, 11)])
def test_a_heatmap_holds_its_texts(fabricate, rows, columns):
    fabricate.study.published = None
    fabricate.add("lora", [0.70, 0.72, 0.74], {"adapter.method": "lora"})
    for i in range(rows):
        for j in range(columns):
            swept = {"adapter.start": f"{i} {LONG}", "adapter.grid": f"{j}_{UNBROKEN}"}
            noise = [0.01 * ((3 * i + 5 * j + 7 * s) % 4) for s in range(3)]
            fabricate.add(f"{i} {j}", [0.7 + i / 99 + n for n in noise], swept)
    outcome = collect(fabricate.study, fabricate.pairs)
    (figure,) = two_factor_report.figures(outcome).values()
    assert outside(figure) == []
    renderer = renderer_of(figure)
    for axes in figure.axes:
        for texts in (axes.texts, axes.get_xticklabels(), axes.get_yticklabels()):
            boxes = [text.get_window_extent(renderer) for text in texts if text.get_text()]
            assert len(boxes) in (rows * columns, rows, columns)
            assert not any(one.overlaps(other) for one, other in combinations(boxes, 2))
    shown = {text.get_text() for text in figure.axes[0].texts}
    assert f"{outcome.two_factors.means[0][0]:.4f}" in shown


def lightness(colour):
    """CIE L* of a hex colour."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    y = sum(w * p for w, p in zip((0.2126, 0.7152, 0.0722), linear, strict=True))
    return 116 * y ** (1 / 3) - 16


def test_a_sweep_has_one_even_scale():
    sweep = {f"G={2**i}": 2.0**i for i in range(6)}
    other = {f"other {name}": value for name, value in list(sweep.items())[:3]}
    found = arm_styles(["lora", *sweep, *other, "beside"], "lora", [sweep, other])
    light = [lightness(found[name].colour) for name in sweep]
    steps = [b - a for a, b in pairwise(light)]
    assert min(steps) > 0.7 * max(steps)
    for name in list(sweep)[:3]:
        assert found[name].colour == found[f"other {name}"].colour
        assert found[name].dashes != found[f"other {name}"].dashes
    assert found["beside"].colour not in {found[name].colour for name in sweep}


@pytest.mark.parametrize("count", [1, 8, 17, 39, 200])
def test_styles_never_repeat(count):
    found = arm_styles(["lora", *map(str, range(count))], "lora")
    assert len(set(found.values())) == count + 1
    assert len({style.colour for style in found.values()}) == min(count, 8) + 1
    assert PAPER not in {style.colour for style in found.values()}
    assert found["lora"] == Style("#1a1a1a", (0, (4, 1.5)), "o", 2.2)


def test_too_many_arms_are_refused():
    with pytest.raises(ValueError, match=r"281 arms are more than the 280 distinct .*draw fewer"):
        arm_styles([str(i) for i in range(281)])


def test_text_is_wrapped_to_the_width_that_it_is_given():
    for text in (LONG, UNBROKEN, "x" * 300, f"two\n{LONG}"):
        lines = wrapped(text, TEXT, 1.5).splitlines()
        assert len(lines) > 1 and all(_width(line, TEXT) <= 1.5 for line in lines)
        assert "".join(lines).replace(" ", "") == text.replace("\n", "").replace(" ", "")
    assert wrapped("short and whole", TEXT, 5.0) == "short and whole"
