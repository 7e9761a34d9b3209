"""What a command imports: nothing heavy before it is needed, so that answers come at once."""

import subprocess
import sys
from pathlib import Path

import pytest
from python_path import environment

HEAVY = ("torch", "transformers", "datasets", "peft", "mlflow", "matplotlib", "optuna", "pandas",
         "ray", "scipy", "sqlalchemy")  # fmt: skip
WATCH = f"""
import sys
from studies.engine.command import cli
code = cli.main(sys.argv[1:])
print("IMPORTED", code, *sorted({{name.split(".")[0] for name in sys.modules}} & set({HEAVY})))
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


@pytest.fixture(scope="module")
def command(tmp_path_factory: pytest.TempPathFactory):
    """Runs a command in a process of its own: exit code, heavy packages that it imported, output.

    All share a cache, in which the first one leaves what it was answered about adapters.
    """
    folder = tmp_path_factory.mktemp("quick")
    (folder / "s.yaml").write_text("name: s\n" + STUDY)

    def run(*arguments: str) -> tuple[int, list[str], str]:
        done = subprocess.run(
            [sys.executable, "-c", WATCH, *arguments], cwd=folder, text=True, capture_output=True,
            env=environment() | {"BASIS_ZOO_CACHE": str(folder / "cache")},
        )  # fmt: skip
        text, _, counted = done.stdout.rpartition("IMPORTED ")
        code, *heavy = counted.split()
        return int(code), heavy, text + done.stderr

    run.folder = folder  # type: ignore[attr-defined]
    code, heavy, output = run("s.yaml", "--plan")
    assert code == 0 and "peft" in heavy, output
    return run


def test_the_names_of_studies_and_a_second_plan_need_nothing_heavy(command) -> None:
    assert command("list")[:2] == (0, [])
    code, heavy, output = command("s.yaml", "--plan")
    assert (code, heavy) == (0, []) and "9 trials: 9 waiting" in output


def test_a_plug_in_of_a_family_needs_torch_alone(command) -> None:
    folder: Path = command.folder
    (folder / "own.py").write_text(
        "import torch\nfrom basis_zoo import LocationScaleBasis, register_basis\n\n\n"
        '@register_basis("sech")\nclass Sech(LocationScaleBasis):\n'
        '    r"""The hyperbolic secant: psi(z) = 1 / cosh z."""\n\n'
        "    def psi(self, z):\n        return 1 / torch.cosh(z.clamp(-40, 40))\n"
    )
    own = STUDY.replace("plugins: []", "plugins: [own.py]").replace("sinc", "sech")
    (folder / "own.yaml").write_text(own)
    assert command("own.yaml", "--plan")[0] == 0
    assert command("own.yaml", "--plan")[:2] == (0, ["torch"])


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("num_basis: [8", "num_bases: [8", "no option 'num_bases'. Did you mean 'num_basis'?"),
        ("basis: sinc", "basis: snc", "unknown basis family 'snc'. Did you mean 'sinc'?"),
        ("method: lora", "method: lara", "unknown method 'lara'. Did you mean 'lora'?"),
        ("test/accuracy", "test/acuracy", "Did you mean 'test/accuracy'?"),
        ("baseline: lora", "baseline: lara", "no arm is called 'lara'"),
    ],
)
def test_a_name_in_error_is_refused_without_anything_heavy(command, old, new, message) -> None:
    folder: Path = command.folder
    (folder / "wrong.yaml").write_text("name: wrong\n" + STUDY.replace(old, new))
    code, heavy, output = command("wrong.yaml", "--plan")
    assert message in output
    assert (code, heavy) == (2, [])


def test_what_was_answered_is_asked_anew_of_another_adapter(command) -> None:
    folder: Path = command.folder
    (folder / "other.yaml").write_text("name: other\n" + STUDY.replace("[8, 16]", "[8, 0]"))
    code, heavy, output = command("other.yaml", "--plan")
    assert code == 2 and "peft" in heavy and "num_basis" in output


def test_a_report_needs_neither_torch_nor_mlflow_to_be_written() -> None:
    code = "import sys, studies.engine.reporting.report; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment(), capture_output=True, text=True, check=True
    )
    assert not {"torch", "transformers", "peft", "mlflow", "optuna"} & set(done.stdout.split())
