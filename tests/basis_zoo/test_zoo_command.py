"""`python -m basis_zoo`, the example family, and families refused by name."""

import inspect
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from basis_zoo import get_basis, list_bases, register_basis
from basis_zoo.__main__ import main
from basis_zoo.basis import Basis
from basis_zoo.conformance import ConformanceError, assert_conforms
from basis_zoo.families.gaussian_rbf import GaussianRBF
from basis_zoo.gallery import measure
from basis_zoo.listing import COLUMNS, describe

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "my_basis.py"

BROKEN = '''
from dataclasses import dataclass
import torch
from basis_zoo import Claim, LocationScaleBasis, register_basis


@register_basis("broken_tent")
@dataclass(frozen=True)
class BrokenTent(LocationScaleBasis):
    """A tent that is said to be smooth."""

    formula = "a"
    reference = "b"
    claims = frozenset({Claim.ZERO_MEAN})

    def psi(self, z):
        return (1 - z.abs()).clamp(min=0)

    def psi_oracle(self, z):
        import numpy as np

        return np.maximum(0, 1 - abs(z))
'''


@pytest.fixture
def unregister():
    """Forget families that a test registers."""
    from basis_zoo.basis import _BASES

    before = dict(_BASES._members)
    yield
    _BASES._members.clear()
    _BASES._members.update(before)


def test_the_example_fits_in_forty_lines_and_conforms(unregister, capsys) -> None:
    assert len(EXAMPLE.read_text().splitlines()) <= 40
    assert main(["check", str(EXAMPLE)]) == 0
    told = capsys.readouterr().out
    assert "Sech(num_basis=50" in told and "0 failed" in told
    for word in ("oracle", "second_gradient", "starts", "proxy", "compile", "quantile"):
        assert word in told
    assert "sech" in list_bases()


def test_a_broken_family_fails_with_its_checks_named(tmp_path, unregister, capsys) -> None:
    file = tmp_path / "tent.py"
    file.write_text(BROKEN)
    assert main(["check", "--uniform-only", str(file)]) == 1
    told = capsys.readouterr().out
    failed = {line.split()[1] for line in told.splitlines() if line.startswith("FAIL")}
    assert failed >= {"breakpoints", "zero_mean"}
    assert "oracle" not in failed


def test_a_study_is_refused_before_training_with_the_check_named(unregister) -> None:
    members = {"psi": lambda self, z: 2 * GaussianRBF.psi(self, z)}
    register_basis("too_tall")(type("TooTall", (GaussianRBF,), members))
    with pytest.raises(ConformanceError, match=r"'too_tall' fails .*oracle: .*bounded: "):
        assert_conforms("too_tall", num_basis=16)
    with pytest.raises(ValueError, match="Did you mean 'sinc'"):
        assert_conforms("sincc")


def test_list_shows_every_family_grid_and_start(capsys) -> None:
    assert main(["list"]) == 0
    told = capsys.readouterr().out
    for word in (*list_bases(), "quantile", "identity_anchored", *COLUMNS):
        assert word in told


def test_describe_tells_what_a_family_declares() -> None:
    told = describe(get_basis("bspline"))
    assert (told["smooth"], told["order"], told["reads"]) == ("C^2", "4", "grid")
    assert describe(get_basis("wendland"))["support"] == "|z| <= 3"
    assert describe(get_basis("walsh"))["smooth"] == "jumps"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["check", "gaussian"], "unknown basis family 'gaussian'"),
        (["check", "no_such_file.py"], "no such file: no_such_file.py"),
    ],
)
def test_wrong_calls_are_told(arguments: list[str], message: str, capsys) -> None:
    assert main(arguments) == 2
    assert message in capsys.readouterr().err


def test_a_file_without_a_family_is_told(tmp_path, capsys) -> None:
    file = tmp_path / "empty.py"
    file.write_text("x = 1\n")
    assert main(["check", str(file)]) == 2
    assert "registers no family" in capsys.readouterr().err


MINE = """import torch
from basis_zoo import LocationScaleBasis, register_basis


@register_basis{name}
class Mine(LocationScaleBasis):
    '''{doc}'''

    {body}
"""


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1\nraise RuntimeError('no licence')", "mine.py:2: RuntimeError: no licence"),
        ("def x(:", "mine.py:1: SyntaxError: invalid syntax"),
        (MINE.format(name="('mine')", doc="A family of mine", body="x = 1"), "abstract method psi"),
        (
            MINE.format(name="", doc="A family of mine.", body="psi = torch.exp"),
            "mine.py:5: TypeError: a basis family needs a name, a string before its class",
        ),
    ],
)
def test_a_file_in_error_is_told_in_one_line(
    text: str, message: str, tmp_path, unregister, capsys
) -> None:
    file = tmp_path / "mine.py"
    file.write_text(text)
    assert main(["check", str(file)]) == 2
    told = capsys.readouterr().err
    assert message in told and len(told.splitlines()) == 1


