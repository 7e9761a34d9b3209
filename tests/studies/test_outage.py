"""A dispatcher whose database does not answer for a while, or never again."""

from pathlib import Path

import fake_trials
import pytest

from studies.engine import runs
from studies.engine.dispatching import loop, outage
from studies.engine.events import Interrupted, Stopped, Unreachable
from studies.engine.records import Result, Trial


class Silent:
    """A ledger of one that does not answer for a while, and then again."""

    def __init__(self) -> None:
        self.away, self.told, self.numbers = False, [], iter(range(100))

    def _ask(self) -> None:
        if self.away:
            raise Unreachable("no route")

    def enqueue(self, *trials: Trial) -> None:
        self._ask()

    def claim(self, trial: Trial) -> int:
        self._ask()
        return next(self.numbers)

    def heartbeat(self, number: int) -> None:
        self._ask()

    def tell(self, number: int, result: Result) -> bool:
        self._ask()
        self.told.append(result.status)
        return True

    def give_back(self, number: int, trial: Trial) -> None:
        self._ask()


def make_loop(tmp_path: Path, ledger: Silent, monkeypatch, signals=()):
    monkeypatch.setattr(loop.slots, "environment", lambda *given: {})
    events, said = [], []
    made = loop.Loop(
        fake_trials.make_study(retries=0), tmp_path, 1, events.append,
        lambda run_dir: fake_trials.command(tmp_path / "journal", run_dir),
        ledger, list(signals), None, said.append,
    )  # fmt: skip
    return made, events, said


def test_a_result_found_during_an_outage_is_told_after_it(tmp_path, monkeypatch) -> None:
    ledger = Silent()
    made, events, said = make_loop(tmp_path, ledger, monkeypatch)
    trials = fake_trials.make_trials({}, {})
    finished = runs.trial_dir(trials[0], tmp_path) / "result.json"

    def sleep(seconds: float, real=loop.time.sleep) -> None:
        real(seconds)
        # away from the first start until its result is there and was offered in vain
        ledger.away = bool(events) and not (finished.exists() and said)

    monkeypatch.setattr(loop.time, "sleep", sleep)
    made.work(trials)
    assert ledger.told == ["done", "done"]
    assert [event.kind for event in events] == ["started", "done"] * 2
    assert ["no route" in said[0], "is back after" in said[1], len(said)] == [True, True, 2]


def test_an_outage_without_end_ends_the_dispatcher_and_keeps_results(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(outage, "PATIENCE_SECONDS", 0.3)
    ledger = Silent()
    made, _, said = make_loop(tmp_path, ledger, monkeypatch)
    ledger_claim = ledger.claim

    def claim(trial: Trial) -> int:
        number = ledger_claim(trial)
        ledger.away = True
        return number

    ledger.claim = claim
    trial = fake_trials.make_trials({})[0]
    with pytest.raises(Stopped, match=r"has not answered .*: no route\. Results are kept"):
        made.work([trial])
    assert runs.result_of(trial, tmp_path).status == "done"
    assert "told by the next run" in said[-1]


def test_ctrl_c_during_an_outage_ends_at_once(tmp_path, monkeypatch) -> None:
    ledger = Silent()
    ledger.away = True
    made, _, _ = make_loop(tmp_path, ledger, monkeypatch, signals=[2])
    with pytest.raises(Interrupted):
        made.work(fake_trials.make_trials({"seconds": 60}))
