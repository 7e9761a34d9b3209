"""How many trials fit at once: the largest arm is trained for a few steps, its memory is measured.

    python -m studies.engine.running.packing DIR    # DIR/arms.json in, DIR/peak.json out

A process of its own measures: what a process has had, it does not give back whole. Rows longer
than those it saw need more; for these there is a margin, and a trial that does not fit makes its
batches smaller itself.
"""

import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from studies.engine.records import Record, Trial, write_record
from studies.engine.running import slots
from studies.engine.running.attempts import last_line
from studies.engine.trials import devices
from studies.memory import free_memory

STEPS, STEPS_ON_GPU = 3, 16
"""So many are trained; a GPU needs some more until it captures them, which takes memory."""
MARGIN = 1.15
"""A trial is taken to need this many times what was measured."""
SHARE = 0.9
"""Of the free memory that is given to trials."""
CONTEXT_BYTES = 2**29
"""Of a process on a GPU beside what torch reserves."""
MINUTES = 30
"""The measurement is given up after this long."""


class Peak(Record):
    """The memory of the largest of some arms."""

    arms: str
    """Names the arms and the number of GPUs."""
    arm: str
    """The largest."""
    peak_bytes: int


def measured_slots(trials: Sequence[Trial], folder: Path, say: Callable[[str], None]) -> int:
    """How many of `trials` to run at once; measured once, remembered in `folder`.

    `say` gets what was measured, or why nothing was: then one trial a GPU, or a core.
    """
    arms = {_what_needs_memory(trial): trial for trial in trials}
    identity = hashlib.sha256("\n".join([str(devices.gpus()), *sorted(arms)]).encode()).hexdigest()
    path = folder / "peak.json"
    try:
        peak = Peak.model_validate_json(path.read_text(encoding="utf-8"))
        known = peak.arms == identity
    except (FileNotFoundError, ValueError):
        known = False
    try:
        gpus = free_on_gpus()
        if not known:
            peak = measure(list(arms.values()), identity)
            write_record(path, peak)
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        say(f"--slots auto: {error}. One trial a GPU, without a GPU one a core")
        return slots.default_slots()
    if gpus:
        count = fit_on_gpus(gpus, peak.peak_bytes, devices.cores())
    else:
        count = fit_on_cpu(devices.cores(), free_memory(), peak.peak_bytes)
    say(f"--slots auto: {peak.arm} needs {peak.peak_bytes / 2**20:.0f} MiB; {count} at once")
    return count


