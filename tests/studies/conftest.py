import contextlib
import json
import random
import shutil
import signal
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, ClassVar

import fake_trials
import pytest

from studies.engine.command import cli
from studies.engine.definition import plugins
from studies.engine.records import Cost, Failure, Result, Trial, write_record
from studies.engine.running import forking, local
from studies.engine.tracking import mlflow_client
from studies.engine.trials import devices

if TYPE_CHECKING:
    from lab import Lab

OF_A_TEST = ("BASIS_ZOO_CACHE", "PYTEST_CURRENT_TEST")
"""Variables that every test has of its own."""


@pytest.fixture
def heard_signals() -> Iterator[None]:
    """SIGINT and SIGHUP reach this process and its children, as at a terminal.

    Whoever starts the tests with `nohup` or by `&` in a script has them ignored.
    """
    usual = {signal.SIGINT: signal.default_int_handler, signal.SIGHUP: signal.SIG_DFL}
    before = {number: signal.signal(number, handler) for number, handler in usual.items()}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Made once: creating Optuna's tables takes longer than most tests here."""
    import optuna  # a machine that only trains has none, and runs what needs its GPU

    path = tmp_path_factory.mktemp("optuna") / "optuna.db"
    optuna.storages.RDBStorage(f"sqlite:///{path}")
    return path


@pytest.fixture
def lab(tmp_path: Path, empty_database: Path) -> "Lab":
    from lab import Lab

    (tmp_path / "runs").mkdir()
    shutil.copy(empty_database, tmp_path / "runs")
    return Lab(tmp_path)


