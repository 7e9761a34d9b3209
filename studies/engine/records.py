"""What flows between the rooms of the engine: a `Trial` goes in, a `Result` comes out.

Both are frozen values that survive JSON unchanged, so a machine without Optuna or MLflow can work
off trials and its results can be imported elsewhere.
"""

import hashlib
import json
import math
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
)

from studies import files
from studies.engine.labels import flat, short_settings

SCHEMA = 2
"""Version of `trial.json`, `result.json` and plan files. 1 had no stages: a trial of a tuning stage
was called `ARM [SETTINGS]`, a point of a search `ARM #NUMBER`."""

Stage = Literal["search", "tune", "seeds"]
"""What a trial is for: to choose the settings of an arm, or to measure the arm."""


ADAPTER, ABOUT = "adapter", "trained.json"
"""In a trial's folder: what it has trained, and what of that is no tensor."""
PREDICTIONS = "predictions.npz"
"""There as well: its scores on every test row."""


class Record(BaseModel):
    """A strict, frozen value."""

    # NaN as such: as null it could not be read again, and a trial that failed would be run again
    model_config = ConfigDict(extra="forbid", frozen=True, ser_json_inf_nan="constants")


Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.=+-]*$", max_length=80)]
"""What may become the name of a folder."""
Amount = Annotated[float, Field(ge=0, allow_inf_nan=False)]


def _is_moment(text: str) -> str:
    if text:
        datetime.fromisoformat(text)
    return text


def _listed(given: Any) -> Any:
    return [] if given is None else [given] if isinstance(given, str) else given


def _each_once(names: tuple[str, ...]) -> tuple[str, ...]:
    if len(set(names)) < len(names):
        raise ValueError(f"each once, got {', '.join(names)}")
    return names


Keeps = Annotated[
    tuple[Literal["adapter", "mlflow", "predictions"], ...],
    BeforeValidator(_listed),
    AfterValidator(_each_once),
]
"""What of a trial stays beside its result: one of them, several, or null for nothing."""


class Trial(Record):
    """One training run with every setting resolved."""

    study: Name
    profile: Name
    arm: str
    """Name of the arm; trials of a stage that differ only in `task` and `seed` share it."""
    seed: int
    task: str = ""
    """Which of the study's `tasks` it is; empty where the study has one alone."""
    stage: Stage = "seeds"
    candidate: dict[str, Any] = {}
    """The dotted settings that a stage before the seeds tries out on the arm."""
    point: Annotated[int, Field(ge=1)] | None = None
    """Which point of its search this is, from 1; None in the other stages."""
    asked: dict[str, int] = {}
    """Every space, in 8 hex digits, that a search chose the point from, and which of its points it
    is; none in the other stages, and where an earlier version asked for it."""
    swept: dict[str, Any] = {}
    """The dotted settings in which this arm differs from the study's body."""
    config: dict[str, Any]
    """The resolved configuration: keys backbone, task, adapter, train, split_seed; match, the
    adapter whose number of trained parameters this arm's size is chosen for; select_on, by what an
    evaluation is told to be good; and after, what is evaluated beyond the trained model."""
    keep: Keeps = ()
    """Whether the trained adapter stays in the trial's folder, and is shown by MLflow too, and
    whether scores by test row do. It decides no number, so it is not part of the key."""
    plugins: tuple[str, ...] = ()
    """Absolute paths of the plug-in files that the trial uses."""
    plugin_hashes: tuple[str, ...] = ()
    """sha256 of each plug-in's content: another content is another point."""
    contents: dict[str, str] = {}
    """sha256 of the user's own files that each section reads (backbone, task): another content is
    another point. None of what ships and of hub ids, and in files of earlier versions."""
    schema_version: int = SCHEMA

    @property
    def label(self) -> str:
        """The arm, and what is tried out on it: `lora`, `lora [learning_rate=0.001]`, `phi #3`."""
        if self.stage == "search":
            return f"{self.arm} #{self.point}"
        return f"{self.arm} [{short_settings(self.candidate)}]" if self.candidate else self.arm

    @property
    def title(self) -> str:
        """The label, and on which of several tasks it is: `lora on sarcasm`."""
        return f"{self.label} on {self.task}" if self.task else self.label

    @property
    def keeps_adapter(self) -> bool:
        """Whether what it has trained stays in its folder."""
        return bool({"adapter", "mlflow"}.intersection(self.keep))

    @property
    def cell(self) -> tuple[str, str]:
        """Arm and task: trials of a stage that share them differ in candidate and seed."""
        return self.arm, self.task

    @property
    def settings(self) -> dict[str, Any]:
        """Every setting by its dotted path."""
        return flat({**self.swept, **self.candidate}) | flat(self.config)

    @property
    def varied(self) -> dict[str, Any]:
        """Those of its settings that its study sweeps or tries, by name or with their section."""
        several = ["task.name"] if self.task else []
        own = tuple(f"{path}." for path in (*self.swept, *self.candidate, *several))
        return {path: v for path, v in self.settings.items() if f"{path}.".startswith(own)}

    @property
    def key(self) -> str:
        """16 hex digits that name this point: a hash of what decides its result, not of labels."""
        content = [deciding(self.config), self.seed, sorted(self.plugin_hashes)]
        content += [self.contents] if self.contents else []
        canonical = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
        return hashlib.sha256(canonical.encode()).hexdigest()[:16]


