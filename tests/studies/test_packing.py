"""`--slots auto`: the arithmetic on made-up machines, and the measurement of a tiny model."""

from pathlib import Path
from typing import Any

import pytest

from studies.engine.records import Trial
from studies.engine.running import packing, slots
from studies.engine.trials import devices
from studies.engine.trials.training.captured import WARM_UP

pytestmark = pytest.mark.slow

GIB = 2**30


@pytest.mark.parametrize(
    ("free", "peak", "cores", "count"),
    [
        ([80 * GIB], 10 * GIB, 64, 6),  # 72 / 11.5
        ([80 * GIB, 80 * GIB], 10 * GIB, 64, 12),
        ([80 * GIB, 30 * GIB], 10 * GIB, 64, 4),  # as many on each as on the fullest
        ([80 * GIB, 1 * GIB], 10 * GIB, 64, 2),  # never less than one a GPU
        ([80 * GIB], 1 * GIB, 16, 16),  # no more than cores
        ([80 * GIB] * 4, 1 * GIB, 2, 4),
    ],
)
def test_trials_are_packed_by_the_free_memory_of_the_gpus(
    free: list[int], peak: int, cores: int, count: int
) -> None:
    assert packing.fit_on_gpus(free, peak, cores) == count


@pytest.mark.parametrize(
    ("cores", "free", "peak", "count"),
    [(8, 64 * GIB, GIB, 8), (8, 4 * GIB, GIB, 3), (8, GIB, 4 * GIB, 1)],
)
def test_trials_on_a_cpu_share_cores_and_memory(
    cores: int, free: int, peak: int, count: int
) -> None:
    assert packing.fit_on_cpu(cores, free, peak) == count


TABLE = "0, GPU-aaaa1111, 1000\n1, GPU-bbbb2222, 2000\n2, GPU-cccc3333, 3000\n"


@pytest.mark.parametrize(
    ("names", "count", "free"),
    [(None, 3, [1000, 2000, 3000]), ("2,0", 2, [3000, 1000]), ("GPU-bbbb2222", 1, [2000])],
)
def test_free_memory_is_that_of_the_gpus_that_may_be_used(
    names: str | None, count: int, free: list[int]
) -> None:
    assert packing.visible(TABLE, names, count) == [mib * 2**20 for mib in free]


def test_free_memory_here_is_some() -> None:
    assert 2**20 < packing.free_memory() < 2**50


@pytest.fixture
def arms(make: Any, monkeypatch: pytest.MonkeyPatch) -> list[Trial]:
    """Two sizes of LoRA, with two seeds each."""
    monkeypatch.setattr(devices, "gpus", lambda: 0)
    return [
        make(seed=seed, adapter={"r": r}).model_copy(update={"arm": f"r={r}"})
        for r in (2, 8)
        for seed in (0, 1)
    ]


def test_the_largest_arm_is_measured_once(
    arms: list[Trial], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr(devices, "cores", lambda: 64)
    monkeypatch.setattr(packing, "free_memory", lambda: 8 * GIB)
    count = packing.measured_slots(arms, tmp_path, said.append)
    peak = packing.Peak.model_validate_json((tmp_path / "peak.json").read_text())
    assert peak.arm == "r=8"
    assert 100 * 2**20 < peak.peak_bytes < 2 * GIB  # torch itself takes some hundreds of MiB
    assert count == packing.fit_on_cpu(64, 8 * GIB, peak.peak_bytes) > 1
    assert said == [f"--slots auto: r=8 needs {peak.peak_bytes / 2**20:.0f} MiB; {count} at once"]

    def again(*arguments: object) -> None:
        raise AssertionError("measured twice")

    monkeypatch.setattr(packing, "measure", again)
    faster = [t.model_copy(update={"config": t.config | {"train": t.config["train"] | {
        "learning_rate": 0.5}}}) for t in arms]  # fmt: skip
    assert packing.measured_slots(faster, tmp_path, said.append) == count
    with pytest.raises(AssertionError, match="measured twice"):
        packing.measured_slots(arms[:1], tmp_path, said.append)


def test_a_gpu_is_measured_until_steps_are_captured(
    arms: list[Trial], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert packing.probe(arms[0]).config["train"]["max_steps"] == 3
    monkeypatch.setattr(devices, "gpus", lambda: 1)
    assert packing.probe(arms[0]).config["train"]["max_steps"] > WARM_UP + 2


@pytest.mark.thorough
def test_an_arm_that_cannot_be_measured_leaves_the_default(make: Any, tmp_path: Path) -> None:
    said: list[str] = []
    broken = make(task={"name": "no-such.csv"})
    assert packing.measured_slots([broken], tmp_path, said.append) == slots.default_slots()
    assert "no such file no-such.csv" in said[0] and "one a core" in said[0]
    assert not (tmp_path / "peak.json").exists()
