"""Attempts as rows: what a study's database holds, whichever database that is."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from studies.engine.records import Result, Trial

INTERRUPTED = "interrupted before it had a result; queued again"


@dataclass(frozen=True)
class Row:
    """One attempt."""

    number: int
    state: Literal["waiting", "running", "complete", "failed"]
    attributes: Mapping[str, Any]
    """point, arm, seed, swept; tries: failures before it; beat: [owner, count]; result, message."""

    @property
    def point(self) -> str:
        """Key of the trial."""
        return str(self.attributes.get("point"))

    @property
    def alive(self) -> bool:
        """Whether a result may still come of it."""
        return self.state in ("waiting", "running")

    @property
    def owner(self) -> str:
        """The dispatcher that claimed it; "" where none has said so."""
        beat = self.attributes.get("beat")
        return str(beat[0]) if beat else ""

    @property
    def result(self) -> Result | None:
        """What it found; None where it ended without a result of its own."""
        found = self.attributes.get("result")
        if self.alive or found is None:
            return None
        result = Result.model_validate(found)
        return result if (result.status == "done") == (self.state == "complete") else None


class Table(Protocol):
    """The rows of one study; every method raises `Unreachable` where the database is away."""

    def locked(self, wait: bool = True) -> AbstractContextManager[bool]:
        """Keep other planners of this study out; False where one is at work and `wait` is not."""

    def rows(self) -> list[Row]:
        """All rows, oldest first."""

    def add(self, attributes: Mapping[str, Any], value: float | None = None) -> None:
        """A new row: complete with `value`, or waiting."""

    def claim(self, number: int) -> bool:
        """Waiting to running; False where another was first."""

    def write(self, number: int, name: str, value: Any) -> bool:
        """Set an attribute; False where the row has ended."""

    def end(self, number: int, value: float | None) -> bool:
        """Complete with `value`, or failed; False where the row had ended before."""


def outcome(rows: Sequence[Row]) -> Result | None:
    """The result of a point; a failed one only where nobody tries it again."""
    ended = [row.result for row in rows if row.result is not None]
    done = [result for result in ended if result.status == "done"]
    if done or any(row.alive for row in rows):
        return done[0] if done else None
    return ended[-1] if ended else None


def attributes_of(trial: Trial) -> dict[str, Any]:
    """What a row says of `trial`."""
    return {"point": trial.key, "arm": trial.arm, "seed": trial.seed, "swept": trial.swept}


def attributes_again(row: Row) -> dict[str, Any]:
    """What a row for another attempt at the point of `row` says."""
    names = ("point", "arm", "seed", "swept", "tries")
    return {name: row.attributes[name] for name in names if name in row.attributes}