def test_a_refused_plug_in_is_seen_whole_by_the_command_that_is_named(
    tmp_path, unregister, capsys
) -> None:
    file = tmp_path / "short.py"
    file.write_text(MINE.format(name="('mine')", doc="Short.", body="psi = torch.nn.Tanhshrink()"))
    assert main(["check", "--uniform-only", str(file)]) == 1
    assert "in over 20 letters, got 'Short.'" in capsys.readouterr().out
    with pytest.raises(ConformanceError, match=f"python -m basis_zoo check {file}"):
        assert_conforms("mine")


def test_names_are_taken_once(unregister) -> None:
    with pytest.raises(ValueError, match=r"already registered as basis_zoo\.families\.sinc\.Sinc"):
        register_basis("sinc")(type("Other", (GaussianRBF,), {}))
    with pytest.raises(ValueError, match="lower-case word"):
        register_basis("My Basis")(type("Other", (GaussianRBF,), {}))
    with pytest.raises(TypeError, match="must be a subclass of Basis"):
        register_basis("other")(int)


@pytest.mark.parametrize("name", list_bases())
def test_families_extend_abstract_classes_only(name: str) -> None:
    (parent,) = type(get_basis(name)).__bases__
    assert issubclass(parent, Basis) and inspect.isabstract(parent)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("bspline", {"degree": 11}, "from 0 to 10"),
        ("bspline", {"knots": "open"}, "clamped"),
        ("bspline", {"num_basis": 3}, "at least 4"),
        ("fourier", {"period": 0.0}, "positive"),
        ("matern", {"nu": 2.0}, "0.5, 1.5 or 2.5"),
        ("morlet", {"frequency": -1.0}, "positive"),
        ("hermite", {"num_basis": 401}, "at most 400"),
        ("rational", {"denominator": -1}, "at least 0"),
        ("rational", {"num_basis": 3}, "at least 4"),
        ("sinc", {"interval": (1.0, 1.0)}, "increasing"),
        ("sinc", {"num_basis": 0}, "at least 1"),
        ("sinc", {"degree": 3}, "has no option 'degree'"),
    ],
)
def test_wrong_options_are_refused(name: str, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        get_basis(name, **options)


def test_importing_the_zoo_needs_torch_alone() -> None:
    code = (
        "import sys; sys.modules.update(dict.fromkeys(['scipy', 'matplotlib', 'peft', 'optuna']));"
        "import basis_zoo, basis_zoo.conformance, basis_zoo.proxy, basis_zoo.__main__;"
        "basis_zoo.get_basis('sinc')"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_gallery_draws_ones_own_family_alone(
    tmp_path: Path,
    unregister: None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(measure, "SIZES", (4, 8))
    bare = "\n\n@register_basis('{0}')\nclass {0}(LocationScaleBasis):\n    'A bump.'\n"
    bare += "    def psi(self, z):\n        return 1 / torch.cosh(z.clamp(-9, 9))\n"
    head = "import torch\nfrom basis_zoo import LocationScaleBasis, register_basis\n"
    (tmp_path / "mine.py").write_text(head + bare.format("first") + bare.format("second"))
    assert main(["gallery", "mine.py", "--out", "page"]) == 0
    told = capsys.readouterr()
    assert told.out.strip() == "page/index.html"
    assert "1/2 first" in told.err and "2/2 second" in told.err
    page = (tmp_path / "page" / "index.html").read_text()
    assert page.count("<section id=") == 2 and 'id="first"' in page and 'id="sinc"' not in page
    assert main(["gallery", "sink"]) == 2


def test_the_gallery_writes_nothing_where_nobody_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    here, other = tmp_path / "here", tmp_path / "other"
    here.mkdir()
    other.mkdir()
    monkeypatch.chdir(here)
    monkeypatch.setattr(tempfile, "tempdir", str(other))
    assert main(["gallery", "hat"]) == 0
    page = Path(capsys.readouterr().out.strip())
    assert page.is_file() and page.is_relative_to(other)
    assert main(["gallery", "--mosaic", "all.png"]) == 0
    assert [path.name for path in here.iterdir()] == ["all.png"]
