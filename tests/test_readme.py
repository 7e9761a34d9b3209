"""The code of the README and of docs/ runs: Python as it stands, YAML through a plan.

The tutorial, the page on extending and the how-to pages are followed from top to bottom: a block
with a title is written to that file, `bash` is run, a `text` block after it is what the command
prints (digits may be others, `...` stands for more), and Python without a title is run. `sh` needs
another machine.
"""

import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import adapters
import basis_zoo
from studies.engine.command import cli
from studies.engine.definition.schema import load_study
from studies.engine.definition.shipped import shipped_studies

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
PROGRAMS = {"python": sys.executable, "run_study.py": str(ROOT / "run_study.py")}


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def every_block(text: str) -> list[tuple[str, str, str]]:
    """Language, title and content of each block."""
    head = r'^```(\w+)(?: title="([^"]+)")?\n'
    return re.findall(rf"{head}(.*?)^```$", text, re.DOTALL | re.MULTILINE)


def blocks(language: str, text: str = README) -> list[str]:
    return [content for kind, _, content in every_block(text) if kind == language]


def page(name: str) -> str:
    return (ROOT / "docs" / name).read_text(encoding="utf-8")


def run(*command: str, cwd: Path, packages: Path = ROOT) -> str:
    """What the command prints; `packages` is a folder of installed packages beside our own."""
    path = os.pathsep.join([str(ROOT), str(packages)])
    environment = {**os.environ, "PYTHONPATH": path, "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=900
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def follow(text: str, cwd: Path) -> None:
    """Do what the page says, in `cwd`."""
    printed = ""
    for kind, title, content in every_block(text):
        if title:
            more = cwd / f"{title}.more"
            (cwd / title).write_text(content + (more.read_text() if more.exists() else ""))
        elif kind == "bash":
            lines = [shlex.split(line, comments=True) for line in content.splitlines()]
            commands = [[PROGRAMS.get(word, word) for word in line] for line in lines if line]
            printed = "".join(run(*command, cwd=cwd) for command in commands)
        elif kind == "text":
            for line in filter("...".__ne__, content.splitlines()):
                assert pattern(line) in pattern(printed), f"{line}\n\nprinted:\n{printed}"
        elif kind == "python":
            (cwd / "block.py").write_text(content)
            printed = run(sys.executable, "block.py", cwd=cwd)


def pattern(line: str) -> str:
    """Without what differs from machine to machine: numbers, and the spaces that align them."""
    return re.sub(r"[-+−]?\d[\d.,e-]*", "#", re.sub(r"\s+", " ", line))


TUTORIAL = page("tutorial.md")
THOROUGH = pytest.mark.thorough
MARKS = {"cluster": pytest.mark.ray} | dict.fromkeys(
    # the notebook goes the tutorial's way; an installed package is given the code of `extending`
    ("compile", "export", "extending", "gpu", "own_data", "own_model", "tutorial"),
    THOROUGH,
)
"""Markers of the pages that take longest to follow."""
TOP = ("docs/tutorial.md", "docs/extending.md")
FOLLOWED = [
    pytest.param(path, marks=MARKS.get(path.stem, ()), id=name(path))
    for path in [*map(ROOT.joinpath, TOP), *sorted((ROOT / "docs/how_to").glob("*.md"))]
]


@pytest.fixture
def folder(tmp_path: Path, tiny_bert: Path, tiny_csv: Path) -> Path:
    """What pages take for granted: the tutorial's files, a model and rows of one's own."""
    for _, title, content in every_block(TUTORIAL):  # a page after it needs no more than one seed
        if title:
            (tmp_path / title).write_text(content.replace("seeds: [0, 1, 2, 3, 4]", "seeds: [0]"))
    (tmp_path / "my-model").symlink_to(tiny_bert)
    rows = tiny_csv.read_text().partition("\n")[2]
    (tmp_path / "mine.csv").write_text(f"review,mood\n{rows}")
    (tmp_path / "reviews.csv.more").write_text(rows)
    return tmp_path


@pytest.mark.slow
@pytest.mark.parametrize("path", FOLLOWED)
def test_the_page_can_be_followed(path: Path, folder: Path) -> None:
    text = path.read_text(encoding="utf-8").replace("seeds: [0, 1]\n", "seeds: [0]\n")
    follow(text.replace("backbone: minilm\n", "backbone: {name: ./my-model}\n"), folder)


@pytest.fixture
def packages(folder: Path) -> Path:
    """The distribution that the page on extending describes, as pip would install it."""
    for _, title, content in every_block(page("extending.md")):
        if title:
            (folder / title).write_text(content)
    run(sys.executable, "pack.py", cwd=folder)
    project = tomllib.loads((folder / "pyproject.toml").read_text())
    info = folder / "packages/our_parts-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: our-parts\nVersion: 1.0\n")
    ((group, points),) = project["project"]["entry-points"].items()
    lines = [f"[{group}]", *(f"{name} = {module}" for name, module in points.items())]
    (info / "entry_points.txt").write_text("\n".join(lines))
    for module in project["tool"]["setuptools"]["py-modules"]:
        (folder / f"{module}.py").rename(info.parent / f"{module}.py")
    return info.parent


