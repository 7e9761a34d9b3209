"""What a command imports: nothing heavy before it is needed, so that answers come at once."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from python_path import environment

pytestmark = pytest.mark.slow

HEAVY = ("torch", "transformers", "datasets", "peft", "mlflow", "matplotlib", "optuna", "pandas",
         "ray", "scipy", "sqlalchemy")  # fmt: skip
WATCH = f"""
import sys
from studies.engine.command import cli
codes = [cli.main(line.split()) for line in sys.argv[1:]]
heavy = sorted({{name.split(".")[0] for name in sys.modules}} & set({HEAVY}))
print("IMPORTED", *codes, "AND", *heavy)
"""
STUDY = """\
question: Which?
plugins: []
adapter: {method: basis, basis: sinc}
sweep: {adapter.num_basis: [8, 16]}
arms: [{name: lora, adapter: {method: lora}}]
baseline: lora
objective: {metric: test/accuracy}
after: {affine: true}
"""


WRONG = {
    "num_bases": ("num_basis", "no option 'num_bases'. Did you mean 'num_basis'?"),
    "snc": ("basis: sinc", "unknown basis family 'snc'. Did you mean 'sinc'?"),
    "lara": ("method: lora", "unknown method 'lara'. Did you mean 'lora'?"),
    "acuracy": ("accuracy", "Did you mean 'test/accuracy'?"),
    "lira": ("baseline: lora", "no arm is called 'lira'"),
}
"""By a name in error: where it is put, in the place of the last name there, and what is said."""


@pytest.fixture(scope="module")
def commands(tmp_path_factory: pytest.TempPathFactory):
    """Runs command lines in a process of their own: exit codes, heavy packages, output.

    All share a cache, in which the first one leaves what it was answered about adapters.
    """
    folder = tmp_path_factory.mktemp("quick")
    (folder / "s.yaml").write_text("name: s\n" + STUDY)
    (folder / "other.yaml").write_text("name: other\n" + STUDY.replace("[8, 16]", "[8, 0]"))

    def run(*lines: str) -> tuple[list[int], list[str], str]:
        done = subprocess.run(
            [sys.executable, "-c", WATCH, *lines], cwd=folder, text=True, capture_output=True,
            env=environment() | {"BASIS_ZOO_CACHE": str(folder / "cache")},
        )  # fmt: skip
        text, _, counted = done.stdout.rpartition("IMPORTED ")
        codes, _, heavy = counted.partition("AND")
        return [int(code) for code in codes.split()], heavy.split(), text + done.stderr

    run.folder = folder  # type: ignore[attr-defined]
    run.first = run("s.yaml --plan", "other.yaml --plan")  # type: ignore[attr-defined]
    return run


def test_what_was_answered_is_asked_anew_of_another_adapter(commands) -> None:
    codes, heavy, output = commands.first
    assert codes == [0, 2] and "peft" in heavy and "num_basis" in output, output


def test_names_a_second_plan_and_a_name_in_error_need_nothing_heavy(commands) -> None:
    folder: Path = commands.folder
    for word, (place, _) in WRONG.items():
        wrong = STUDY.replace(place, re.sub(r"\w+$", word, place))
        (folder / f"{word}.yaml").write_text(f"name: wrong\n{wrong}")
    lines = [f"{word}.yaml --plan" for word in WRONG]
    codes, heavy, output = commands("list", "s.yaml --plan", *lines)
    assert (codes, heavy) == ([0, 0] + [2] * len(WRONG), []), output
    assert "9 trials: 9 waiting" in output
    for word, (_, message) in WRONG.items():
        assert message in output, word


@pytest.mark.thorough
def test_a_plug_in_of_a_family_needs_torch_alone(commands) -> None:
    folder: Path = commands.folder
    (folder / "own.py").write_text(
        "import torch\nfrom basis_zoo import LocationScaleBasis, register_basis\n\n\n"
        '@register_basis("sech")\nclass Sech(LocationScaleBasis):\n'
        '    r"""The hyperbolic secant: psi(z) = 1 / cosh z."""\n\n'
        "    def psi(self, z):\n        return 1 / torch.cosh(z.clamp(-40, 40))\n"
    )
    own = STUDY.replace("plugins: []", "plugins: [own.py]").replace("sinc", "sech")
    (folder / "own.yaml").write_text(own)
    assert commands("own.yaml --plan")[0] == [0]
    assert commands("own.yaml --plan")[:2] == ([0], ["torch"])


def test_a_report_needs_neither_torch_nor_mlflow_to_be_written() -> None:
    code = "import sys, studies.engine.reporting.report; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment(), capture_output=True, text=True, check=True
    )
    assert not {"torch", "transformers", "peft", "mlflow", "optuna"} & set(done.stdout.split())


@pytest.mark.parametrize(
    "module",
    ["basis_zoo", "studies", "studies.backbones", "studies.engine.work", "studies.tasks",
     "studies.tasks.mt_bench", "studies.trained"],
)  # fmt: skip
def test_help_needs_nothing_heavy(module: str) -> None:
    code = (
        "import runpy, sys\n"
        f"sys.argv[1:] = ['--help']\n"
        f"try:\n    runpy.run_module({module!r}, run_name='__main__', alter_sys=True)\n"
        "except SystemExit as end:\n    assert not end.code\n"
        f"print('IMPORTED', *sorted({{name.split('.')[0] for name in sys.modules}} & set({HEAVY})))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment(), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    told, _, heavy = done.stdout.rpartition("IMPORTED")
    assert "usage: " in told and heavy.split() == []
