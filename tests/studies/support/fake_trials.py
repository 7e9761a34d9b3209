"""Trials that take milliseconds, for tests of the dispatcher; also a program that dispatches them.

    python fake_trials.py RUNS_DIR JOURNAL SECONDS SLOTS [HEARTBEAT]

A fake trial does what its configuration's `fake` mapping says and writes a line to the journal when
it starts and when it has written its result.
"""

import functools
import sys
from pathlib import Path

from studies.engine.definition.study import Study
from studies.engine.records import Trial

SCRIPT = """
import json, os, signal, sys, time
run_dir, journal = sys.argv[1:]
key = os.path.basename(run_dir)
fake = json.load(open(run_dir + "/trial.json"))["config"]["fake"]
attempt = 1 + sum(name.startswith("attempt-") for name in os.listdir(run_dir))

def note(word):
    handle = os.open(journal, os.O_APPEND | os.O_CREAT | os.O_WRONLY)
    os.write(handle, f"{word} {key} {os.getpid()} {time.monotonic()}\\n".encode())
    os.close(handle)

if fake.get("stubborn"):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
def save(*signal_and_frame):
    os.makedirs(run_dir + "/checkpoint-1", exist_ok=True)
    sys.exit(75)

if fake.get("saves"):
    signal.signal(signal.SIGTERM, save)
note("start")
if attempt <= fake.get("preempted", 0):
    save()
time.sleep(fake.get("seconds", 0))
if "exit" in fake:
    print(fake.get("says", "the last words"), os.environ.get(fake.get("variable", ""), ""))
    sys.exit(fake["exit"])
if fake.get("killed"):
    os.kill(os.getpid(), signal.SIGKILL)
result = {"key": fake.get("key", key), "status": "done", "seconds": 0.1}
if attempt <= fake.get("failures", 0):
    failure = {"kind": "exception", "message": fake["message"]}
    result |= {"status": "failed", "failure": failure}
else:
    result["metrics"] = fake.get("metrics", {"test/accuracy": 0.75, "valid/accuracy": 0.7})
with open(run_dir + "/.tmp", "w") as file:
    json.dump(result, file)
os.replace(run_dir + "/.tmp", run_dir + "/result.json")
note("done")
sys.exit(fake.get("exits_with", 0))
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


def command(journal: Path, run_dir: Path) -> list[str]:
    """The command of a fake trial."""
    script = journal.with_name("fake_trial.py")
    if not script.exists() or script.read_text() != SCRIPT:  # a running trial may be reading it
        script.write_text(SCRIPT)
    return [sys.executable, "-S", str(script), str(run_dir), str(journal)]


if __name__ == "__main__":
    from studies.engine import slots
    from studies.engine.dispatching import dispatch, hosts, loop
    from studies.engine.errors import StudyError
    from studies.engine.events import Interrupted, Stopped

    slots.gpus = lambda: 0  # torch would take most of the time of these tests
    runs_dir, journal, seconds, slot_count, *heartbeat = sys.argv[1:]
    if heartbeat:
        loop.HEARTBEAT_SECONDS = float(heartbeat[0])
        hosts.STALE_SECONDS = 10 * loop.HEARTBEAT_SECONDS
    try:
        dispatch.run(
            make_study(),
            make_trials(*[{"seconds": float(seconds)}] * 4, seeds=(0, 1)),
            Path(runs_dir),
            slot_count=int(slot_count),
            say=functools.partial(print, flush=True),
            command=functools.partial(command, Path(journal)),
        )
    except Interrupted:
        sys.exit(130)
    except (Stopped, StudyError) as error:
        sys.exit(str(error))
