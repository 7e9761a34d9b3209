"""What the environment of a slot says."""

from pathlib import Path

import pytest

from studies.engine.running import slots
from studies.engine.trials import devices


def test_a_slot_gets_its_share_of_the_cores_unless_the_user_says_otherwise(monkeypatch) -> None:
    monkeypatch.setattr(devices, "cores", lambda: 8)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert slots.environment(0, 2)["OMP_NUM_THREADS"] == "4"
    assert slots.environment(0, 16)["OMP_NUM_THREADS"] == "1"
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert slots.environment(0, 2)["OMP_NUM_THREADS"] == "3"


def test_slots_share_the_gpus_in_turn(monkeypatch) -> None:
    monkeypatch.setattr(devices, "gpus", lambda: 2)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,7")
    assert [slots.environment(i, 3)["CUDA_VISIBLE_DEVICES"] for i in range(3)] == ["4", "7", "4"]


def test_gpus_are_counted_by_torch_where_the_machine_has_files_of_any(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(devices, "_DEV", tmp_path)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 3)
    (tmp_path / "nvme0").touch()
    assert devices.gpus() == 0
    (tmp_path / "nvidia0").touch()
    assert devices.gpus() == 3
