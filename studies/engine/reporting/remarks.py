"""What a reader of the numbers must be told: too few seeds, other machines, arms at chance."""

import math
from collections.abc import Iterator, Sequence

from studies.engine.labels import numbers, short_value, span
from studies.engine.planning.tuning import Choice
from studies.engine.reporting.outcome import DRAWN, Arm, Outcome
from studies.engine.verdicts.power import MOST, SHARE, one_sided_level, seeds_needed
from studies.engine.verdicts.samples import BOTH, RUNS
from studies.engine.verdicts.spread import pooled
from studies.engine.verdicts.statistics import ALPHA, FEW_SEEDS
from studies.tasks.data_remarks import findings

FEW_STEPS = 60
"""Optimizer steps below which an arm at chance has probably not been trained for long enough: the
embedded profile's 60 are about the fewest that teach MiniLM sentiment."""

HALF_A_POINT = 0.005
"""The difference that is asked for where nothing is known, of metrics that are shares."""


def remarks(outcome: Outcome) -> list[str]:
    """Warnings about `outcome`, the gravest first; empty for a sound study."""
    return list(_remarks(outcome))


def _remarks(outcome: Outcome) -> Iterator[str]:
    yield from _changed(outcome)
    if outcome.reference is None:
        on = f" that ended on all {len(outcome.tasks)} tasks" if outcome.is_mean else ""
        yield f"The baseline `{outcome.baseline}` has no finished seed{on}: nothing is compared."
    if not outcome.is_mean:
        yield from _data(outcome)
    for claim in outcome.unasked:
        yield f"Not asked under this profile, which leaves out an arm of it: {claim}."
    keys = sorted({k for e in outcome.environments for k in e} - {"trials_at_once"})  # told apart
    if differ := [k for k in keys if len({str(e.get(k)) for e in outcome.environments}) > 1]:
        yield (
            f"Trials ran in environments that differ in {', '.join(differ)}: a difference between "
            "arms may come from there."
        )
    yield from _seeds(outcome)
    yield from _chance(outcome)
    yield from _published(outcome)
    most = max((int(e.get("trials_at_once", 1)) for e in outcome.environments), default=1)
    if most > 1:
        yield (
            f"Up to {most} trials shared the machine: step times are of a busy one, and tell "
            "little of what a step costs (--slots 1 runs one trial at a time)."
        )
    yield from _of_trials(outcome)
    for name, own in outcome.tasks.items() if outcome.is_mean else ():
        for line in (*_data(own), *_chance(own), *_of_trials(own)):
            yield line if line.startswith(f"{name}: ") else f"{name}: {line}"


def _changed(outcome: Outcome) -> Iterator[str]:
    """What was not asked before the first result."""
    after = "after results were there: what"
    if outcome.changed.claims:
        yield (
            "The claims, or the objective that they are about, were changed "
            f"{after} they say may follow from the results."
        )
    if outcome.changed.looks:
        yield (
            "The looks at the claims, after so many seeds, were changed "
            f"{after} is decided may follow from when it was looked at."
        )
    if seeds := outcome.changed.seeds:
        what, were = ("Seed", "was") if len(seeds) == 1 else ("Seeds", "were")
        yield (
            f"{what} {numbers(seeds)} {were} added after results were there: to look "
            "and then to add seeds errs more often than in the 5 % of tests that are planned once. "
            "`seeds: {at_least: ..., at_most: ..., until: decided}` plans such looks."
        )


def _data(outcome: Outcome) -> Iterator[str]:
    """What a reader should know of the rows."""
    if len({str(d.get("hash")) for d in outcome.data}) > 1:
        yield "Trials saw different data (the hashes differ): their values are not comparable."
    lines = (f"{line}." for described in outcome.data for line in findings(described))
    yield from dict.fromkeys(lines)


