"""What a run tells: rows with their goals, curves, and where it ran."""

import datetime
import platform
import subprocess
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import peft
import torch
import transformers


@dataclass(frozen=True)
class Row:
    """One figure against another, measured in the same run."""

    bench: str
    """The benchmark that measured it."""
    what: str
    value: float | None
    """The ratio; a plain count where there is nothing to compare; None where it did not fit."""
    goal: float | None = None
    at_least: bool = False
    """Whether the goal is a lower limit."""
    ours: float | None = None
    other: float | None = None
    against: str = ""
    """What `other` is."""
    unit: str = ""
    """Of `ours` and `other`."""
    note: str = ""
    """The floor that physics sets, or why there is no figure."""

    @property
    def is_met(self) -> bool | None:
        """Whether the goal is met; None without a goal or a figure."""
        if self.goal is None or self.value is None:
            return None
        return self.value >= self.goal if self.at_least else self.value <= self.goal

    def __str__(self) -> str:
        """One line for a terminal."""
        parts = [f"{self.what}: " + ("-" if self.value is None else f"{self.value:.3g}")]
        if self.goal is not None:
            verdict = {True: "met", False: "MISSED", None: "not measured"}[self.is_met]
            parts.append(f"goal {'>=' if self.at_least else '<='} {self.goal:g}: {verdict}")
        if self.ours is not None and self.other is not None:
            parts.append(f"{self.ours:.4g} against {self.other:.4g} {self.unit} ({self.against})")
        return "  ".join([*parts, self.note] if self.note else parts)


@dataclass(frozen=True)
class Curve:
    """Times over a parameter, for the plot."""

    label: str
    x: list[float]
    y: list[float]


@dataclass
class Run:
    """Everything one call measured."""

    place: dict[str, Any]
    rows: list[Row] = field(default_factory=list)
    curves: list[Curve] = field(default_factory=list)
    checks: list[dict[str, Any]] = field(default_factory=list)

    def add(self, *rows: Row) -> None:
        """Keep the rows and print them at once."""
        for row in rows:
            self.rows.append(row)
            print(f"  {row}", flush=True)

    def as_json(self) -> dict[str, Any]:
        """For a file."""
        rows = [{**asdict(row), "met": row.is_met} for row in self.rows]
        curves = [asdict(curve) for curve in self.curves]
        return {**self.place, "rows": rows, "curves": curves, "checks": self.checks}


def row_of(fields: dict[str, Any]) -> Row:
    """A row as `Run.as_json` wrote it."""
    return Row(**{name: value for name, value in fields.items() if name != "met"})


def place(device: str) -> dict[str, Any]:
    """The device, the versions, the commit and the day."""
    versions = {m.__name__: m.__version__ for m in (torch, transformers, peft)}
    if device == "cuda":
        import triton

        versions["triton"] = triton.__version__
        name = torch.cuda.get_device_name()
    else:
        name = f"{platform.machine()} CPU, {torch.get_num_threads()} threads"
    today = datetime.datetime.now(tz=datetime.UTC).date().isoformat()
    return {"device": name, "versions": versions, "commit": _commit(), "date": today}


def _commit() -> str:
    """The commit of this tree, with a plus where files differ; `unknown` outside git."""
    root = Path(__file__).parent
    try:
        commit = _git(root, "rev-parse", "--short", "HEAD")
        return commit + "+" * bool(_git(root, "status", "--porcelain", "--untracked-files=no"))
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _git(root: Path, *words: str) -> str:
    run = subprocess.run(
        ["git", *words], cwd=root, capture_output=True, text=True, check=True, timeout=60
    )
    return run.stdout.strip()
