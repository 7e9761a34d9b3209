"""Arms × seeds: labels, keys, what an arm inherits, --only, and the table."""

import os
from pathlib import Path

import pytest
from rich.console import Console

from studies.engine.command.plan_table import estimate, plan_table
from studies.engine.definition.plugins import load_plugins
from studies.engine.definition.schema import load_study
from studies.engine.errors import StudyError
from studies.engine.labels import duration
from studies.engine.planning.plan import plan
from studies.engine.planning.runs import hold, state_of, trial_dir
from studies.engine.planning.selection import only
from studies.engine.records import Failure, Result, Trial, write_record

BODY = """\
name: s
question: Which?
adapter: {method: basis, basis: sinc, num_basis: 8}
baseline: lora
objective: {metric: test/accuracy}
"""
LORA = "arms: [{name: lora, adapter: {method: lora}}]\n"


@pytest.fixture
def planned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Plans BODY with more lines."""
    monkeypatch.chdir(tmp_path)

    def of(more: str, plugins: tuple = ()) -> list[Trial]:
        body = (
            BODY.replace("objective: {metric: test/accuracy}\n", "")
            if "objective" in more
            else BODY
        )
        Path("s.yaml").write_text(body + more)
        return plan(load_study("s.yaml", plugins=plugins))

    return of


def arms(trials: list[Trial]) -> list[str]:
    return list(dict.fromkeys(trial.arm for trial in trials))


def test_sweep_times_arms_times_seeds(planned) -> None:
    trials = planned("sweep: {adapter.r: [4, 8], train.learning_rate: [1e-3, 2e-3]}\n" + LORA)
    assert arms(trials) == [
        "r=4 learning_rate=0.001", "r=4 learning_rate=0.002",
        "r=8 learning_rate=0.001", "r=8 learning_rate=0.002", "lora",
    ]  # fmt: skip
    assert len(trials) == 15 == len({trial.key for trial in trials})
    assert [trial.seed for trial in trials] == [0] * 5 + [1] * 5 + [2] * 5
    assert trials[1].swept == {"adapter.r": 4, "train.learning_rate": 0.002}
    assert trials[1].config["train"]["learning_rate"] == 0.002
    assert trials[1].config["adapter"]["r"] == 4


def test_exclude_leaves_points_out(planned) -> None:
    trials = planned(
        "sweep: {adapter.r: [4, 8], adapter.num_basis: [8, 16]}\n"
        "exclude: [{adapter.r: 4, adapter.num_basis: 16}]\n" + LORA
    )
    assert arms(trials) == ["r=4 num_basis=8", "r=8 num_basis=8", "r=8 num_basis=16", "lora"]


def test_exclude_leaves_out_an_arm_by_its_name(planned) -> None:
    unfit = "arms: [{name: unfit, adapter: {method: lora, r: none}}, "
    study = "sweep: {adapter.r: [4, 8]}\nexclude: [r=4, unfit]\n" + LORA.replace("arms: [", unfit)
    trials = planned(study)
    assert arms(trials) == ["r=8", "lora"]


def test_labels_are_whole_paths_where_the_last_parts_are_alike(planned) -> None:
    trials = planned("sweep: {task.name: [movie_sentences], backbone.name: [minilm]}\n" + LORA)
    assert arms(trials)[0] == "task.name=movie_sentences backbone.name=minilm"


def test_labels_of_lists_and_flags(planned) -> None:
    trials = planned("sweep: {adapter.target_modules: [[query], [query, value]]}\n" + LORA)
    assert arms(trials)[:2] == ["target_modules=query", "target_modules=query+value"]


def test_another_method_inherits_only_what_all_methods_share(planned) -> None:
    lora = next(t for t in planned("sweep: {adapter.r: [4]}\n" + LORA) if t.arm == "lora")
    assert lora.config["adapter"] == {
        "method": "lora", "r": 8, "alpha": 16, "target_modules": ["query", "value"],
    }  # fmt: skip
    assert lora.swept == {"adapter.method": "lora"}


def test_a_swept_method_inherits_in_the_same_way(planned) -> None:
    trials = planned("sweep: {adapter.method: [basis, head_only]}\n" + LORA)
    by_arm = {trial.arm: trial.config["adapter"] for trial in trials}
    assert by_arm["method=basis"]["num_basis"] == 8
    assert "num_basis" not in by_arm["method=head_only"]


def test_a_whole_number_and_its_float_are_one_point(planned) -> None:
    with pytest.raises(StudyError, match="are the same point"):
        planned("sweep: {train.epochs: [1, 1.0]}\n" + LORA)


def test_the_key_depends_on_what_decides_the_result(planned) -> None:
    first = planned("sweep: {adapter.r: [4]}\n" + LORA)[0]
    renamed = planned(
        "arms: [{name: lora, adapter: {method: lora}}, {name: x, set: {adapter.r: 4}}]\n"
    )
    assert first.key == next(t for t in renamed if t.arm == "x").key
    assert first.key != planned("sweep: {adapter.r: [4]}\nsplit_seed: 1\n" + LORA)[0].key
    assert first.key != planned("sweep: {adapter.r: [4]}\ntrain: {epochs: 7}\n" + LORA)[0].key


def test_what_the_best_is_told_by_is_part_of_the_key(planned) -> None:
    plain, said = planned(LORA)[0], planned(LORA + "train: {keep: last, patience: null}\n")[0]
    assert said.key == plain.key and "select_on" not in plain.config
    best = []
    for metric in ("accuracy", "loss"):
        chosen = f"objective: {{metric: test/accuracy, select_on: valid/{metric}}}\n"
        more = f"{LORA}{chosen}train: {{eval_every: 9, keep: best}}\n"
        best.append(planned(more)[0])
    assert [trial.config["select_on"] for trial in best] == ["valid/accuracy", "valid/loss"]
    assert len({trial.key for trial in (plain, *best)}) == 3


def test_too_many_arms_are_refused(planned) -> None:
    values = list(range(200))
    with pytest.raises(StudyError, match="40,000 arms are too many"):
        planned(f"sweep: {{adapter.r: {values}, adapter.num_basis: {values}}}\n" + LORA)


PLUGIN = """\
from dataclasses import dataclass
from basis_zoo import Basis, get_basis, register_basis
print("imported")

