"""The site is built strictly: no broken link or anchor, and no page that the menu leaves out."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import adapters
import basis_zoo
import studies

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[1]


def build(out: Path, root: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(out)],
        cwd=root,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1", "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        timeout=600,
    )


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("site")
    done = build(out)
    assert done.returncode == 0 and "WARNING" not in done.stderr, done.stderr
    return out


def test_the_readme_is_the_home_page(site: Path) -> None:
    home = (site / "index.html").read_text(encoding="utf-8")
    assert "<h1" in home and 'href="tutorial/"' in home and 'src="source/results/grid_size/' in home


def test_linked_files_of_the_repository_are_in_the_site(site: Path) -> None:
    assert (site / "source/CONTRIBUTING/index.html").is_file()
    assert "Contribute" in (site / "tutorial/index.html").read_text(encoding="utf-8")  # the menu
    listing = (site / "source/examples/my_basis.py/index.html").read_text(encoding="utf-8")
    assert "register_basis" in listing


def test_formulas_need_no_script(site: Path) -> None:
    page = (site / "statistics/index.html").read_text(encoding="utf-8")
    assert "<math" in page and "arithmatex" not in page


def test_pipes_in_tables_are_pipes(site: Path) -> None:
    page = (site / "config/index.html").read_text(encoding="utf-8")
    assert "list[str] | None" in page and "\\|" not in page


def test_nothing_is_fetched_by_a_reader(site: Path) -> None:
    fetched = r'<(?:script|link|img|iframe)\b[^>]*?(?:src|href)="(https?:[^"]+)"'
    for page in site.rglob("*.html"):
        assert not re.findall(fetched, page.read_text(encoding="utf-8")), page


@pytest.mark.parametrize("package", [adapters, basis_zoo, studies], ids=lambda p: p.__name__)
def test_every_public_name_is_documented(package: object, site: Path) -> None:
    name = package.__name__
    page = (site / "api" / name / "index.html").read_text(encoding="utf-8")
    missing = {each for each in package.__all__ if f'id="{name}.{each}"' not in page}
    assert not missing


FAULTS = {
    "a file that is not there": "[x](nowhere.md)",
    "an anchor that is not there": "[x](zoo.md#nowhere)",
    "an anchor of its own": "[x](#nowhere)",
    "a file outside docs/": "[x](../studies/nowhere.yaml)",
}


@pytest.mark.parametrize(
    "fault",
    [
        "a file that is not there",
        *(pytest.param(f, marks=pytest.mark.thorough) for f in list(FAULTS)[1:]),
        "a page that is not in the menu",
    ],
)
def test_a_fault_fails_the_build(fault: str, tmp_path: Path) -> None:
    """On a site of three pages."""
    (tmp_path / "tools").mkdir()
    shutil.copy(ROOT / "tools/site_hooks.py", tmp_path / "tools")
    (tmp_path / "docs").mkdir()
    config = (ROOT / "mkdocs.yml").read_text(encoding="utf-8").partition("\nnav:")[0]
    (tmp_path / "mkdocs.yml").write_text(f"{config}\nnav: [index.md, zoo.md]\n")
    (tmp_path / "README.md").write_text("# Home\n")
    (tmp_path / "docs/zoo.md").write_text("# Zoo\n\n[home](../README.md), [here](#zoo)\n")
    assert build(tmp_path / "site", tmp_path).returncode == 0
    page = "zoo.md" if fault in FAULTS else "left_out.md"
    (tmp_path / "docs" / page).write_text(f"# Zoo\n\n{FAULTS.get(fault, '')}\n")
    done = build(tmp_path / "site", tmp_path)
    assert done.returncode == 1 and "WARNING" in done.stderr, done.stderr
