"""What was evaluated after training, as Markdown."""

import functools
from collections.abc import Mapping, Sequence

from studies.engine.definition.sections import RANKS
from studies.engine.reporting.after_outcome import ArmAfter
from studies.engine.reporting.tables import NONE, interval, number, section
from studies.engine.verdicts.statistics import Estimate


def markdown(arms: Sequence[ArmAfter], metric: str, chosen_on: str = "") -> list[str]:
    """A section for each kind of evaluation; none where nothing was evaluated."""
    spectra = (_ranks(arms), _sizes(arms), _over_time(arms))
    training = (_generalization(arms, metric), _steps_to(arms, chosen_on))
    parts = (_para(arms, metric), _affine(arms, metric), *spectra, *training, _slice(arms))
    return [part for part in parts if part]


def _para(arms: Sequence[ArmAfter], metric: str) -> str:
    head = ["arm", "kept", "parameters", f"{metric} [95 %]", "− trained [95 %]", "kept energy",
            "rank per layer"]  # fmt: skip
    rows = []
    for arm in arms:
        if arm.curve:
            rows.append([arm.arm, "trained", "", interval(arm.trained.estimate), "", "", ""])
        rows += [
            [
                arm.arm,
                f"{point.share:.4g}",
                f"{point.parameters:,.0f}",
                interval(point.summary.estimate),
                interval(point.difference.estimate, "+"),
                f"{point.kept_energy:.1%}",
                f"{point.rank_mean:.1f} ± {point.rank_spread:.1f}",
            ]
            for point in arm.curve
        ]
    about = (
        "PARA: after training, the largest singular values of all layers pooled that fit into the "
        "share of the trained parameters; every layer becomes a plain LoRA of its own rank. "
        "Energy is the share of the squared norm of all updates; ranks are mean ± standard "
        "deviation over the layers."
    )
    return section("Kept parameters", about, head, rows)


def _affine(arms: Sequence[ArmAfter], metric: str) -> str:
    head = ["arm", "n", f"{metric} [95 %]", "with affine φ [95 %]", "− trained [95 %]",
            "non-affine share"]  # fmt: skip
    rows = [
        [
            arm.arm,
            str(arm.affine.summary.n),
            interval(arm.trained.estimate),
            interval(arm.affine.summary.estimate),
            interval(arm.affine.difference.estimate, "+"),
            f"{arm.affine.non_affine_share:.2%}",
        ]
        for arm in arms
        if arm.affine is not None
    ]
    about = (
        "After training every φ was replaced by its best affine fit over the entries of BA of its "
        "module. The non-affine share is the part of φ that the fit loses, as a ratio of "
        "deviations, mean over modules."
    )
    return section("Affine φ", about, head, rows)


def _ranks(arms: Sequence[ArmAfter]) -> str:
    head = ["arm", "modules", "stable rank", "early", "late", "effective rank", "rank"]
    rows = []
    for arm in arms:
        for ranks in arm.ranks:
            two = functools.partial(_cell, ranks.numbers, ".2f")
            stable, *others = (f"{two(rank)} ± {two(f'{rank}_spread')}" for rank in RANKS)
            thirds = two("stable_rank_early"), two("stable_rank_late")
            rows.append([arm.arm, ranks.part, stable, *thirds, *others])
    about = (
        "Ranks of the trained updates, mean ± standard deviation over modules, mean over seeds. "
        "Early and late are the mean stable rank in the first and the last third of the blocks; "
        "the rank counts singular values above the rounding of float32."
    )
    return section("Ranks", about, head, rows)