@register_basis("my_family_{name}")
@dataclass(frozen=True)
class Mine(type(get_basis("gaussian_rbf"))):
    "A family of the user's own."
"""


def test_a_plug_in_is_named_like_any_other_family_and_is_part_of_the_key(planned, capsys) -> None:
    more = "sweep: {adapter.basis: [my_family_a]}\n" + LORA
    with pytest.raises(StudyError, match="unknown basis family 'my_family_a'"):
        planned(more)
    Path("mine.py").write_text(PLUGIN.replace("{name}", "a"))
    trial = planned(more, (Path("mine.py"),))[0]
    planned(more, (Path("mine.py"),))
    assert capsys.readouterr().out.count("imported") == 1
    assert trial.plugins == (str(Path("mine.py").resolve()),)
    assert trial.key != trial.model_copy(update={"plugin_hashes": ("other",)}).key
    load_plugins(trial.plugins, trial.plugin_hashes)
    Path("mine.py").write_text("print('run')\n")
    with pytest.raises(StudyError, match=r"mine\.py was changed since this trial was planned"):
        load_plugins(trial.plugins, trial.plugin_hashes)
    assert not capsys.readouterr().out


def test_only_the_plug_ins_that_an_arm_uses_are_part_of_its_trials(planned) -> None:
    files = [Path(f"{name}.py") for name in ("own", "patch", "base", "on_base")]
    Path("own.py").write_text(PLUGIN.replace("{name}", "own"))
    Path("patch.py").write_text("import torch\n")
    Path("base.py").write_text(PLUGIN.replace("{name}", "base"))
    more = 'TAKES = "my_family_base"\n'  # looks it up once it runs
    Path("on_base.py").write_text(PLUGIN.replace("{name}", "on_base") + more)
    sweep = "sweep: {adapter.basis: [my_family_own, my_family_base, my_family_on_base]}\n"
    trials = planned(sweep + LORA, files)
    used = {trial.arm: [Path(file).name for file in trial.plugins] for trial in trials}
    assert used == {
        "basis=my_family_own": ["own.py", "patch.py"],
        "basis=my_family_base": ["patch.py", "base.py"],
        "basis=my_family_on_base": ["patch.py", "base.py", "on_base.py"],
        "lora": ["patch.py"],
    }
    assert [p.names for p in load_plugins(files)] == [
        {"my_family_own"}, set(), {"my_family_base"}, {"my_family_on_base"}
    ]  # fmt: skip
    Path("user.py").write_text("import adapters\n" + PLUGIN.replace("{name}", "user"))
    assert load_plugins(["user.py"])[0].names == {"my_family_user"}  # none of what ships
    alone = planned("sweep: {adapter.basis: [my_family_own]}\n" + LORA, files[:1])
    assert {trial.arm: len(trial.plugin_hashes) for trial in alone} == {
        "basis=my_family_own": 1, "lora": 0
    }  # fmt: skip
    assert alone[-1].key == planned("sweep: {adapter.basis: [sinc]}\n" + LORA)[-1].key


def test_a_plug_in_with_a_penalty_is_part_of_the_trials_that_name_it(planned) -> None:
    Path("penalty.py").write_text(
        "from adapters.training.penalties import register_penalty\n"
        "register_penalty('my_penalty', need='factors')(lambda places: [])\n"
    )
    arms = "arms: [{name: lora}, {name: own, set: {train.penalties: {my_penalty: 0.1}}}]\n"
    trials = planned(arms, (Path("penalty.py"),))
    assert {trial.arm: len(trial.plugins) for trial in trials} == {"lora": 0, "own": 1}


def test_a_study_names_its_plug_ins_by_their_paths_from_its_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "own.py").write_text(PLUGIN.replace("{name}", "b"))
    more = "plugins: [own.py]\nsweep: {adapter.basis: [my_family_b]}\n"
    (folder / "s.yaml").write_text(BODY + more + LORA)
    monkeypatch.chdir(tmp_path)
    own = plan(load_study("mine/s.yaml"))
    assert own[0].plugins == (str((folder / "own.py").resolve()),)
    named = plan(load_study("mine/s.yaml", plugins=["mine/own.py"]))
    assert [trial.key for trial in own] == [trial.key for trial in named]  # it counts once


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("x = 1\n1 / 0\n", r"bad\.py:2: ZeroDivisionError: division by zero"),
        ("def\n", r"bad\.py:1: SyntaxError"),
        ("import sys\nsys.exit(3)\n", r"bad\.py:2: SystemExit: 3"),
        ("import absent_module\n", r"bad\.py:1: ModuleNotFoundError"),
    ],
)
def test_a_plug_in_that_raises_is_one_message_with_its_line(tmp_path, content, message) -> None:
    (tmp_path / "bad.py").write_text(content)
    with pytest.raises(StudyError, match=message):
        load_plugins([tmp_path / "bad.py"])


def test_a_plug_in_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match=r"plug-in .*none\.py: cannot be read: No such file"):
        load_plugins([tmp_path / "none.py"])


def test_a_taken_name_is_refused_with_the_class_as_its_author_knows_it(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "from basis_zoo import LocationScaleBasis, register_basis\n"
        "@register_basis('sinc')\nclass Own(LocationScaleBasis): ...\n"
    )
    with pytest.raises(StudyError, match=r"mine\.py:2: .*; give mine\.Own another name\. Nothing"):
        load_plugins([tmp_path / "mine.py"])


@pytest.mark.parametrize(
    ("arms", "unknown"),
    [
        ("sweep: {adapter.basis: [sinc, sech]}\n" + LORA, "family 'sech'"),
        ("sweep: {adapter.grid: [uniform, mine]}\n" + LORA, "grid 'mine'"),
        ("arms: [{name: lora, adapter: {method: gated}}]\n", "method 'gated'"),
    ],
)
def test_a_forgotten_plug_in_is_asked_for(planned, arms: str, unknown: str) -> None:
    with pytest.raises(StudyError, match=rf"{unknown}\..* One of your own: .* or --plugin FILE"):
        planned(arms)


def test_only_chooses_by_setting_arm_and_seed(planned) -> None:
    trials = planned("sweep: {adapter.num_basis: [8, 16, 32]}\n" + LORA)
    assert {t.arm for t in only(trials, ["adapter.num_basis=8"])} == {"num_basis=8"}
    chosen = only(trials, ["adapter.num_basis=8", "adapter.num_basis=32", "seed=1"])
    assert [(t.arm, t.seed) for t in chosen] == [("num_basis=8", 1), ("num_basis=32", 1)]
    assert len(only(trials, ["arm=lora"])) == 3


@pytest.mark.parametrize(
    ("conditions", "message"),
    [
        (["adapter.num_bases=8"], "Did you mean 'adapter.num_basis'"),
        (["adapter.num_basis"], "expected SETTING=VALUE, got no '='"),
        (["num_basis=8"], "'num_basis' is no setting. For the arm .*: --only 'arm=num_basis=8'"),
        (["num_basis=9"], "'num_basis' is no setting. Did you mean 'adapter.num_basis'"),
        (["lora"], "got no '='. For the arm of this name: --only 'arm=lora'"),
        (["adapter.num_basis=9"], "no trial has it.*Values: 8, 16"),
        (["arm=lroa"], "Did you mean 'lora'"),
        (["train.lr=1e-3"], "Did you mean 'train.learning_rate'"),
        (["arm=lora", "adapter.num_basis=8"], "no trial matches all of these"),
    ],
)
def test_only_refuses_what_nothing_matches(planned, conditions, message) -> None:
    trials = planned("sweep: {adapter.num_basis: [8, 16]}\n" + LORA)
    with pytest.raises(StudyError, match=message):
        only(trials, conditions)


def test_the_table_counts_states_and_estimates(planned, tmp_path: Path) -> None:
    trials = planned("sweep: {adapter.num_basis: [8, 16]}\n" + LORA)
    none = [(trial, None) for trial in trials]
    assert estimate(none, lambda: 1) == "no finished trial yet: no estimate"
    done, failed, running, *_ = trials
    write_record(
        trial_dir(done, tmp_path) / "result.json",
        Result(key=done.key, status="done", seconds=30.0),
    )
    failure = Failure(kind="timeout", message="late")
    write_record(
        trial_dir(failed, tmp_path) / "result.json",
        Result(key=failed.key, status="failed", failure=failure),
    )
    hold(trial_dir(running, tmp_path))
    assert [state_of(t, tmp_path) for t in trials[:4]] == ["done", "failed", "running", "waiting"]
    console = Console(width=100, record=True, file=open(os.devnull, "w"))
    console.print(plan_table(trials, tmp_path, lambda: 2))
    text = console.export_text()
    assert "9 trials: 1 done, 1 failed, 1 running, 6 waiting" in text
    assert "about 2 min left on 2 slots" in text  # 7 × 30 s / 2
    result = Result(key=done.key, status="done", seconds=60.0)
    last = estimate([(done, result), (running, None)], lambda: 2)
    assert last == "about 60 s left on 1 slot"


def test_the_name_of_a_study_is_on_one_line_above_a_narrow_table(planned, tmp_path: Path) -> None:
    first = planned("sweep: {adapter.num_basis: [8]}\n" + LORA)[0]
    trial = first.model_copy(update={"profile": "embedded+" + "train.max_steps=4+" * 4})
    console = Console(width=120, record=True, file=open(os.devnull, "w"))
    console.print(plan_table([trial], tmp_path, lambda: 1))
    text = console.export_text()
    assert text.splitlines()[0].rstrip() == f"{trial.study} ({trial.profile})"
    assert "1 trial: 1 waiting" in text


def test_a_dead_process_is_not_running(planned, tmp_path: Path) -> None:
    trial = planned("sweep: {adapter.num_basis: [8]}\n" + LORA)[0]
    trial_dir(trial, tmp_path).mkdir(parents=True)
    (trial_dir(trial, tmp_path) / "pid").write_text("999999999")
    assert state_of(trial, tmp_path) == "waiting"


def test_durations_are_words() -> None:
    assert [duration(s) for s in (4.4, 89, 700, 12_000)] == ["4 s", "89 s", "12 min", "3 h 20 min"]
