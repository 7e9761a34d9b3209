"""How a trial's folder travels between machines, and the slot that it travels to."""

import tempfile
from pathlib import Path

from fake_trials import make_trials

from studies.engine.running.cluster import pieces
from studies.engine.running.cluster.pieces import Outbox, Piece, put
from studies.engine.running.cluster.remote import News, Order, RemoteSlot, bring_home
from studies.engine.running.protocols import Exit
from studies.engine.trials.preemption import PREEMPTED


def moved(outbox: Outbox, there: Path, everything: bool = False) -> None:
    for piece in outbox.everything() if everything else outbox.news():
        put(there, piece)


def test_a_folder_comes_home_as_it_grows_and_whole_at_the_end(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(pieces, "PIECE_BYTES", 3)
    here, there = tmp_path / "here", tmp_path / "there"
    there.mkdir()
    (here / "checkpoint-10" / "deep").mkdir(parents=True)
    (here / "checkpoint-10" / "deep" / "x").write_bytes(bytes(range(10)))
    (here / "checkpoint-10" / "empty").touch()
    (here / "metrics.jsonl").write_text("a\nb")
    outbox = Outbox(here)
    moved(outbox, there)
    assert (there / "metrics.jsonl").read_text() == "a\n"  # a line that is being written stays
    assert (there / "checkpoint-10" / "deep" / "x").read_bytes() == bytes(range(10))
    assert list(outbox.news()) == []
    (here / "metrics.jsonl").write_text("c")  # begun again
    for name in ("result.json", "spectra.npz", "trial.json", ".scratch"):
        (here / name).write_text("four")
    order = [piece.name for piece in Outbox(here, known=["checkpoint-10"]).everything()]
    assert order[-1] == "result.json" and "trial.json" not in order
    moved(outbox, there, everything=True)
    assert sorted(path.name for path in there.iterdir()) == [
        "checkpoint-10", "metrics.jsonl", "result.json", "spectra.npz",
    ]  # fmt: skip
    assert (there / "metrics.jsonl").read_text() == "c"
    assert (there / "spectra.npz").read_text() == "four"


def test_half_of_a_file_is_not_seen(tmp_path: Path) -> None:
    put(tmp_path, Piece("result.json", 0, b"half"))
    put(tmp_path, Piece("checkpoint-1/x", 0, b"half"))
    assert not (tmp_path / "result.json").exists() and not any(tmp_path.glob("checkpoint-*"))
    pieces.drop_half(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [".result.json"]
    put(tmp_path, Piece("result.json", complete=True))
    assert (tmp_path / "result.json").read_bytes() == b"half"


def test_checkpoints_that_a_trial_removed_go_at_home_too(tmp_path: Path) -> None:
    for step in (1, 2):
        (tmp_path / f"checkpoint-{step}").mkdir()
    bring_home(tmp_path, News([], None))
    bring_home(tmp_path, News([], ("checkpoint-2",)))
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-2"]


def test_an_order_that_was_ended_is_not_trained(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    slot = RemoteSlot(lambda processes: ["false"], 1, 1)
    (trial,) = make_trials({})
    slot.end(7)
    slot.open(Order(7, trial.model_dump_json()))
    slot.start()
    assert slot.look().exit == Exit(PREEMPTED)
    slot.close()
    assert [path.name for path in tmp_path.glob("basis-zoo-*/*")] == ["lock"]
