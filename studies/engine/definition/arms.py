"""The sections `arms` and `tasks`: what is written by hand, by name and with what differs."""

from typing import Annotated, Any

from pydantic import Field, model_validator

from studies.sections import Line, Section


class StudyTask(Section):
    """One of several tasks: its name, and what differs on it."""

    name: Annotated[Line, Field(max_length=80, examples=["sarcasm"])]
    """What the task is called in the report and in `claims`. It stands for the name in `task`,
    whose other keys all tasks share, unless `set` gives another."""
    metric: Annotated[Line | None, Field(examples=["test/matthews"])] = None
    """What is compared on this task; null: the objective's. Its direction is the objective's."""
    select_on: Annotated[Line | None, Field(examples=["valid/matthews"])] = None
    """What is chosen by on this task; null: what the objective says."""
    set: Annotated[dict[str, Any], Field(examples=[{"train.epochs": 10}])] = {}
    """Dotted settings of this task."""

    @model_validator(mode="before")
    @classmethod
    def _may_be_a_name(cls, entry: Any) -> Any:
        return {"name": entry} if isinstance(entry, str) else entry


class Arm(Section):
    """One arm written by hand."""

    name: Annotated[Line, Field(max_length=80, examples=["lora"])]
    """What the arm is called in the report, in `baseline` and in `claims`."""
    note: Annotated[str, Field(examples=["same rank, no nonlinearity"])] = ""
    """Shown beside the arm in the report."""
    adapter: Annotated[dict[str, Any], Field(examples=[{"method": "lora"}])] = {}
    """Merged over the study's adapter; another `method` inherits only the common options."""
    set: Annotated[dict[str, Any], Field(examples=[{"train.learning_rate": 1e-4}])] = {}
    """Dotted settings of this arm; `{times: 0.5}` is half of what the study has there, or of what
    `tune` tries."""
