"""A plan on its own: the trials of a study as one JSON file that another machine can work off."""

from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError

from studies.engine.definition.study import Budget
from studies.engine.errors import StudyError
from studies.engine.planning.tuning import Tuning
from studies.engine.program import program
from studies.engine.records import Record, Result, Trial


class Plan(Record):
    """What is to be run, and what its owner needs to judge it."""

    schema_version: Literal[2] = 2
    study: str
    profile: str
    metric: str
    """A trial without a finite value of this counts as failed."""
    metric_of: dict[str, str] = Field(default_factory=dict)
    """By task, where the study has several."""
    budget: Budget
    trials: tuple[Trial, ...]
    tuning: Tuning | None = None
    """The seeds that follow where `trials` tune."""
    results: tuple[Result, ...] = ()
    """What these and their seeds had found where the plan was written; none of it runs again."""


def read_plan(path: Path) -> Plan:
    """The plan in the file `path`; raises `StudyError` where there is none of this version."""
    try:
        return Plan.model_validate_json(path.read_bytes())
    except OSError as error:
        raise StudyError(f"{path}: cannot be read: {error.strerror}") from None
    except ValidationError as error:
        problems = {problem["loc"]: problem for problem in error.errors(include_url=False)}
        first = problems.get(("schema_version",)) or next(iter(problems.values()))
        where = ".".join(map(str, first["loc"])) or "file"
        raise StudyError(
            f"{path}: no plan: {where}: {first['msg']}, got {str(first['input'])[:60]}. Write it "
            f"with `{program()} STUDY.yaml --export-plan FILE` of this version"
        ) from None
