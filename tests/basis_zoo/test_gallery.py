"""The gallery, the accuracy page, and what the documents say of the zoo."""

import re
from pathlib import Path

import pytest
import torch

from basis_zoo import get_basis, list_bases, list_grids, list_starts
from basis_zoo.accuracy import accuracy_page, oracle_errors
from basis_zoo.conformance import Subject
from basis_zoo.conformance.check import ALL_CHECKS
from basis_zoo.gallery import measure, page, plots
from basis_zoo.phi import EXTRAPOLATIONS

DOCS = Path(__file__).parents[2] / "docs"


@pytest.mark.parametrize("name", list_bases())
def test_every_formula_renders(name: str) -> None:
    svg = plots.formula_svg(get_basis(name).formula)
    assert svg.startswith("<svg") and "currentColor" in svg
    assert "<text" not in svg and "<metadata" not in svg
    assert set(re.findall(r"https?://[\w.]+", svg)) == {"http://www.w3.org"}  # names, not addresses


def test_a_formula_that_does_not_parse_is_an_error() -> None:
    with pytest.raises(ValueError, match="frac"):
        plots.formula_svg(r"\frac{1}")


@pytest.mark.slow
def test_the_page_carries_its_pictures(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(page, "list_bases", lambda: ["hat", "rational"])
    monkeypatch.setattr(measure, "SIZES", (4, 8))
    path = page.write_gallery(tmp_path / "new" / "folder")
    text = path.read_text()
    assert text.count("data:image/png;base64,") == 4
    assert 'id="hat"' in text and 'id="rational"' in text
    assert not re.search(r'(?:src|href)="(?!data:|#)', text)
    assert "@import" not in text and "<script" not in text
    for word in (*list_grids(), *list_starts(), "partition of unity", "Horner"):
        assert (word in text) == (word != "Horner")


@pytest.mark.parametrize("name", list_bases())
def test_functions_are_drawn_for_every_family(name: str) -> None:
    basis = measure.sized(name, 8)
    x = torch.linspace(-3, 3, 50, dtype=torch.float64)
    drawn = measure.functions(basis, x, measure.place(basis, "uniform"))
    assert drawn.shape == (basis.num_amplitudes, 50)
    assert drawn.isfinite().all()
    assert (drawn.std(dim=1) > 0).sum() >= min(7, basis.num_amplitudes - 1)


def test_errors_fall_as_functions_are_added() -> None:
    found = measure.errors("bspline")
    first, last = found["wave"][0], found["wave"][-1]
    assert (first[0], last[0]) == (4, 64)
    assert last[1] < 1e-4 * first[1]


def test_a_family_that_is_not_linear_is_fitted_beyond_least_squares() -> None:
    basis = measure.sized("rational", 8)
    none = torch.zeros(0, dtype=torch.float64)
    polynomial = measure.sized("polynomial", 6)
    for target in ("step", "kink"):
        assert measure.fitted(basis, target, none)[1] < measure.fitted(polynomial, target, none)[1]


def test_the_accuracy_page_on_disk_is_of_these_families() -> None:
    """Numbers differ between processors; families, options, proxies and oracles do not."""

    def rows(text: str) -> list[tuple[str, ...]]:
        lines = [line for line in text.splitlines() if line.startswith("| ")][1:]
        cells = [[c.strip() for c in line.strip("|").split(" | ")] for line in lines]
        return [(c[0], c[1], c[7]) for c in cells]

    assert rows((DOCS / "accuracy.md").read_text()) == rows(accuracy_page()), (
        "run python -m basis_zoo accuracy --out docs/accuracy.md to make the page again"
    )


def test_a_wrong_family_shows_in_the_accuracy(monkeypatch) -> None:
    subject = Subject(get_basis("gaussian_rbf", num_basis=12))
    assert max(oracle_errors(subject)) < 1e-6
    monkeypatch.setattr(type(subject.basis), "psi", lambda self, z: torch.exp(-z.square()))
    assert min(oracle_errors(subject)) > 1e-2


def test_the_document_names_everything() -> None:
    text = (DOCS / "zoo.md").read_text()
    words = [*list_bases(), *list_grids(), *list_starts(), *EXTRAPOLATIONS]
    words += [check.name for check in ALL_CHECKS]
    missing = [word for word in words if f"`{word}`" not in text]
    assert not missing, f"docs/zoo.md says nothing of {missing}: add each to its table"
