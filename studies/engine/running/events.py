"""What the loop says while it works, and how it ends when it ends early."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:  # with pydantic, which `--help` does without
    from studies.engine.records import Result, Trial


@dataclass(frozen=True)
class Event:
    """Something that happened to a trial."""

    kind: Literal["found", "started", "done", "failed", "retry", "interrupted"]
    trial: "Trial"
    run_dir: Path
    slot: int | None = None
    result: "Result | None" = None


class Interrupted(Exception):
    """A signal asked the loop to stop; what it ran is queued again."""


class Stopped(Exception):
    """The loop gave up before all trials were run; the message says why and what to do."""