_BEFORE = {"deterministic": False, "threads": 1, "capture": "auto", "keep": "last",
           "patience": None, "penalties": {}, "load_phi": None, "phi_rate": 1.0,
           "phi_from": 0.0, "phi_until": 1.0, "bandwidth_to": 1.0,
           "input_scale_to": 1.0}  # fmt: skip
"""What trials did before they could be asked to do otherwise."""


def deciding(config: dict[str, Any]) -> dict[str, Any]:
    """`config` without what decides no result, so that it may change while a study runs."""
    train = dict(config.get("train", {}))
    train.pop("checkpoint_minutes", None)
    for name, before in _BEFORE.items():
        if name in train and train[name] == before:
            del train[name]  # as it was before there was a choice
    return {**config, "train": train} if "train" in config else config


class Failure(Record):
    """Why a trial has no result."""

    kind: Literal["exception", "not_finite", "out_of_memory", "timeout", "signal", "disk_full",
                  "pruned", "changed"]  # fmt: skip
    message: str
    """One line: what happened and, where known, what to do."""


class Cost(Record):
    """What a trial cost."""

    trainable_parameters: int
    adapter_parameters: int
    """Trainable parameters without the task's head."""
    phi_parameters: int
    """Trainable parameters of the nonlinearities alone."""
    total_parameters: int
    train_seconds: Amount
    step_seconds: Amount
    """Median seconds of one optimizer step."""
    peak_memory_bytes: int
    """Peak device memory on a GPU, peak resident memory of the process on a CPU."""
    tokens_per_second: Amount | None = None
    data_share: Amount | None = None
    """Share of the training time in which batches were made and nothing was trained."""
    processor_seconds: Amount | None = None
    """Processor time of training, evaluations and `after`, on all threads of the trial."""


class BestStep(Record):
    """Which parameters of a training are measured, where they are not those of its last step."""

    step: int
    """After which step they were evaluated."""
    metric: str
    value: float
    """The metric's, the best of all evaluations."""
    trained: int
    """How many steps were trained."""


class Result(Record):
    """What a trial found, or why it failed."""

    key: str
    status: Literal["done", "failed"]
    failure: Failure | None = None
    metrics: dict[str, float] = {}
    """Final metrics: train/loss, valid/<metric>, test/<metric>, after/<evaluation>/..."""
    cost: Cost | None = None
    kept: BestStep | None = None
    """The evaluation whose parameters `metrics` are of; None: those of the last step."""
    data: dict[str, Any] = {}
    """hash, rows per split, majority class share per split, source, licence."""
    backbone: dict[str, Any] = {}
    """name, and sha256 of each file that the weights were read from."""
    chosen: dict[str, Any] = {}
    """The size that was chosen inside the trial: option, value, parameters,
    reference_parameters."""
    environment: dict[str, Any] = {}
    """python, torch, transformers, peft, device, driver, git commit, host."""
    started: Annotated[str, AfterValidator(_is_moment)] = ""
    """UTC, ISO 8601."""
    seconds: Amount = 0.0
    attempt: Annotated[int, Field(ge=1)] = 1
    micro_batch: int | None = None
    """Rows of one forward pass where fewer than train.batch_size fitted into memory."""
    notes: tuple[str, ...] = ()
    """What the trial went through that a reader of its numbers should know."""
    schema_version: int = SCHEMA

    @property
    def pruned(self) -> bool:
        """Whether it was ended on purpose: a search ends points that lag behind."""
        return self.failure is not None and self.failure.kind == "pruned"

    @property
    def changed(self) -> bool:
        """Whether it trained nothing, as a file was not what it was when the trial was planned."""
        return self.failure is not None and self.failure.kind == "changed"


def write_record(path: Path, record: Record) -> None:
    """Write `record` to `path`, whole or not at all."""
    files.write_text(path, record.model_dump_json(indent=2))


def read_result(run_dir: Path) -> Result | None:
    """The result in `run_dir`, or None where there is none that is whole."""
    path = run_dir / "result.json"
    try:
        return Result.model_validate_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):  # not there, not whole, or a folder
        return None


def read_trial(run_dir: Path) -> Trial:
    """The trial that `run_dir` was made for."""
    return Trial.model_validate_json((run_dir / "trial.json").read_text(encoding="utf-8"))


def value_of(result: Result, metric: str) -> float | None:
    """A metric of a finished trial, or `cost/<field>`; None where it has none."""
    section, _, name = metric.partition("/")
    value = getattr(result.cost, name, None) if section == "cost" else result.metrics.get(metric)
    return float(value) if value is not None and math.isfinite(value) else None
