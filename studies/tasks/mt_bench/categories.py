"""Grades by category of question, of one model or of several side by side."""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from studies.tasks.mt_bench.files import Question, read_done
from studies.tasks.mt_bench.judge import Grades, summary

Given = Mapping[int, Sequence[float | None]]
"""Number of a question to the grade of each turn; None where it could not be read."""
ALL = "all"


def by_category(questions: Sequence[Question], given: Given) -> dict[str, Grades]:
    """What `summary` says of each category that was graded, in the order of the questions, and of
    all."""
    graded = [question for question in questions if question.number in given]
    names = dict.fromkeys(question.category or "none" for question in graded)
    grades = {
        name: summary([given[q.number] for q in graded if (q.category or "none") == name])
        for name in names
    }
    return {**grades, ALL: summary([given[q.number] for q in graded])}


def read_grades(files: Mapping[str, Path]) -> dict[str, dict[int, list[float | None]]]:
    """What `judge` wrote for several models, by name.

    Raises:
        ValueError: a file has no grades, or they are not all of one judge.
    """
    judges: dict[str, str] = {}
    grades = {}
    for name, file in files.items():
        grades[name] = read_done(file, "grades")
        if not grades[name]:
            raise ValueError(f"{file} has no grades: write it with `judge` first")
        for judge in read_done(file, "judge").values():
            judges.setdefault(str(judge), str(file))
    if len(judges) > 1:
        names = ", ".join(f"{judge} in {file}" for judge, file in judges.items())
        raise ValueError(f"grades of different judges cannot be compared: {names}")
    return grades


def comparison(questions: Sequence[Question], models: Mapping[str, Given]) -> str:
    """Mean grades of each model by category, and how far each is from the first, as Markdown.

    Differences are paired by question, of the mean over its turns, with 95 % t intervals over the
    questions that all models have a grade of.
    """
    first, *others = models
    common = [q for q in questions if all(_mean(given, q) is not None for given in models.values())]
    head = ["category", "questions", *models, *(f"{name} − {first} [95 %]" for name in others)]
    rows = [head, ["---"] * len(head)]
    categories = [*dict.fromkeys(q.category or "none" for q in common), ALL]
    for category in categories:
        own = [q for q in common if category in (ALL, q.category or "none")]
        values = {name: [_mean(given, q) or 0.0 for q in own] for name, given in models.items()}
        cells = [category, str(len(own)), *(f"{_average(v):.2f}" for v in values.values())]
        for name in others:
            pairs = zip(values[name], values[first], strict=True)
            cells.append(_interval([one - other for one, other in pairs]))
        rows.append(cells)
    return "\n".join(f"| {' | '.join(cells)} |" for cells in rows)


def as_data(questions: Sequence[Question], models: Mapping[str, Given]) -> dict[str, Any]:
    """`by_category` of each model, for JSON; what there is no grade of is null."""
    return {
        name: {
            category: {k: None if math.isnan(v) else v for k, v in asdict(grades).items()}
            for category, grades in by_category(questions, given).items()
        }
        for name, given in models.items()
    }


def _mean(given: Given, question: Question) -> float | None:
    readable = [grade for grade in given.get(question.number, ()) if grade is not None]
    return statistics.fmean(readable) if readable else None


def _average(values: Sequence[float]) -> float:
    return statistics.fmean(values) if values else math.nan


def _interval(differences: Sequence[float]) -> str:
    from scipy.stats import t

    mean = _average(differences)
    if len(differences) < 2:
        return f"{mean:+.2f}"
    half = statistics.stdev(differences) / math.sqrt(len(differences))
    half *= float(t.ppf(0.975, len(differences) - 1))
    return f"{mean:+.2f} [{mean - half:+.2f}, {mean + half:+.2f}]"
