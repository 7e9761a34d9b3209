"""A plan on its own: the trials of a study as one JSON file that another machine can work off."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from studies.engine.errors import StudyError
from studies.engine.records import SCHEMA, Record, Trial, write_record


class Candidate(Record):
    """Values that an arm may keep: what scores them, and what it then runs."""

    scored_by: tuple[str, ...]
    """Keys of the tuning trials; none for the arm as the study has it, the last resort."""
    trials: tuple[Trial, ...]
    """The arm's trials of the study's seeds."""
    settings: dict[str, Any]
    """The values, by dotted path; none in the last resort."""


class Tuning(Record):
    """The stage after `Plan.trials` where those tune: each arm keeps its best candidate."""

    select_on: str
    direction: Literal["maximize", "minimize"]
    arms: tuple[tuple[Candidate, ...], ...]


class Plan(Record):
    """What is to be run, and what its owner needs to judge it."""

    study: str
    profile: str
    metric: str
    """A trial without a finite value of this counts as failed."""
    per_trial_minutes: float
    trials: tuple[Trial, ...]
    tuning: Tuning | None = None
    schema_version: int = SCHEMA


def write_plan(path: Path, plan: Plan) -> None:
    """Write `plan` to `path`, whole or not at all."""
    write_record(path, plan)


def read_plan(path: Path) -> Plan:
    """The plan in the file `path`.

    Raises:
        StudyError: there is none, or it was written by another version.
    """
    try:
        return Plan.model_validate_json(path.read_bytes())
    except OSError as error:
        raise StudyError(f"{path}: cannot be read: {error.strerror}") from None
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"])) or "file"
        raise StudyError(
            f"{path}: no plan: {where}: {first['msg']}. Write it with "
            "`python run_study.py STUDY.yaml --export-plan FILE` of this version"
        ) from None


def trials_of(plans: Sequence[Plan]) -> list[tuple[Plan, Trial]]:
    """Every trial of `plans` with its plan; a point that two plans share is run for each."""
    return [(plan, trial) for plan in plans for trial in plan.trials]
