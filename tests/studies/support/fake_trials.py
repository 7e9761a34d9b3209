"""Trials that take milliseconds, for tests of the loop; also a program to be killed.

    python fake_trials.py RUNS_DIR JOURNAL SECONDS SLOTS

A fake worker does what the `fake` mapping of each trial's configuration says, and writes a line to
the journal when it starts a trial and when it has written its result.
"""

import sys
from collections.abc import Callable
from pathlib import Path

from studies.engine.command import dispatch
from studies.engine.definition.study import Study
from studies.engine.records import Trial
from studies.engine.running.local import LocalRunner
from studies.engine.running.protocols import Runner
from studies.engine.trials import devices

SCRIPT = """
import json, os, signal, sys, time
journal, answers = sys.argv[1], int(sys.argv[2])

def note(word, key):
    handle = os.open(journal, os.O_APPEND | os.O_CREAT | os.O_WRONLY)
    os.write(handle, f"{word} {key} {os.getpid()} {time.monotonic()}\\n".encode())
    os.close(handle)

def train(run_dir):
    key = os.path.basename(run_dir)
    fake = json.load(open(run_dir + "/trial.json"))["config"]["fake"]
    attempt = 1 + sum(name.startswith("attempt-") for name in os.listdir(run_dir))
    def save(*signal_and_frame):
        os.makedirs(run_dir + "/checkpoint-1", exist_ok=True)
        with open(run_dir + "/checkpoint-1/state", "a") as file:
            file.write("saved\\n")
        os._exit(75)
    if fake.get("stubborn"):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if fake.get("saves"):
        signal.signal(signal.SIGTERM, save)
    note("start", key)
    if os.path.exists(run_dir + "/checkpoint-1/state"):
        note("goes-on", key)
    for step in range(fake.get("lines", 0)):
        with open(run_dir + "/metrics.jsonl", "a") as file:
            print(json.dumps({"step": step, "seconds": step}), file=file)
    while "waits_for" in fake and not os.path.exists(fake["waits_for"]):
        time.sleep(0.01)
    if attempt <= fake.get("preempted", 0):
        save()
    time.sleep(fake.get("seconds", 0))
    if "exit" in fake:
        with open(run_dir + "/log.txt", "a") as log:
            print(fake.get("says", "the last words"),
                  os.environ.get(fake.get("variable", ""), ""), file=log)
        os._exit(fake["exit"])
    if fake.get("killed"):
        os.kill(os.getpid(), signal.SIGKILL)
    result = {"key": fake.get("key", key), "status": "done", "seconds": 0.1}
    if attempt <= fake.get("failures", 0):
        failure = {"kind": fake.get("kind", "exception"), "message": fake["message"]}
        result |= {"status": "failed", "failure": failure}
    else:
        result["metrics"] = fake.get("metrics", {"test/accuracy": 0.75, "valid/accuracy": 0.7})
    if fake.get("plugins"):
        files = json.load(open(run_dir + "/trial.json"))["plugins"]
        result["notes"] = [open(file).read() for file in files]
    if "noted" in fake:
        result["notes"] = [os.environ.get(name, "") for name in fake["noted"]]
    with open(run_dir + "/.tmp", "w") as file:
        json.dump(result, file)
    os.replace(run_dir + "/.tmp", run_dir + "/result.json")
    note("done", key)
    if "exits_with" in fake:
        os._exit(fake["exits_with"])
    os.write(answers, f"{key}\\n".encode())

name = b""
while byte := os.read(0, 1):
    name += byte
    if byte == b"\\0":
        train(os.fsdecode(name[:-1]))
        name = b""
"""


def make_study(**budget: float) -> Study:
    """A study that no file stands behind."""
    return Study(
        name="fake",
        question="Is each trial run once?",
        backbone={"name": "none"},
        task={"name": "none"},
        adapter={"method": "none"},
        seeds=(0,),
        arms=({"name": "a"},),
        baseline="a",
        objective={"metric": "test/accuracy"},
        budget=budget,
        profile="embedded",
        path=Path("fake.yaml"),
    )


def make_trials(*arms: dict, seeds: tuple[int, ...] = (0,)) -> list[Trial]:
    """One trial for each of `arms` (their `fake` mappings) and seed."""
    return [
        Trial(study="fake", profile="embedded", arm=f"arm{i}", seed=seed,
              swept={"train.x": i}, config={"fake": fake, "arm": i})
        for seed in seeds
        for i, fake in enumerate(arms)
    ]  # fmt: skip


def make_runner(folder: Path, slot_count: int, *arguments: str, script: str = SCRIPT) -> Runner:
    """A runner whose workers run `script` with `arguments`."""
    file = folder / "fake_worker.py"
    if not file.exists() or file.read_text() != script:  # a worker may be reading it
        file.write_text(script)
    command = [sys.executable, "-S", str(file), *arguments]
    return LocalRunner(slot_count, folder / "workers", command=lambda processes: command)


def runners(journal: Path, slot_count: int = 1) -> Callable[[int], Runner]:
    """What `dispatch.run` takes."""
    return lambda left: make_runner(journal.parent, slot_count, str(journal))


def local_runner(journal: Path) -> Callable[..., Runner]:
    """In place of `LocalRunner` for the command line."""
    return lambda count, *rest: make_runner(journal.parent, count, str(journal), script=SCRIPT)


if __name__ == "__main__":
    from studies.engine.errors import StudyError
    from studies.engine.running.events import Interrupted, Stopped

    devices.gpus = lambda: 0  # torch would take most of the time of these tests
    runs_dir, journal, seconds, slot_count = sys.argv[1:]
    try:
        dispatch.run(
            make_study(),
            make_trials(*[{"seconds": float(seconds)}] * 4, seeds=(0, 1)),
            Path(runs_dir),
            runners(Path(journal), int(slot_count)),
        )
    except Interrupted:
        sys.exit(130)
    except (Stopped, StudyError) as error:
        sys.exit(str(error))
