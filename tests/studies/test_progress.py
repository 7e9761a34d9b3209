"""What is shown while trials run, on a terminal and elsewhere."""

import json
from pathlib import Path

import pytest
from rich.console import Console

from studies.engine.command import progress as shown
from studies.engine.command.progress import Progress
from studies.engine.command.standing import MOST_ROWS, Standing
from studies.engine.records import Failure, Result, Trial
from studies.engine.reporting.rendering import interval
from studies.engine.running.events import Event

METRIC = "test/accuracy"


def metric_of(task: str = "") -> str:
    return METRIC


def trial(arm: str, seed: int) -> Trial:
    config = {"task": {"train_rows": 160}, "train": {"epochs": 2, "batch_size": 16}}
    return Trial(study="s", profile="p", arm=arm, seed=seed, config=config)


def event(kind: str, of: Trial, value: float | None = None, slot: int = 0, folder: Path = Path()):
    result = None
    if kind == "failed":
        failure = Failure(kind="exception", message="it broke")
        result = Result(key=of.key, status="failed", failure=failure)
    elif value is not None:
        result = Result(key=of.key, status="done", metrics={METRIC: value}, seconds=5.0)
    return Event(kind, of, folder, slot, result)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch):
    """Sets the time."""
    now = [1000.0]
    monkeypatch.setattr(shown.time, "monotonic", lambda: now[0])
    return lambda seconds: now.__setitem__(0, 1000.0 + seconds)


def made(terminal: bool, planned: list[Trial]) -> tuple[Progress, Console]:
    console = Console(width=80, force_terminal=terminal, record=True, file=open("/dev/null", "w"))
    standing = Standing(metric_of, "lora", planned)
    return Progress(console, len(planned), metric_of, standing), console


def display(progress: Progress) -> str:
    console = Console(width=80, record=True, file=open("/dev/null", "w"))
    console.print(progress._display())
    return console.export_text()


def test_a_terminal_shows_bar_arms_means_and_steps(tmp_path: Path, clock) -> None:
    planned = [trial(arm, seed) for seed in (0, 1) for arm in ("a", "b", "lora")]
    progress, _ = made(True, planned)
    progress.show(event("found", planned[2], 0.5))
    progress.show(event("started", planned[0]))
    assert "step" not in display(progress) and "latest" not in display(progress)
    clock(60)
    progress.show(event("done", planned[0], 0.6))
    progress.show(event("started", planned[1], folder=tmp_path))
    (tmp_path / "metrics.jsonl").write_text(json.dumps({"step": 5, "train/loss": 0.7}) + "\n")
    text = display(progress)
    assert "2 of 6 trials · 0 of 3 arms · about 4 min left" in text  # four more of 60 s
    assert ["a", "1/2", "0.6000", "+0.1000"] in [line.split() for line in text.splitlines()]
    assert ["lora", "1/2", "0.5000"] in [line.split() for line in text.splitlines()]
    assert "5/20 (25%)" in text and "train/loss 0.7" in text  # 160 rows twice, 16 a step
    progress.show(event("failed", planned[1]))
    progress.show(event("done", planned[3], 0.7))
    assert "4 of 6 trials · 1 of 3 arms" in display(progress)


def test_elsewhere_a_line_has_the_mean_and_the_time_left(clock) -> None:
    planned = [trial(arm, seed) for seed in (0, 1) for arm in ("lora", "a")]
    progress, console = made(False, planned)
    with progress:
        progress.show(event("started", planned[0]))
        clock(30)
        progress.show(event("done", planned[0], 0.5))
        progress.show(event("done", planned[1], 0.75))
        progress.show(event("failed", planned[2]))
    _, first, second, failed = console.export_text().splitlines()[:4]
    assert first.endswith("(mean of 1: 0.5000; about 2 min left)")
    assert second.endswith("(mean of 1: 0.7500, +0.2500 vs lora; about 30 s left)")
    assert "exception: it broke" in failed and "\x1b" not in first


def test_an_arm_with_a_failed_trial_is_not_among_those_that_have_all() -> None:
    planned = [trial(arm, seed) for arm in ("a", "lora") for seed in (0, 1)]
    standing = Standing(metric_of, "lora", planned)
    for of in planned[:2]:
        standing.take(of, event("done", of, 0.5).result)
    assert standing.arms == "1 of 2 arms"
    standing.take(planned[2], event("failed", planned[2]).result)
    assert standing.arms == "1 of 2 arms, 1 failed"


def test_a_difference_that_rounds_to_zero_has_no_minus() -> None:
    planned = [trial("lora", 0), trial("a", 0)]
    standing = Standing(metric_of, "lora", planned)
    for of, value in zip(planned, (0.5, 0.499999), strict=True):
        standing.take(of, event("done", of, value).result)
    assert standing.line("a") == "mean of 1: 0.5000, +0.0000 vs lora"
    assert interval((-1e-6, -0.1, 1e-6), "+") == "+0.0000 [-0.1000, +0.0000]"


def test_many_arms_and_points_of_a_search_leave_the_display_short() -> None:
    planned = [trial(f"arm {i}", 0) for i in range(MOST_ROWS + 5)]
    progress, _ = made(True, planned)
    for each in planned:
        progress.show(event("done", each, 0.5))
    assert "and 5 more" in display(progress)
    search = Standing(metric_of, "lora", [])
    search.take(planned[0], event("done", planned[0], 0.5).result)
    assert search.table() is None and search.arms == ""


def test_values_that_the_display_reads_are_not_changed_meanwhile() -> None:
    standing = Standing(metric_of, "lora", [trial("lora", seed) for seed in (0, 1)])
    standing.take(*((first := trial("lora", 0)), event("done", first, 0.5).result))
    reading = iter(standing._values["lora"])
    standing.take(*((second := trial("lora", 1)), event("done", second, 0.6).result))
    assert list(reading) == [("", 0)] and "mean of 2: 0.5500" in standing.line("lora")