def reading(outcome: Outcome) -> list[str]:
    """How the table is to be read: what was tested, and what was chosen on which split."""
    lines = [
        "Intervals are 95 % t intervals over seeds; they describe the spread over seeds, not over "
        "test examples.",
        f"Differences are paired by seed with `{outcome.baseline}`: paired t-test, p corrected by "
        "Holm over the arms tested. The intervals are not corrected: one may leave out 0 where p "
        f"and the finding show nothing. p > {ALPHA:g} means that these seeds show no evidence of a "
        "difference; it does not mean that the arms are equal.",
        *_choices(outcome),
    ]
    if outcome.is_mean:
        lines.append(
            f"The first table is of the mean over {len(outcome.tasks)} tasks, seed by seed; only "
            "seeds that ended on all of them count."
        )
        if len({own.metric for own in outcome.tasks.values()}) > 1:
            lines.append(
                "That mean is one of different metrics (objective.mixed): a point of one is not "
                "a point of another."
            )
    if len(outcome.arms) > DRAWN:
        lines.append(
            f"The figures show the baseline and the {DRAWN - 1} best of {len(outcome.arms)} arms; "
            "the tables show all."
        )
    arms = [arm for own in (outcome, *outcome.tasks.values()) for arm in own.arms]
    counted = any(arm.collapsed is not None and arm.collapsed.count for arm in arms)
    if counted or _on_collapsed(outcome):
        lines.append(
            "A run is collapsed where its test accuracy is at most the majority class's share and "
            "one standard error of it, or its loss was not finite"
            + "; beside their share stand its exact 95 % interval and the mean of the other runs"
            * counted
            + ". Differences are of all runs."
        )
    lines += _about_claims(outcome)
    if outcome.table is not None:
        reference = outcome.table.baseline or "no baseline in the same harness"
        note = outcome.table.note and f" The paper contradicts itself here: {outcome.table.note}."
        lines.append(
            f"Paper: {outcome.table.name} of LR-LoRA (arXiv 2606.04325v1), arms matched by "
            f"`{outcome.axis}` alone; its differences are to {reference}. Model, data and start "
            f"differ from ours: compare differences, never absolute values.{note}"
        )
    return lines


def _about_claims(outcome: Outcome) -> Iterator[str]:
    """How verdicts are to be read."""
    if looks := [str(size) for size in outcome.looks]:
        after = f"{', '.join(looks[:-1])} and {looks[-1]}" if looks[1:] else looks[0]
        yield (
            f"Claims are judged after {after} seeds while some are open, and only arms of these "
            "get more. The verdicts allow for that; intervals and p of the table do not."
        )
    if any(verdict.over == BOTH for verdict in outcome.verdicts):
        yield (
            f"Claims over {BOTH} are tested as means over both, crossed: other seeds and other "
            "test rows would give another number. All other intervals are over seeds alone."
        )
    if outcome.verdicts:
        yield (
            "A claim is confirmed where the interval of its difference lies where the rule says, "
            "refuted where it lies wholly elsewhere, bounded where it lies within the claim's "
            "resolution of the margin, else not decided. Intervals of claims are t intervals, "
            "of a median those of the sign test, paired by seed, at the level that a claim has by "
            "Holm's step-down and by the share "
            f"of its look, so that all verdicts together err in at most {ALPHA:.0%} of studies "
            "(docs/statistics.md)."
        )
    if _on_collapsed(outcome):
        yield (
            "Claims about collapsed runs are tested exactly: a share, less the number that it is "
            "compared with, by the binomial distribution (interval of Clopper and Pearson), two "
            "arms by McNemar's test of the seeds at which one alone collapsed."
        )


def _on_collapsed(outcome: Outcome) -> bool:
    return any(verdict.over == RUNS for verdict in outcome.verdicts)


def _doubts(choices: Sequence[Choice]) -> Iterator[str]:
    """Where a choice may have been another."""
    if close := sum(bool(choice.close) for choice in choices):
        yield (
            f"For {close} of {len(choices)} arms another value is within one standard error of the "
            "chosen one (~ in the table of tuning): which is taken may be a matter of chance, and "
            "what that costs is part of the differences."
        )
    ends: dict[str, list[str]] = {}
    for choice in choices:
        for path, end in choice.edges.items():
            which = f"the {end} `{path}` that was tried, {short_value(choice.settings[path])}"
            ends.setdefault(which, []).append(f"`{choice.title}`")
    for which, arms in ends.items():
        yield f"{', '.join(arms)} took {which}: a better one may lie beyond."