def _sizes(arms: Sequence[ArmAfter]) -> str:
    names = {"amplitude_norm": "‖a‖", "bandwidth_norm": "‖ω‖", "bandwidth_mean": "mean ω"}
    head = ["arm", "part", *(f"{n}{e}" for n in names.values() for e in ("", ", slope"))]
    rows = []
    for arm in arms:
        for part in arm.ranks:
            if "amplitude_norm" not in part.numbers:
                continue
            four, cells = functools.partial(_cell, part.numbers, ".4g"), []
            for name in names:
                cells += [f"{four(f'{name}_start')} → {four(name)}", four(f"{name}_slope")]
            rows.append([arm.arm, part.part, *cells])
    about = (
        "Sizes of φ's amplitudes a and bandwidths ω, before training → after it, means over "
        "modules and seeds: ‖·‖ is the Euclidean norm over the functions of one φ. The slope is "
        "that of the least-squares line over depth, which is 0 in the first block and 1 in the "
        "last: what is gained on the way."
    )
    return section("Sizes of φ", about, head, rows)


def _over_time(arms: Sequence[ArmAfter]) -> str:
    names = ("stable_rank", "effective_rank", "amplitude_norm", "bandwidth_mean")
    head = ["arm", "step", "stable rank", "effective rank", "‖a‖", "mean ω"]
    rows = []
    for arm in arms:
        end = next((ranks.numbers for ranks in arm.ranks if ranks.part == "all"), {})
        for step, numbers in (*arm.over_time, *([("end", end)] if arm.over_time else [])):
            rows.append([arm.arm, str(step), *(_cell(numbers, ".4g", name) for name in names)])
    about = (
        "After steps of the training and at its end: means over all modules and over the seeds "
        "that had the step."
    )
    return section("In the course of training", about, head, rows)


def _generalization(arms: Sequence[ArmAfter], metric: str) -> str:
    name = metric.partition("/")[2]
    head = ["arm", "n", f"{name}, training rows [95 %]", f"{metric} [95 %]", "gap [95 %]"]
    rows = [
        [
            arm.arm,
            str(own.gap.n),
            interval(own.train.estimate),
            interval(arm.trained.estimate),
            interval(own.gap.estimate, "+"),
        ]
        for arm in arms
        if (own := arm.generalization) is not None
    ]
    about = (
        "The trained model on as many training rows as there are test rows, or all where there are "
        "fewer, the same rows for every arm and seed. The gap is how much better it is there than "
        "on the test rows."
    )
    return section("Generalization", about, head, rows)


def _steps_to(arms: Sequence[ArmAfter], chosen_on: str) -> str:
    rows = [
        [
            arm.arm,
            each.value,
            f"{each.reached} of {each.steps.n}",
            "≥ " * (each.reached < each.steps.n) + _interval_of_steps(each.steps.estimate),
        ]
        for arm in arms
        for each in arm.steps_to
    ]
    about = (
        f"Steps of the training until an evaluation first had {chosen_on} of the value, or a "
        "better one, mean over seeds. A seed that never had it (on one of several tasks) counts as "
        "all the steps that its training could have had: the mean of its arm is then a lower "
        "bound, marked ≥."
    )
    head = ["arm", "value", "seeds that had it", "steps [95 %]"]
    return section("Steps to a value", about, head, rows)


def _interval_of_steps(estimate: Estimate) -> str:
    known = [value for value in estimate if value is not None]
    digits = 0 if all(abs(value) >= 10 or value.is_integer() for value in known) else 1
    mean, *ends = (NONE if value is None else f"{value:.{digits}f}" for value in estimate)
    return mean if NONE in ends else f"{mean} [{', '.join(ends)}]"


def _cell(numbers: Mapping[str, float], form: str, name: str) -> str:
    return f"{numbers[name]:{form}}" if name in numbers else NONE


def _slice(arms: Sequence[ArmAfter]) -> str:
    sliced = [arm for arm in arms if arm.landscape]
    steps = sorted({step for arm in sliced for step, _ in arm.landscape})
    rows = []
    for arm in sliced:
        means = {step: summary.mean for step, summary in arm.landscape}
        rows.append([arm.arm, *(number(means.get(step)) for step in steps)])
    about = (
        "Validation loss, mean over seeds, along one random direction through the trained "
        "parameters, scaled to the norm of each row of each matrix (Li et al. 2018). Arms have "
        "different parameters: compare shapes within an arm, not heights between arms."
    )
    return section("Loss slice", about, ["arm", *(f"{step:g}" for step in steps)], rows)
