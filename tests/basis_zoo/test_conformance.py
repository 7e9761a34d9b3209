"""Every registered family passes every check on every grid; nobody edits this file."""

import dataclasses

import pytest

from basis_zoo import Basis, get_basis, list_bases
from basis_zoo.basis import get_basis_class
from basis_zoo.conformance import (
    Check,
    Subject,
    assert_conforms,
    checks_for,
    run_checks,
    undeclared,
)
from basis_zoo.conformance.run import grids_for
from basis_zoo.grids import Grid, get_grid

FAMILIES = [
    get_basis(name, **options)
    for name in list_bases()
    for options in get_basis_class(name).variants
]
COMPILED = {get_basis(name) for name in ("bernstein", "fourier", "hat", "matern", "sinc", "walsh")}
"""Families of each kind, which are compiled in every run; the others are in a thorough one."""
ELSEWHERE = [get_basis(name, interval=(-1.0, 2.5)) for name in list_bases()]


def _label(basis: Basis) -> str:
    changed = [
        str(getattr(basis, f.name))
        for f in dataclasses.fields(basis)
        if getattr(basis, f.name) != f.default
    ]
    return "-".join([basis.name, *changed])


def _cases() -> list:
    cases = []
    for basis in FAMILIES:
        for check in checks_for(basis):
            grids = grids_for(basis) if check.per_grid else grids_for(basis)[:1]
            for grid in grids:
                label = f"{_label(basis)}-{check.name}-{grid.name}"
                marks = [pytest.mark.slow] if check.slow else []
                seldom = [pytest.mark.thorough] if check.slow and basis not in COMPILED else []
                cases.append(pytest.param(basis, check, grid, id=label, marks=marks + seldom))
    for basis in ELSEWHERE:
        uniform = get_grid("uniform")
        for check in checks_for(basis):
            if not check.slow:
                label = f"{_label(basis)}-{check.name}"
                seldom = pytest.mark.thorough  # the same on another interval
                cases.append(pytest.param(basis, check, uniform, id=label, marks=seldom))
    return cases


@pytest.mark.parametrize("basis", [get_basis(name) for name in list_bases()], ids=list_bases())
def test_shipped_families_declare_themselves(basis: Basis) -> None:
    missing = {"oracle", "formula", "reference"} & set(undeclared(basis))
    assert not missing, f"what ships has an oracle, a formula and a reference: add {missing}"


@pytest.mark.parametrize(("basis", "check", "grid"), _cases())
def test_conformance(basis: Basis, check: Check, grid: Grid) -> None:
    assert check(Subject(basis, grid))


@pytest.mark.parametrize("kind", [1, 2])
@pytest.mark.parametrize("name", ["hat", "bspline", "gaussian_rbf"])
def test_chebyshev_grids_of_both_kinds_conform(name: str, kind: int) -> None:
    basis = get_basis(name, num_basis=20)
    grid = get_grid("chebyshev", kind=kind)
    for check in checks_for(basis):
        if check.per_grid:
            check(Subject(basis, grid))


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        "sinc",
        "walsh",
        *(
            pytest.param(n, marks=pytest.mark.thorough)
            for n in ("bspline", "gaussian_rbf", "chebyshev")
        ),
    ],
)
def test_many_functions_conform(name: str) -> None:
    assert_conforms(name, num_basis=512)


@pytest.mark.slow
@pytest.mark.parametrize(
    "degree", [7, *(pytest.param(n, marks=pytest.mark.thorough) for n in (4, 6, 8, 9, 10))]
)
def test_splines_of_every_degree_conform(degree: int) -> None:
    assert_conforms("bspline", degree=degree)
    assert_conforms("bspline", degree=degree, knots="extended")


def test_an_outcome_is_reported_for_every_check_that_applies() -> None:
    basis = get_basis("hat", num_basis=8)
    outcomes = run_checks(basis, all_grids=False)
    assert [o.check for o in outcomes] == [c.name for c in checks_for(basis)]
    assert all(o.passed and o.detail for o in outcomes)


def test_families_of_the_issue_are_registered() -> None:
    asked = """sinc gaussian_rbf bspline fourier polynomial chebyshev legendre hermite bernstein hat
    matern inverse_multiquadric wendland tanh relu mexican_hat morlet difference_of_gaussians haar
    walsh rational sine sinter"""
    assert set(asked.split()) <= set(list_bases())