def _choices(outcome: Outcome) -> Iterator[str]:
    """What was chosen for the arms, and on which split."""
    metric, chosen_on, search = outcome.metric, outcome.chosen_on, outcome.search
    if chosen_on and outcome.select_on != metric:
        yield f"Whatever is chosen is chosen on {chosen_on}; `{metric}` is only reported."
    else:
        yield (
            f"No validation metric was named: a choice made by this table is made on `{metric}` "
            "itself and is optimistic."
        )
    if outcome.best_steps:
        steps, trained = ([getattr(k, n) for k in outcome.best_steps] for n in ("step", "trained"))
        by = " or ".join(dict.fromkeys(f"`{kept.metric}`" for kept in outcome.best_steps))
        yield (
            f"{len(outcome.best_steps)} trials are measured with the parameters of their best {by} "
            f"(train.keep: best): of step {span(min(steps), max(steps))} where "
            f"{span(min(trained), max(trained))} were trained. "
            "On validation they look better than they are."
        )
    if outcome.choices:
        tuned = ", ".join(f"`{path}`" for path in outcome.choices[0].scores[0][0])
        left = ", ".join(f"`{choice.title}`" for choice in outcome.choices if not choice.settings)
        untuned = f" No value gave a result for {left}: there it is the study's own."
        each = "each arm and task" if outcome.is_mean else "each arm"
        more = ", ".join(f"`{choice.title}`" for choice in outcome.choices if choice.extended)
        extended = f"; {more} also tried values beyond the end that was the best so far"
        yield (
            f"{tuned} was chosen for {each} on {chosen_on}, from the same values and with other "
            f"seeds than those reported{extended if more else ''}.{untuned if left else ''}"
        )
        yield from _doubts(outcome.choices)
        medians = any(verdict.statistic == "median" for verdict in outcome.verdicts)
        if medians and outcome.choices[0].statistic == "mean":
            yield (
                f"Claims are about the median, and {tuned} was chosen by the mean, which one run "
                "that falls to chance moves: `tune.statistic: median` chooses by the median."
            )
    elif search is not None and search.points:
        searched = ", ".join(f"`{path}`" for path in search.points[0].settings)
        yield (
            f"{searched} of `{search.arm}` were searched on `{search.metrics[0]}` with seed "
            f"{search.seed}, over {len(search.points)} points; no other arm was searched, which "
            f"favours `{search.arm}`."
        )
    else:
        yield (
            "No setting was tuned: every arm has the learning rate that the study gives it, which "
            "may suit some arms better than others."
        )


def _published(outcome: Outcome) -> Iterator[str]:
    known, out = beyond_the_interval(outcome)
    if out:
        settings = ", ".join(
            f"`{arm.name}` (paper {difference:+z.3f}, ours [{low:+z.4f}, {high:+z.4f}])"
            for arm, difference, low, high in out
        )
        yield (
            f"In {len(out)} of {known} arms our 95 % interval of the difference from "
            f"`{outcome.baseline}` leaves out the paper's: {settings}."
        )


def beyond_the_interval(outcome: Outcome) -> tuple[int, list[tuple[Arm, float, float, float]]]:
    """Arms that have a published difference, and those whose interval leaves it out.

    Each of these with the paper's difference and our interval; a claim about it may be undecided.
    """
    if outcome.table is None or outcome.table.baseline_figure is None:
        return 0, []  # a baseline of its own for every value: another difference than ours
    known, out = 0, []
    for arm in outcome.arms:
        (_, low, high), paper = arm.gain, arm.published_difference
        if low is None or high is None or paper is None:
            continue
        known += 1
        if not low <= paper <= high:
            out.append((arm, paper, low, high))
    return known, out


