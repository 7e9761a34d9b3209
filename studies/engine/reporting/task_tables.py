"""Arms × tasks: means, differences from the baseline, and a test over the tasks."""

from studies import published
from studies.engine.reporting.outcome import Outcome
from studies.engine.reporting.tables import NONE, grid, interval, number, p_value, plain, table
from studies.engine.verdicts.statistics import Estimate

ABOUT = (
    "Over {what}: a t test whose units are the {n} {what}, each with its mean difference over "
    "seeds, p corrected by Holm over the arms (as in appendix B.2 of LR-LoRA). It asks whether an "
    "arm is better on {what} like these; the columns before it ask it of these."
)


def markdown(outcome: Outcome) -> str:
    """The section; empty where the study has one task without parts."""
    if not outcome.tasks:
        return ""
    names, whole = list(outcome.tasks), _whole(outcome)
    rows = [
        [arm.name, *(interval(own) for own in _estimates(outcome, arm.name)),
         interval(arm.summary.estimate)] for arm in outcome.arms
    ]  # fmt: skip
    parts = [
        f"## {_what(outcome).capitalize()}",
        f"Means over seeds [95 % t interval over seeds]{_metrics(outcome)}.",
        table(["arm", *names, whole], rows),
    ]
    rows = []
    for arm in outcome.arms if len(outcome.arms) > 1 else ():
        if not arm.is_baseline:
            gains = _estimates(outcome, arm.name, gain=True)
            test = outcome.over_tasks.get(arm.name)
            over = [interval(test.estimate, "+"), p_value(test.p_holm),
                    test.words(outcome.direction)] if test else [NONE] * 3  # fmt: skip
            cells = [interval(own, "+") for own in (*gains, arm.gain)]
            rows.append([arm.name, *cells, *over])
    if rows:
        about = ABOUT.format(what=_what(outcome), n=len(names))
        parts.append(f"Differences from `{outcome.baseline}`, paired by seed. {about}")
        head = ["arm", *names, whole, f"over {_what(outcome)}", "p (Holm)", "finding"]
        parts.append(table(head, rows))
    return "\n\n".join(parts)


def paper(source: published.Printed) -> str:
    """The section of the paper's table, as it is printed."""
    rows = [[row, *(f"{value:g}" for value in values)] for row, values in source.rows.items()]
    note = f" The paper contradicts itself here: {source.note}." if source.note else ""
    about = f"{source.name} of LR-LoRA (arXiv 2606.04325v1), in percent as it is printed.{note}"
    return f"## In the paper\n\n{about}\n\n{table(['', *source.columns], rows)}"


def terminal(outcome: Outcome) -> str:
    """Means alone, as a plain table; empty where the study has one task without parts."""
    if not outcome.tasks:
        return ""
    head = ["arm", *outcome.tasks, _whole(outcome), f"p over {_what(outcome)} (Holm)"]
    rows = []
    for arm in outcome.arms:
        test = outcome.over_tasks.get(arm.name)
        means = [number(mean) for mean, *_ in _estimates(outcome, arm.name)]
        p = p_value(test.p_holm) if test else ""
        rows.append([arm.name, *means, number(arm.summary.mean), p])
    return plain(grid(head, rows, left=("arm",)))


def _what(outcome: Outcome) -> str:
    return "tasks" if outcome.is_mean else "parts"


def _whole(outcome: Outcome) -> str:
    return f"mean over {len(outcome.tasks)}" if outcome.is_mean else outcome.metric


def _metrics(outcome: Outcome) -> str:
    """Where tasks have different metrics, which."""
    of = {name: own.metric for name, own in outcome.tasks.items()}
    if not outcome.is_mean or len(set(of.values())) == 1:
        return ""
    return " of " + ", ".join(f"`{metric}` for {name}" for name, metric in of.items())


def _estimates(outcome: Outcome, arm: str, *, gain: bool = False) -> list[Estimate]:
    """The arm's mean on each task, or its gain; nothing where it has not been trained there."""
    estimates = []
    for own in outcome.tasks.values():
        known = next((each for each in own.arms if each.name == arm), None)
        estimate = (None, None, None) if known is None else known.summary.estimate
        estimates.append(known.gain if known is not None and gain else estimate)
    return estimates