def fit_on_gpus(free: Sequence[int], peak: int, cores: int) -> int:
    """Trials on GPUs with `free` bytes each, as many on each as on the fullest, at least one.

    No more than cores, unless there are more GPUs than those.
    """
    each = min(int(SHARE * bytes_ / (MARGIN * peak)) for bytes_ in free)
    most = max(1, cores // len(free))
    return len(free) * min(max(1, each), most)


def fit_on_cpu(cores: int, free: int, peak: int) -> int:
    """Trials on `cores` with `free` bytes of memory, at least one."""
    return max(1, min(cores, int(SHARE * free / (MARGIN * peak))))


def free_on_gpus() -> list[int]:
    """Free bytes of each GPU that this process may use, as the driver tells; [] without GPUs.

    Raises:
        ValueError: the driver does not tell of all of them.
        OSError, subprocess.SubprocessError: it cannot be asked.
    """
    count = devices.gpus()
    if not count:
        return []
    query = ("nvidia-smi", "--query-gpu=index,uuid,memory.free", "--format=csv,noheader,nounits")
    done = subprocess.run(query, capture_output=True, text=True, timeout=30, check=True)
    free = visible(done.stdout, os.environ.get("CUDA_VISIBLE_DEVICES"), count)
    if len(free) != count:
        raise ValueError(f"nvidia-smi tells of {len(free)} of the {count} GPUs in use")
    return free


def visible(table: str, names: str | None, count: int) -> list[int]:
    """Free bytes of the GPUs called `names` (all: None) from lines `index, uuid, free MiB`."""
    rows = [[cell.strip() for cell in line.split(",")] for line in table.splitlines() if line]
    if names:
        rows = [
            row
            for name in names.split(",")
            for row in rows
            if row[0] == name.strip() or (len(name) > 3 and row[1].startswith(name.strip()))
        ]
    return [int(row[2]) * 2**20 for row in rows][:count]


def measure(arms: Sequence[Trial], identity: str = "") -> Peak:
    """Train the largest of `arms` for a few steps in a process of its own.

    Raises:
        ValueError: it could not be trained; the message says why.
    """
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        content = [trial.model_dump(mode="json") for trial in arms]
        (folder / "arms.json").write_text(json.dumps(content), encoding="utf-8")
        command = [sys.executable, "-m", "studies.engine.running.packing", scratch]
        log = folder / "log.txt"
        with log.open("wb") as file:
            try:
                subprocess.run(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=file,
                    stderr=subprocess.STDOUT,
                    env=slots.environment(0, 1),
                    timeout=MINUTES * 60,
                    check=True,
                )
            except subprocess.TimeoutExpired:
                raise ValueError(f"the measurement took longer than {MINUTES} minutes") from None
            except subprocess.CalledProcessError:
                raise ValueError(f"the measurement failed: {last_line(log)}") from None
        peak = Peak.model_validate_json((folder / "peak.json").read_text(encoding="utf-8"))
    return peak.model_copy(update={"arms": identity})


def probe(trial: Trial) -> Trial:
    """`trial` cut short: a few steps, an evaluation of one batch of each split."""
    steps = STEPS_ON_GPU if devices.gpus() else STEPS
    train = {**trial.config["train"], "max_steps": steps, "epochs": 1.0, "patience": None}
    train["eval_every"] = 1 if train.get("keep") == "best" else None  # what is kept needs memory
    rows = train.get("eval_batch_size", 64)
    task = dict(trial.config["task"])
    for name in ("valid_rows", "test_rows"):
        task[name] = min(task.get(name) or rows, rows)
    config = trial.config | {"train": train, "task": task}
    return trial.model_copy(update={"config": config, "keep": ()})


def _what_needs_memory(trial: Trial) -> str:
    train = trial.config["train"]
    rest = {name: value for name, value in trial.config.items() if name != "train"}
    content = [rest, train.get("batch_size"), train.get("eval_batch_size"), trial.plugin_hashes]
    return json.dumps(content, sort_keys=True)


def _main(folder: Path) -> None:
    """Measure the arm that trains most of each backbone and batch size; write the largest."""
    from studies.engine.definition.plugins import load_plugins
    from studies.engine.trials.environment import reset_peak_memory
    from studies.engine.trials.trial import run_trial

    arms = [Trial.model_validate(each) for each in json.loads((folder / "arms.json").read_text())]
    groups: dict[str, list[Trial]] = {}
    for trial in arms:
        load_plugins(trial.plugins, trial.plugin_hashes)
        sizes = ("batch_size", "eval_batch_size")
        kind = [trial.config["backbone"], *(trial.config["train"].get(size) for size in sizes)]
        kind += [trial.config["task"].get(name) for name in ("name", "max_length", "image_size")]
        groups.setdefault(json.dumps(kind, sort_keys=True), []).append(trial)
    peaks = []
    for group in groups.values():
        trial = _largest(group)
        reset_peak_memory()
        result = run_trial(probe(trial), folder / "run")
        if result.failure is not None:
            raise SystemExit(f"{trial.title}: {result.failure.message}")
        peaks.append(Peak(arms="", arm=trial.arm, peak_bytes=_peak_bytes()))
    write_record(folder / "peak.json", max(peaks, key=lambda peak: peak.peak_bytes))


def _largest(arms: Sequence[Trial]) -> Trial:
    """The arm that trains most parameters, counted without weights; all have one backbone."""
    from adapters.methods.matching import count
    from studies import backbones, tasks

    if len(arms) == 1:
        return arms[0]
    config = probe(arms[0]).config
    data = tasks.load(config["task"], config.get("split_seed", 0))
    model, _ = backbones.load(config["backbone"], tasks.head(config["task"], data))
    kind, settings = type(model), model.config
    del model

    def trained(trial: Trial) -> int:
        adapter: dict[str, Any] = trial.config.get("match") or trial.config["adapter"]
        return count(lambda: kind(settings), adapter)

    return max(arms, key=trained)


def _peak_bytes() -> int:
    import torch

    from studies.engine.trials.environment import peak_memory_bytes

    if torch.cuda.is_available():
        return torch.cuda.max_memory_reserved() + CONTEXT_BYTES
    return peak_memory_bytes()


if __name__ == "__main__":
    _main(Path(sys.argv[1]))
