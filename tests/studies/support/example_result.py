"""A trial, its result as a worker writes it, and the study that they belong to."""

from pathlib import Path
from types import SimpleNamespace

from studies.engine.records import Trial

TRIAL = Trial(study="s", profile="embedded", arm="a", seed=0, config={"adapter": {"r": 8}})
RESULT = {"key": TRIAL.key, "status": "done", "metrics": {"test/accuracy": 0.5}, "seconds": 1.0,
          "started": "2026-01-02T03:04:05+00:00"}  # fmt: skip
STUDY = SimpleNamespace(
    name="s",
    profile="embedded",
    objective=SimpleNamespace(metric="test/accuracy"),
    objective_of=lambda task="": SimpleNamespace(metric="test/accuracy"),
    path=Path("s.yaml"),
    chosen={},
)
