"""A study's outcome as Markdown and as a table for the terminal."""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from studies.engine.labels import short_names, short_value
from studies.engine.planning.tuning import Choice
from studies.engine.reporting import task_tables
from studies.engine.reporting.outcome import Arm, Outcome
from studies.engine.reporting.remarks import reading, remarks
from studies.engine.reporting.tables import NONE, grid, interval, number, p_value, plain, table
from studies.engine.verdicts.claims import Verdict
from studies.engine.verdicts.statistics import Estimate


def markdown(outcome: Outcome, figures: Sequence[str] = (), more: Sequence[str] = ()) -> str:
    """The whole report; `figures` are paths of images relative to it, `more` other sections."""
    parts = [
        f"# {outcome.name} ({outcome.profile})",
        f"**Question.** {outcome.question}",
        _set(outcome),
        _results(outcome),
        _claims(outcome),
        task_tables.markdown(outcome),
        _bullets([f"`{arm.name}`: {arm.note}" for arm in outcome.arms if arm.note]),
        _bullets([f"**Note.** {remark}" for remark in remarks(outcome)]),
        _failed(outcome),
        "\n".join(f"![{name}]({name})" for name in figures),
        _tuning(outcome),
        *more,
        "## How to read it\n\n" + _bullets(reading(outcome)),
        "## Every seed\n\n" + _every_seed(outcome),
        *(f"### {name}\n\n" + _every_seed(own) for name, own in outcome.tasks.items()),
        "## Data\n\n" + _data(outcome),
        "## Environment\n\n" + _environment(outcome),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def note(outcome: Outcome, limit: int = 15_000) -> str:
    """Question, table, remarks and failures in at most `limit` characters, cut at a line."""
    parts = [
        f"**{outcome.question}**",
        _set(outcome),
        _claims(outcome),
        _results(outcome),
        task_tables.markdown(outcome),
        _bullets(remarks(outcome)),
        _failed(outcome),
    ]
    text = "\n\n".join(part for part in parts if part)
    if len(text) <= limit:
        return text
    return text[:limit].rpartition("\n")[0] + "\n\n(cut; all of it is in the summary run)"


def terminal(outcome: Outcome) -> str:
    """A plain table without colours, as wide as its content, with the remarks below it."""
    head = ["arm", "n", "mean ± 95 %", "collapsed", f"− {outcome.baseline} ± 95 %", "p (Holm)",
            "finding", "trainable", "phi", "peak mem", "step", "paper diff"]  # fmt: skip
    rows = []
    for arm in outcome.arms:
        n, mean, fallen, _, gain, p, finding, *costs = _answer(arm, outcome, _plus_minus)
        share, words = fallen.partition(" [")[0], finding.partition(" of ")[0].partition(":")[0]
        paper = _signed(arm.published_difference) if arm.published and not arm.is_baseline else ""
        rows.append([arm.name, n, mean, share, gain, p, words, *costs, paper])
    filled = grid(*_filled(head, rows), left=("arm", "finding"))
    majority = "" if outcome.majority is None else f"; majority class {outcome.majority:.3f}"
    above = [
        f"{outcome.name} ({outcome.profile}): {outcome.question}",
        *(f"set for the whole study: {each}" for each in outcome.settings),
        f"{outcome.title}, {outcome.better} is better{majority}",
    ]
    below = []
    if (tested := _tested(outcome)) > 1:
        below.append(f"p and finding are corrected over {tested} arms (Holm), intervals are not")
    if tasks := task_tables.terminal(outcome):
        below.append(tasks.removesuffix("\n"))
    for v in outcome.verdicts:
        below.append(f"{v.word}: {v.claim} ({_difference(v)})")
    below += [f"note: {remark}" for remark in remarks(outcome)]
    for f in outcome.failed:
        on = f" on {f.task}" if f.task else ""
        below.append(f"failed: {f.arm}{on}, seed {f.seed}: {f.kind}: {f.message}")
    return "\n".join(line.rstrip() for line in plain(*above, filled, *below).splitlines())


def _set(outcome: Outcome) -> str:
    settings = "; ".join(outcome.settings)
    return f"**Set for the whole study.** {settings}" if settings else ""


def _results(outcome: Outcome) -> str:
    tested = _tested(outcome)
    finding = f"finding, corrected over {tested} arms" if tested > 1 else "finding"
    head = ["arm", "n", f"{outcome.metric} [95 %]", "collapsed [95 %]", "mean without",
            f"− {outcome.baseline} [95 %]", "p (Holm)", finding, "trainable", "φ", "peak memory",
            "step"]  # fmt: skip
    if outcome.table is not None:
        head += ["paper", "paper − baseline"]
    rows = []
    for arm in outcome.arms:
        name = f"{arm.name} (baseline)" if arm.is_baseline else arm.name
        row = [name, *_answer(arm, outcome, interval)]
        if outcome.table is not None:
            figure = arm.published
            spread = f" ± {figure.std:.3f}" if figure and figure.std is not None else ""
            row.append(f"{figure.mean:.3f}{spread}" if figure else NONE)
            row.append(_signed(figure.difference) if figure and not arm.is_baseline else NONE)
        rows.append(row)
    majority = outcome.majority
    beside = "" if majority is None else f" Majority class of the test set: {majority:.4f}."
    filled = table(*_filled(head, rows))
    over = f", mean over {len(outcome.tasks)} tasks" if outcome.is_mean else ""
    return f"`{outcome.metric}`{over}, {outcome.better} is better.{beside}\n\n{filled}"


def _answer(arm: Arm, outcome: Outcome, form: Callable[..., str]) -> list[str]:
    """Cells that both tables have of an arm; `form` writes an estimate and takes a sign."""
    c = arm.comparison
    tested = (
        [form(c.estimate, "+"), p_value(c.p_holm), c.words(outcome.direction)] if c else [""] * 3
    )
    own = [str(arm.summary.n), form(arm.summary.estimate), *_collapsed(arm, outcome)]
    return [*own, *tested, *_costs(arm)]


def _difference(verdict: Verdict) -> str:
    """The difference with its interval, or why there is none, and what it does not tell."""
    about = (verdict.difference, verdict.low, verdict.high)
    of = "" if verdict.statistic == "mean" else f"{verdict.statistic} "
    text = verdict.note or f"{of}{interval(about, '+')} at {verdict.level:.1%}"
    return "; ".join(filter(None, (text, verdict.finding)))


def _claims(outcome: Outcome) -> str:
    if not outcome.verdicts:
        return ""
    over = {v.over for v in outcome.verdicts if v.over}
    rows = [
        [v.claim, f"**{v.word}**", v.rule, str(v.n), _difference(v), *[v.over] * (len(over) > 1)]
        for v in outcome.verdicts
    ]
    written = "not written before the run" if outcome.changed.claims else "written before the run"
    head = [f"claim, {written}", "verdict", "rule", "n", "difference [interval]"]
    head += ["over"] if len(over) > 1 else []
    below = f"\n\nIntervals are over {over.pop()}." if len(over) == 1 else ""
    return "## Claims\n\n" + table(head, rows) + below


def _tuning(outcome: Outcome) -> str:
    if not outcome.choices:
        return ""
    tried = _in_order([settings for choice in outcome.choices for settings, _ in choice.scores])
    names = short_names(tried[0])
    columns = [", ".join(f"{names[k]} {short_value(v)}" for k, v in each.items()) for each in tried]
    rows = []
    for choice in outcome.choices:
        known = [settings for settings, _ in choice.scores]
        cells = [_score(choice, known.index(s)) if s in known else "" for s in tried]
        marked = [f"**{c}**" if s == choice.settings else f"~ {c}" if s in choice.close else c
                  for c, s in zip(cells, tried, strict=True)]  # fmt: skip
        rows.append([choice.title, *marked])
    median = outcome.choices[0].statistic == "median"
    name = "Median" if median else "Mean"
    head = f"{name} {outcome.chosen_on} of the stage before the seeds; what was chosen is bold."
    if any(choice.close for choice in outcome.choices):
        by = "by wins and losses, " if median else ""
        head += f" ~ is within one standard error of it, {by}paired by seed."
    if any(choice.extended for choice in outcome.choices):
        head += " Empty: no arm tries what lies further from its best than the next value."
    if any(choice.raced for choice in outcome.choices):
        head += " In brackets: over how many seeds, where values that were close got more."
    return f"## Tuning\n\n{head}\n\n" + table(["arm", *columns], rows)


def _score(choice: Choice, i: int) -> str:
    """What the tried settings number `i` came to; of how many seeds, if of more than the first."""
    count = choice.seeds[i] if choice.raced else 0
    seeds = f" ({count})" if count > choice.first else ""
    return f"{number(choice.scores[i][1])}{seeds}"


def _in_order(tried: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Each of the settings once, numbers rising, others as they came."""
    places = {path: [each[path] for each in tried] for path in tried[0]}
    for values in places.values():
        if all(type(value) in (int, float) for value in values):
            values.sort()
    once = [each for i, each in enumerate(tried) if each not in tried[:i]]
    return sorted(once, key=lambda each: [places[path].index(v) for path, v in each.items()])


def _every_seed(outcome: Outcome) -> str:
    head = ["arm", *(f"seed {seed}" for seed in outcome.seeds)]
    rows = []
    for arm in outcome.arms:
        cells = dict.fromkeys(outcome.seeds, NONE) | dict.fromkeys(arm.keys, "failed")
        cells |= {seed: number(value) for seed, value in arm.values.items()}
        rows.append([arm.name, *cells.values()])
    return table(head, rows)


def _failed(outcome: Outcome) -> str:
    if not outcome.failed:
        return ""
    rows = [
        [f.arm, f.task, str(f.seed), f.kind, f.message.replace("\n", " "), str(f.attempt)]
        for f in outcome.failed
    ]
    head = ["arm", "task", "seed", "kind", "message", "attempt"]
    return "## Failed trials\n\n" + table(*_filled(head, rows, nothing=("",)))


def _data(outcome: Outcome) -> str:
    if outcome.is_mean:
        return "\n\n".join(f"### {name}\n\n{_data(own)}" for name, own in outcome.tasks.items())
    lines = [f"{key}: {_plain(d[key])}" for d in outcome.data for key in sorted(d)]
    return _bullets(lines) or "The trials reported nothing about their data."


def _environment(outcome: Outcome) -> str:
    parts = []
    for i, environment in enumerate(outcome.environments):
        arms = [arm for arm, where in outcome.environment_of.items() if i in where]
        who = "All arms" if len(outcome.environments) == 1 else ", ".join(arms)
        lines = [f"{key}: {_plain(value)}" for key, value in environment.items()]
        parts.append(f"{who}:\n\n{_bullets(lines)}")
    return "\n\n".join(parts) or "The trials reported nothing about their environment."


def _collapsed(arm: Arm, outcome: Outcome) -> list[str]:
    """How many runs collapsed, and the mean of the others; nothing where no run of any arm did."""
    own = arm.collapsed
    if own is None or not any(each.collapsed and each.collapsed.count for each in outcome.arms):
        return ["", ""]
    share = f"{own.count} of {own.n} [{own.low:.2f}, {own.high:.2f}]"
    return [share, number(own.mean_without)]


def _tested(outcome: Outcome) -> int:
    """Over how many arms p and finding are corrected: they may differ from the interval beside."""
    return sum(arm.comparison is not None and arm.comparison.p is not None for arm in outcome.arms)


def _filled(
    head: list[str], rows: list[list[str]], nothing: Collection[str] = ("", NONE, "0")
) -> tuple[list[str], list[list[str]]]:
    """The columns in which not every cell is one that says `nothing`."""
    used = [i for i in range(len(head)) if any(row[i] not in nothing for row in rows)]
    used = used if rows else list(range(len(head)))
    return [head[i] for i in used], [[row[i] for i in used] for row in rows]


def _costs(arm: Arm) -> list[str]:
    cost = arm.cost
    if cost is None:
        return [NONE] * 4
    return [
        f"{cost.trainable_parameters:,}",
        f"{cost.phi_parameters:,}",
        f"{cost.peak_memory_bytes / 2**20:,.0f} MiB",
        f"{cost.step_seconds * 1000:,.0f} ms"
        if cost.step_seconds >= 0.1
        else f"{cost.step_seconds * 1000:.1f} ms",
    ]


def _plus_minus(estimate: Estimate, sign: str = "") -> str:
    mean, _, high = estimate
    return number(mean, sign) + ("" if mean is None or high is None else f" ±{high - mean:.4f}")


def _signed(value: float | None) -> str:
    return NONE if value is None else f"{value:+z.3f}"


def _plain(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{k} {_plain(value[k])}" for k in sorted(value))
    return f"{value:.4f}" if isinstance(value, float) else str(value)


def _bullets(lines: Sequence[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)