@pytest.fixture(autouse=True)
def one_template(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests share the process that workers are forked from, which takes seconds to start.

    Of what differs between tests it reads nothing, and each worker gets its own test's.
    """

    def serves(rested: forking.Template, other: forking.Template) -> bool:
        kept = [
            {name: value for name, value in one._environment.items() if name not in OF_A_TEST}
            for one in (rested, other)
        ]
        return kept[0] == kept[1]

    monkeypatch.setattr(forking.Template, "serves", serves)


@pytest.fixture
def trained_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """The commands train in this process; test_work.py and test_trial.py hold what workers do."""
    from trains_here import TrainsHere

    from studies.engine.command import work

    monkeypatch.setattr(devices, "gpus", lambda: 0)
    monkeypatch.setattr(local, "LocalRunner", TrainsHere)
    monkeypatch.setattr(work, "LocalRunner", TrainsHere)


@pytest.fixture
def without_figures() -> Iterator[pytest.MonkeyPatch]:
    """Reports are written without figures, which take most of their time, until it is undone."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("studies.engine.reporting.report.Draft.figures", {})
        yield patch


@dataclass
class FabricatedStudy:
    """Trials and results with known numbers, for rooms that only read them."""

    runs_dir: Path
    study: SimpleNamespace
    rows: list[tuple[Trial, Result, Path]] = field(default_factory=list)

    @property
    def pairs(self):
        return [(trial, result) for trial, result, _ in self.rows]

    @property
    def out_dir(self):
        return self.runs_dir / self.study.name / self.study.profile / "report"

    def report(self, pairs=None):
        """Written anew, of `pairs` or of all."""
        from studies.engine.reporting.report import draft

        pairs = self.pairs if pairs is None else pairs
        return draft(self.study, self.out_dir.parent / "trials", pairs).write(self.out_dir)

    def add(self, arm, values, swept=None, *, failed=(), environment=None, cost=None, data=None):
        """One trial a value; its seed is its place. `failed` seeds have a failure instead."""
        for seed, value in enumerate(values):
            trial = make_trial(arm, seed, swept or {})
            folder = self.out_dir.parent / "trials" / trial.key
            about = {
                "environment": {"torch": "2", "commit": "abc", "host": "h"} | (environment or {}),
                "data": {"hash": "d1", "majority": {"test": 0.52}, "licence": "MIT"} | (data or {}),
                "started": "2026-01-02T03:04:05+00:00",
                "seconds": 20.0,
            }
            if seed in failed:
                failure = Failure(kind="out_of_memory", message="ran out | use a smaller batch")
                result = Result(key=trial.key, status="failed", failure=failure, **about)
            else:
                metrics = {"test/accuracy": value, "valid/accuracy": value, "train/loss": 0.5}
                result = Result(
                    key=trial.key, status="done", metrics=metrics, cost=cost or COST, **about
                )
            write_record(folder / "trial.json", trial)
            write_record(folder / "result.json", result)
            lines = [
                {"step": step, "seconds": step / 10, "train/loss": 1 / step + seed}
                | ({"valid/accuracy": value * step / 40} if step % 20 == 0 else {})
                for step in (10, 20, 30, 40)
            ]
            text = "".join(json.dumps(line) + "\n" for line in lines)
            (folder / "metrics.jsonl").write_text(text, encoding="utf-8")
            (folder / "log.txt").write_text("the log\n", encoding="utf-8")
            self.rows.append((trial, result, folder))
        return self


RAN = """\
name: s
question: Which?
adapter: {method: basis, basis: sinc, num_basis: 8}
arms: [{name: eight}, {name: lora, adapter: {method: lora}}]
baseline: lora
objective: {metric: test/accuracy}
seeds: [0, 1]
"""
"""The study of `ran`."""

COST = Cost(
    trainable_parameters=120_000,
    adapter_parameters=100_000,
    phi_parameters=2_400,
    total_parameters=22_000_000,
    train_seconds=18.0,
    step_seconds=0.25,
    peak_memory_bytes=512 * 2**20,
)


def make_trial(arm, seed, swept):
    adapter = {"method": "lora" if arm == "lora" else "basis", "r": 8}
    adapter |= {path.removeprefix("adapter."): value for path, value in swept.items()}
    config = {"backbone": {"name": "tiny"}, "adapter": adapter, "arm": arm, "split_seed": 0}
    return Trial(
        study="grid_size", profile="embedded", arm=arm, seed=seed, swept=swept, config=config
    )


@pytest.fixture
def fabricate(tmp_path):
    """A study without trials; `add` them."""
    path = tmp_path / "grid_size.yaml"
    path.write_text("name: grid_size\n", encoding="utf-8")
    study = SimpleNamespace(
        name="grid_size",
        question="Does the number of basis functions matter?",
        profile="embedded",
        set={},
        baseline="lora",
        objective=SimpleNamespace(
            metric="test/accuracy", direction="maximize", select_on="valid/accuracy"
        ),
        published=SimpleNamespace(table="table_15_grid_size", x="adapter.num_basis", rows={}),
        claims=(),
        unasked=(),
        keep=(),
        arms=(SimpleNamespace(name="paper-start", note="the start as written"),),
        path=path,
        tasks=(),
        compared=dict,
        until_decided=False,
    )
    study.objective_of = lambda task="": study.objective
    return FabricatedStudy(tmp_path / "runs", study)


@pytest.fixture
def grid_study(fabricate):
    """lora, G = 8, 64, 512 and the paper's start; G = 64 lost its seed 1."""
    noise = random.Random(0)
    base = [0.70, 0.72, 0.74]

    def near(shift):
        return [round(b + shift + noise.gauss(0, 0.004), 4) for b in base]

    fabricate.add("G=8", near(0.01), {"adapter.num_basis": 8})
    fabricate.add("G=64", near(0.03), {"adapter.num_basis": 64}, failed=(1,))
    fabricate.add("G=512", near(0.05), {"adapter.num_basis": 512})
    fabricate.add("lora", base, {"adapter.method": "lora"})
    paper = {"adapter.num_basis": 64, "adapter.start": "paper"}
    return fabricate.add("paper-start", [0.48, 0.48, 0.48], paper)


@pytest.fixture
def make(tiny_bert: Path, tiny_csv: Path) -> Any:
    """A trial of 8 steps; keyword arguments replace keys of its sections."""

    def build(seed: int = 0, split_seed: int = 0, **sections: dict[str, Any]) -> Trial:
        base = {
            "backbone": {"name": str(tiny_bert)},
            "task": {"name": str(tiny_csv), "train_rows": 128, "valid_rows": 60, "test_rows": 90},
            "adapter": {"method": "lora", "r": 4, "alpha": 8, "target_modules": ["query", "value"]},
            "train": {"epochs": 1, "batch_size": 16, "learning_rate": 0.02, "warmup_ratio": 0.1},
        }
        config = {name: {**values, **sections.get(name, {})} for name, values in base.items()}
        config["split_seed"] = split_seed
        return Trial(study="s", profile="p", arm="a", seed=seed, config=config)

    return build


@pytest.fixture
def without_dropout(tiny_bert: Path, tmp_path: Path) -> Path:
    """The tiny BERT without dropout: masks depend on how a batch is split, nothing else does."""
    folder = tmp_path / "bert"
    shutil.copytree(tiny_bert, folder)
    config = json.loads((folder / "config.json").read_text())
    config |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.fixture(scope="session")
def mlflow_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """mlflow.db with its tables: making them takes seconds, once is enough."""
    file = tmp_path_factory.mktemp("database") / "mlflow.db"
    mlflow_client.prepare(file, pytest.fail)
    return file


@pytest.fixture
def run_until(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs a trial that is asked to end while it does optimizer step `last`."""

    from studies.engine.trials.preemption import Preempted, Preemption
    from studies.engine.trials.training.loop import TrainingLoop
    from studies.engine.trials.trial import run_trial

    def run(trial: Trial, run_dir: Path, last: int) -> None:
        preemption, real = Preemption(), TrainingLoop.take

        def take(self: TrainingLoop, batches: Any) -> None:
            if self.done == last - 1:
                preemption.ask()
            real(self, batches)

        with monkeypatch.context() as patch:
            patch.setattr(TrainingLoop, "take", take)
            with pytest.raises(Preempted):
                run_trial(trial, run_dir, preemption)
        assert not (run_dir / "result.json").exists()

    return run


@pytest.fixture
def on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Trials train as on one GPU, with graphs of the class that is returned."""

    from again import Again

    from studies.engine.trials.training import cuda_graph  # with torch, which few tests need

    class Graph(Again):
        made: ClassVar[list[Any]] = []

    monkeypatch.setattr(cuda_graph, "on_one_gpu", lambda: True)
    monkeypatch.setattr(cuda_graph, "pool_maker", lambda device: lambda: Graph)
    monkeypatch.setattr(cuda_graph, "own_stream", contextlib.nullcontext)
    return Graph


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory, mlflow_database: Path) -> Iterator[Path]:
    """The folder of a study that was run there, with its page in `runs`; the current folder.

    It is made once for the tests of a file, which leave behind a report that is delivered.
    """
    above = tmp_path_factory.mktemp("ran")
    folder = above / "first ä"
    folder.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.delenv(mlflow_client.VARIABLE, raising=False)
        patch.setattr(mlflow_client, "_create", lambda file: shutil.copy(mlflow_database, file))
        patch.setattr(devices, "gpus", lambda: 0)
        patch.setattr(local, "LocalRunner", fake_trials.local_runner(above / "journal"))
        patch.setattr("studies.engine.command.session.fetch_for", lambda trials: None)
        patch.setattr(plugins, "_IMPORTED", {})  # as in a process that ran no other tests
        script = fake_trials.SCRIPT.replace('["fake"]', '.get("fake", {})')
        patch.setattr(fake_trials, "SCRIPT", script)
        Path("s.yaml").write_text(RAN)
        assert cli.main(["s.yaml", "--runs", "runs"]) == cli.DONE
        yield folder
