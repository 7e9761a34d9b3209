"""The paper's tables, and the ablations among them in a form that stands beside our own figures.

The data is `lr_lora.yaml`. The paper's harnesses differ from ours and from one
another, so what a report compares is the *difference from the matched baseline*; the absolute
figure is shown for orientation only. Percentages become fractions here, the unit of our own
metrics.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from studies.sections import unlike

TABLES = Path(__file__).with_name("lr_lora.yaml")
METRIC = "accuracy"
"""What every ablation table of the paper measures."""
METHOD, BASELINE = "basis", "lora"
"""The adapter whose settings are the rows of the ablation tables, and what it is compared with."""


@dataclass(frozen=True)
class Figure:
    """One published figure, as fractions."""

    mean: float
    std: float | None
    difference: float | None
    """Mean minus the baseline of the same harness; None where the paper prints no such baseline."""


@dataclass(frozen=True)
class Table:
    """One ablation table: figures for each swept value."""

    name: str
    values: tuple[Any, ...]
    """What was swept; None where the paper's text lost it."""
    figures: tuple[Figure, ...]
    baseline: str
    """The baseline's name and where it is printed; empty where there is none."""
    baseline_figure: Figure | None
    """None where there is none, or where it differs from value to value."""
    baseline_figures: tuple[Figure, ...]
    """The baseline at each value where it differs from value to value, without a difference."""
    note: str
    """Where the paper contradicts it; empty where nothing does."""

    def at(self, value: Any, method: str = METHOD) -> Figure | None:
        """The figure of `method` for a swept `value`, or None where the paper has none for it.

        Numbers match by value (8 and 8.0), but never a truth value: True is not 1.
        """
        of = {METHOD: self.figures, BASELINE: self.baseline_figures}
        figures = self.figures if method in self.values else of.get(method)
        if value is None or not figures:
            return None
        for known, figure in zip(self.values, figures, strict=True):
            if known == value and isinstance(known, bool) == isinstance(value, bool):
                return figure
        return None


def tables() -> dict[str, dict[str, Any]]:
    """Every ablation table as it is printed, by the name that a study gives as its `table`."""
    return _read()["ablations"]


def other_tables() -> dict[str, dict[str, Any]]:
    """The tables of other shapes as they are printed, by name; no study can give one."""
    return _read()["tables"]


@cache
def _read() -> dict[str, dict[str, dict[str, Any]]]:
    content: dict[str, dict[str, dict[str, Any]]] = yaml.safe_load(TABLES.read_bytes())
    return content


def get_table(name: str) -> Table:
    """The table called `name`; raises ValueError with a suggestion for an unknown one."""
    if name not in tables():
        raise ValueError(unlike(f"unknown published table {name!r}", name, tables()))
    raw = tables()[name]
    base, values = raw["baseline"], raw["values"]
    means: Any = base["mean"] if base is not None else None
    one = base is not None and not isinstance(means, list)
    base_means = means if isinstance(means, list) else [means] * len(values)
    return Table(
        name,
        values=tuple(values),
        figures=tuple(map(_figure, raw["mean"], raw["std"], base_means)),
        baseline=f"{base['name']} ({base['source']})" if base is not None else "",
        baseline_figure=_figure(means, base["std"], means) if one else None,
        baseline_figures=()
        if base is None or one
        else tuple(_figure(mean, std, None) for mean, std in zip(means, base["std"], strict=True)),
        note=raw.get("note", ""),
    )


def check(table: str, metric: str) -> None:
    """Raise ValueError where `table` is unknown or does not measure the study's `metric`."""
    get_table(table)
    if metric.rpartition("/")[2] != METRIC:
        raise ValueError(
            f"{table} measures {METRIC}, but the study's objective is {metric!r}: "
            f"use test/{METRIC} or leave `published` out"
        )


@dataclass(frozen=True)
class Printed:
    """A table of several tasks, or a part of one, as it is printed."""

    name: str
    columns: tuple[str, ...]
    rows: Mapping[str, tuple[float, ...]]
    note: str
    """Where the paper contradicts it; empty where nothing does."""


def printed(name: str, part: str | None) -> Printed:
    """The table called `name`, of which `part` names one of several models.

    Raises:
        ValueError: there is no such table or part, or `part` must say which.
    """
    raw = other_tables().get(name, {})
    columns = tuple(raw.get("columns", ()))
    if not columns:
        known = [each for each, table in other_tables().items() if "columns" in table]
        raise ValueError(unlike(f"no published table of tasks is called {name!r}", name, known))
    body = {key: value for key, value in raw.items() if key not in ("columns", "note")}
    parts = [key for key, value in body.items() if _values(value) is None]
    if part is not None or parts:
        if part not in parts:
            problem = (
                f"{name} has a part for each model: say which" if parts else f"{name} has no parts"
            )
            raise ValueError(unlike(f"{problem}, got {part!r}", part, parts, "Parts"))
        body = body[part]
    rows = {row: _values(value) for row, value in body.items()}
    numbers = {row: tuple(values) for row, values in rows.items() if values is not None}
    return Printed(f"{name}: {part}" if part else name, columns, numbers, raw.get("note", ""))


def _values(row: Any) -> list[float] | None:
    """The numbers of a row; None where it is a part of the table, or no row of its columns."""
    values = row.get("mean") if isinstance(row, dict) else row
    return values if isinstance(values, list) else None


def _figure(mean: float, std: float | None, baseline: float | None) -> Figure:
    # 10 digits: 71.4 / 100 - 67.8 / 100 would carry binary noise into the report
    difference = None if baseline is None else round((mean - baseline) / 100, 10)
    return Figure(round(mean / 100, 10), None if std is None else round(std / 100, 10), difference)