REGISTERED = """
from basis_zoo.registry import foreign
from studies.engine.definition.plugins import load_plugins

assert not foreign()
load_plugins([])
print(*sorted(kind for kind, _ in foreign()), sep=", ")
"""


@pytest.mark.slow
def test_an_installed_package_offers_parts_of_every_kind(folder: Path, packages: Path) -> None:
    kinds = run(sys.executable, "-c", REGISTERED, cwd=folder, packages=packages)
    assert kinds.strip() == "backbone, basis family, form, grid, method, start, task"


@pytest.mark.slow
@pytest.mark.thorough
def test_trials_use_the_parts_of_an_installed_package(folder: Path, packages: Path) -> None:
    study, named = re.subn(r"plugins:\n(  - .*\n)+", "", (folder / "mine.yaml").read_text())
    assert named == 1
    (folder / "mine.yaml").write_text(study.replace("seeds: [0, 1]", "seeds: [0]"))
    command = (sys.executable, str(ROOT / "run_study.py"), "mine.yaml", "--only", "arm=form")
    assert "done     form  seed 0" in run(*command, cwd=folder, packages=packages)


def test_adapter_block_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (block,) = [b for b in blocks("python") if "get_peft_model" in b]
    monkeypatch.chdir(tmp_path)  # it saves
    exec(block, {})
    assert "trainable params" in capsys.readouterr().out


def test_there_is_as_much_as_the_readme_says() -> None:
    families, methods = len(basis_zoo.list_bases()), len(adapters.list_methods())
    shipped = f"{families} families, {methods} methods and {len(shipped_studies())} studies"
    assert shipped in " ".join(README.split()), shipped
    assert page("results.md").partition("\n\n")[2].startswith(shipped.partition(" and ")[2])


@pytest.fixture
def sech(tmp_path: Path) -> Path:
    (plugin,) = [b for b in blocks("python") if "register_basis" in b]
    (study,) = [b for b in blocks("yaml") if "sech" in b]
    (tmp_path / "my_basis.py").write_text(plugin)
    (tmp_path / "sech.yaml").write_text(study)
    return tmp_path


@pytest.mark.slow
def test_basis_block_conforms_and_study_block_is_planned(sech: Path) -> None:
    """A family that fails its checks is refused before anything is planned."""
    (command,) = [b.split() for b in blocks("bash") if "sech.yaml" in b]
    command = [sys.executable, str(ROOT / command[1]), *command[2:], "--plan"]
    assert "basis=sech" in run(*command, cwd=sech)


def test_commands_name_flags_that_exist() -> None:
    shown = run(sys.executable, str(ROOT / "run_study.py"), "--help", cwd=ROOT)
    for block in blocks("bash"):
        for flag in re.findall(r"run_study\.py.*?(--[a-z-]+)", block):
            assert flag in shown


