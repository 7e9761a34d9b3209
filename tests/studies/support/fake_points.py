"""A search whose points take milliseconds; also a program that runs it, to be killed.

    python fake_points.py FOLDER SLOTS

A point's accuracy is -(x - 0.3)^2 plus what its kind is worth, its parameters are n; points of kind
`broken` fail. Each start and end is a line of the journal.
"""

import sys
from pathlib import Path

import yaml
from fake_trials import make_runner

from studies.engine.command import dispatch
from studies.engine.definition.points import Point
from studies.engine.definition.schema import load_study
from studies.engine.definition.study import Study
from studies.engine.records import Trial
from studies.engine.running.protocols import Runner
from studies.engine.searching import search
from studies.engine.trials import devices

STUDY = """\
name: s
question: Which phi?
adapter: {method: basis, basis: sinc, num_basis: 8}
arms: [{name: phi}, {name: lora, adapter: {method: lora}}]
baseline: lora
objective: {metric: test/accuracy, select_on: valid/accuracy}
seeds: [0, 1]
train: {eval_every: 10}
search:
  arm: phi
  trials: 8
  startup: 3
  seed: 100
  space:
    adapter.basis: [sinc, sine, hat]
    adapter.num_basis: {int: [4, 64], log: true}
    train.learning_rate: {float: [1.0e-4, 1.0e-1], log: true}
  objectives:
    - {metric: valid/accuracy}
    - {metric: cost/trainable_parameters, direction: minimize}
"""

SCRIPT = """
import json, os, signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: os._exit(75))  # PREEMPTED, as a real trial that is ended
journal, seconds, broken, answers = sys.argv[1:]

def train(run_dir):
    key = os.path.basename(run_dir)
    trial = json.load(open(run_dir + "/trial.json"))
    adapter, settings = trial["config"]["adapter"], trial["config"]["train"]
    basis, n = adapter.get("basis", "none"), adapter.get("num_basis", 1)

    def note(word):
        handle = os.open(journal, os.O_APPEND | os.O_CREAT | os.O_WRONLY)
        os.write(handle, f"{word} {key} {trial['arm']} #{trial['point']}\\n".encode())
        os.close(handle)

    note("start")
    rate = settings["learning_rate"]
    score = 0.9 - (rate - 0.03) ** 2 * 50 - {"sine": 0.1, "hat": 0.2}.get(basis, 0)
    for step in (10, 20, 30):
        with open(run_dir + "/metrics.jsonl", "a") as file:
            line = {"step": step, "seconds": 1, "valid/accuracy": score * step / 30}
            file.write(json.dumps(line) + "\\n")
        time.sleep(float(seconds))
    result = {"key": key, "status": "done", "seconds": 0.1, "started": ""}
    if basis == broken:
        result |= {"status": "failed", "failure": {"kind": "exception", "message": "it broke"}}
    else:
        cost = dict.fromkeys(("adapter_parameters", "phi_parameters", "total_parameters"), n)
        cost |= {"trainable_parameters": n, "train_seconds": 1, "step_seconds": 1}
        result["cost"] = cost | {"peak_memory_bytes": 1}
        result["metrics"] = {"test/accuracy": score - 0.05, "valid/accuracy": score}
    with open(run_dir + "/.tmp", "w") as file:
        json.dump(result, file)
    os.replace(run_dir + "/.tmp", run_dir + "/result.json")
    note("done")
    os.write(int(answers), f"{key}\\n".encode())

name = b""
while byte := os.read(0, 1):
    name += byte
    if byte == b"\\0":
        train(os.fsdecode(name[:-1]))
        name = b""
"""


class Lab:
    """A study, its run folder, and what has happened there."""

    def __init__(self, folder: Path, text: str = STUDY) -> None:
        self.folder, self.runs_dir = folder, folder / "runs"
        self.seconds, self.broken = 0.0, "nothing"
        folder.mkdir(parents=True, exist_ok=True)
        self.write(text)

    def write(self, text: str) -> None:
        """Another study file."""
        file = self.folder / "s.yaml"
        if not file.exists() or file.read_text() != text:
            file.write_text(text)
        self.study: Study = load_study(file)
        self.make = search.plan_search(self.study)

    @classmethod
    def unchecked(cls, folder: Path) -> "Lab":
        """A lab whose study is not verified, so that torch, which takes seconds, is not needed."""
        lab = cls.__new__(cls)
        lab.folder, lab.runs_dir, lab.seconds, lab.broken = folder, folder / "runs", 0.1, "nothing"
        body = yaml.safe_load(STUDY) | {"backbone": {"name": "b"}, "task": {"name": "t"}}
        lab.study = study = Study(**body, profile="embedded", path=folder / "s.yaml")
        config = {"adapter": body["adapter"], "train": body["train"]}

        def make(seed: int, point: Point, /, **more) -> Trial:
            about = {"arm": point.arm, "swept": point.swept, "config": point.config}
            return Trial(study="s", profile="embedded", seed=seed, **about, **more)

        lab.make = search.make_point(study, Point("phi", {}, config, ""), make)
        return lab

    def runner(self, slot_count: int) -> Runner:
        """What runs the points."""
        arguments = (str(self.folder / "journal"), str(self.seconds), self.broken)
        return make_runner(self.folder, slot_count, *arguments, script=SCRIPT)

    def run(self, slot_count: int = 1, **options) -> list:
        """Run the search; its events."""
        events: list = []
        dispatch.run_search(
            self.study, self.make, self.runs_dir, lambda left: self.runner(slot_count),
            on_event=events.append, **options,
        )  # fmt: skip
        return events

    def noted(self, word: str) -> list[str]:
        """The keys in the journal with `word`."""
        journal = self.folder / "journal"
        lines = journal.read_text().splitlines() if journal.exists() else []
        return [line.split()[1] for line in lines if line.startswith(word)]


if __name__ == "__main__":
    devices.gpus = lambda: 0
    lab = Lab.unchecked(Path(sys.argv[1]))
    lab.run(slot_count=int(sys.argv[2]))