def _seeds(outcome: Outcome) -> Iterator[str]:
    finished = [len(arm.values) for arm in outcome.arms]
    if finished and min(finished) < FEW_SEEDS:
        reason = (
            f"Too few seeds: at least one arm has {min(finished)}, and below {FEW_SEEDS} a paired "
        )
        yield f"{reason}t-test misses most real effects{_would_do(outcome)}."
    for arm in outcome.arms:
        # seeds are added to arms of open claims alone: an arm is asked for those up to its last
        last = max(arm.keys or arm.values, default=-1) if outcome.looks else math.inf
        needed = [seed for seed in outcome.seeds if seed <= last]
        missing = [str(seed) for seed in needed if seed not in arm.values]
        if missing and arm.values:
            compared = (
                "no arm is compared there"
                if arm.is_baseline
                else "it is compared on the seeds it shares with the baseline"
            )
            yield f"`{arm.name}` lacks seed {', '.join(missing)}; {compared}."


def _would_do(outcome: Outcome) -> str:
    """How many seeds would do, by the spread seen; where there is none what few seeds find."""
    spread = pooled({arm.name: arm.values for arm in outcome.arms}, outcome.baseline)
    if spread is None:
        return " (at 3 seeds it finds an effect of 1.5 standard deviations in 31 % of cases)"
    if needed := [v.seeds_needed for v in outcome.verdicts if v.seeds_needed is not None]:
        count = sum(verdict.open for verdict in outcome.verdicts)
        those = "the" if len(needed) == count else f"{len(needed)} of the {count}"
        return f"; by the spread seen, {those} open claims would take about {max(needed):,} seeds"
    wanted = {}
    values = [value for arm in outcome.arms for value in arm.values.values()]
    if outcome.direction == "maximize" and all(abs(value) <= 1 for value in values):
        wanted[HALF_A_POINT] = f"half a point ({HALF_A_POINT})"
    if seen := {abs(arm.gain[0]): arm.name for arm in outcome.arms if arm.gain[0]}:
        most = max(seen)
        wanted[most] = f"the largest difference seen ({most:.3g}, `{seen[most]}`)"
    level = one_sided_level(len(outcome.verdicts), len(outcome.arms))
    takes = ((what, seeds_needed(size / spread.value, level)) for size, what in wanted.items())
    counts = [f"{f'{n:,}' if n else f'more than {MOST:,}'} to find {what}" for what, n in takes]
    seeds = f"; by the spread seen, {spread.value:.3g}, it takes {' and '.join(counts)}"
    return f"{seeds} in {SHARE:.0%} of studies" if counts else ""


def _chance(outcome: Outcome) -> Iterator[str]:
    if outcome.majority is None or not outcome.metric.endswith("/accuracy"):
        return
    for arm in outcome.arms:
        lowest = arm.summary.mean if arm.summary.low is None else arm.summary.low
        if lowest is not None and lowest <= outcome.majority:
            yield (
                f"`{arm.name}` is not clearly above the majority class "
                f"({arm.summary.mean:.3f} against {outcome.majority:.3f}).{_remedy(arm)}"
            )


def _remedy(arm: Arm) -> str:
    """What an arm may lack that was hardly trained; nothing for one that was."""
    if arm.steps is None or arm.steps >= FEW_STEPS:
        return ""
    more = f"train.max_steps {FEW_STEPS} and as many train.epochs as that takes"
    if arm.epochs is not None:
        more = f"train.epochs {math.ceil(arm.epochs * FEW_STEPS / arm.steps)}"
    return f" It had {arm.steps} optimizer steps: try {more}."


def _of_trials(outcome: Outcome) -> Iterator[str]:
    """What trials noted; of notes that begin alike a trial's last, which tells what it ended at."""
    last = {(arm, seed, tuple(note.split()[:2])): note for arm, seed, note in outcome.notes}
    reasons: dict[str, dict[str, list[int]]] = {}
    for (arm, seed, _), note in last.items():
        reason = note.split(". ")[0]  # torch's message of what is used up goes on for lines
        reasons.setdefault(reason, {}).setdefault(arm, []).append(seed)
    for reason, arms in reasons.items():
        who = [
            f"`{arm}` {'seed' if len(seeds) == 1 else 'seeds'} {numbers(seeds)}"
            for arm, seeds in arms.items()
        ]
        yield f"{'; '.join(who)}: {reason}"