@pytest.mark.parametrize("path", PAGES, ids=name)
def test_shipped_studies_take_the_settings_that_commands_give_them(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    for study, rest in re.findall(r"run_study\.py (studies/\w+\.yaml)(.*)", text):
        settings = re.findall(r"--set '?([^'\s]+)", rest)
        profile = re.findall(r"--profile (\w+)", rest)
        if settings or profile:
            load_study(ROOT / study, *profile, settings=settings)


@pytest.mark.parametrize("path", PAGES, ids=name)
def test_named_files_exist(path: Path) -> None:
    for name in re.findall(r"\]\(([^)h#][^)#]*)", path.read_text(encoding="utf-8")):
        assert (path.parent / name).exists(), name


def test_every_test_that_the_page_on_faults_names_exists() -> None:
    named = re.findall(r"`([\w/]*test_\w+\.py)`", page("reliability.md"))
    assert named and all((ROOT / "tests" / name).exists() for name in named)


@pytest.mark.parametrize("path", [*PAGES, ROOT / "CONTRIBUTING.md"], ids=name)
def test_prose_is_wrapped(path: Path) -> None:
    """Tables, code and what has no space to break at are as long as they are."""
    text = re.sub(r"^```.*?^```$", "", path.read_text(encoding="utf-8"), flags=re.DOTALL | re.M)
    for line in text.splitlines():
        breakable = " " in re.sub(r"`[^`]*`|\]\([^)]*\)", "", line.strip()).removeprefix("- ")
        assert len(line) <= 100 or not breakable or line.startswith("|"), line


@pytest.mark.parametrize("path", PAGES, ids=name)
def test_every_table_begins_with_its_head(path: Path) -> None:
    """A row after a blank line is shown as text."""
    lines = ["", *path.read_text(encoding="utf-8").splitlines(), ""]
    for before, line, after in zip(lines, lines[1:], lines[2:], strict=False):
        if line.startswith("|") and not before.startswith("|"):
            assert re.fullmatch(r"[-|: ]+", after), line


def test_the_zoos_code_runs(tmp_path: Path) -> None:
    (block,) = blocks("python", page("zoo.md"))
    (tmp_path / "block.py").write_text(block)
    run(sys.executable, "block.py", cwd=tmp_path)


MODEL = """
import torch
from transformers import BertConfig, BertForSequenceClassification

shape = BertConfig(
    hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2
)
model = BertForSequenceClassification(shape)
"""
TRAIN = """
optimizer = torch.optim.AdamW(adapters.parameter_groups(model, 1e-3))
model(input_ids=torch.arange(18).view(2, 9), labels=torch.tensor([0, 1])).loss.backward()
adapters.clip_gradients(model, 1.0)
optimizer.step()
"""


def test_the_adapters_code_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    attach, patterns, *rest = blocks("python", page("adapter.md"))
    patterns = f"get_peft_model(BertForSequenceClassification(shape), {patterns.strip()})\n"
    code = "\n".join((MODEL, attach, TRAIN, *rest, patterns))
    monkeypatch.chdir(tmp_path)
    exec(code, {})
    assert "non affine share" in capsys.readouterr().out


STUDY = """
question: Which?
arms: [{name: lora, adapter: {method: lora}}, {name: phi, adapter: {method: basis}}]
baseline: lora
objective: {metric: test/accuracy, select_on: valid/accuracy}
adapter: {method: basis}
train: {eval_every: 10}
"""
PROFILES, TUNE, SEARCH, KEEP, PHI, AFTER, CLAIMS, SUMS, MEDIANS, SEEDS, TASKS = blocks(
    "yaml", page("studies.md")
)
PROFILES = PROFILES.replace("head-only", "phi")
SEEDS += "sweep: {adapter.num_basis: [8, 64]}\n"
(MATRIX,) = blocks("yaml", page("tasks.md"))
_, QUESTIONS, OWN = blocks("yaml", page("how_to/own_data.md"))  # the first is followed
PARTS = [
    PROFILES,
    TUNE,
    SEARCH,
    KEEP,
    PHI,
    AFTER,
    AFTER + CLAIMS,
    SUMS,
    MEDIANS,
    SEEDS,
    TASKS,
    MATRIX,
    QUESTIONS,
    OWN,
]


@pytest.mark.parametrize("part", PARTS)
def test_the_stages_and_tasks_that_are_shown_are_planned(
    part: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    own = {line.partition(":")[0] for line in part.splitlines()}
    study = [line for line in STUDY.splitlines(True) if line.partition(":")[0] not in own]
    (tmp_path / "s.yaml").write_text(f"name: s\n{''.join(study)}{part}")
    (tmp_path / "my-model").mkdir()
    (tmp_path / "my-model/config.json").write_text('{"model_type": "bert"}')
    reviews = [f"review {n},{'good' if n % 2 else 'bad'}" for n in range(600)]
    (tmp_path / "mine.csv").write_text("\n".join(["review,mood", *reviews]))
    row = {"a": "w", "b": "x", "c": "y", "d": "z", "gold": "b"}
    rows = (json.dumps({"question": f"{n}?", **row}) for n in range(1_280))
    (tmp_path / "questions.jsonl").write_text("\n".join(rows))
    assert cli.main(["s.yaml", "--plan"]) == cli.DONE
