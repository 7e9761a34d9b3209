"""Every form with families and scopes, and that what a form declares wrongly is found."""

import dataclasses
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch

from adapters import form_conformance
from adapters.__main__ import main
from adapters.form_conformance import Subject, layer_of, run_checks
from adapters.forms import FactoredForm, Form, list_forms, register_form
from adapters.forms.form import _FORMS
from basis_zoo import list_bases

FAMILIES = ("sinc", "hat", "chebyshev", "rational")
"""One smooth, one with kinks, one without grid points, one that is not linear in its amplitudes."""
OUTSIDE_A_SUM = {"rational", "sinter"}
"""Their phi is not linear in its amplitudes."""


def _failed(form: str, **options) -> dict[str, str]:
    return {o.check: o.detail for o in run_checks(form, **options) if not o.passed}


@pytest.mark.parametrize("basis", FAMILIES)
@pytest.mark.parametrize("form", list_forms())
def test_every_form_conforms(form, basis):
    if form == "sum" and basis in OUTSIDE_A_SUM:
        with pytest.raises(ValueError, match="cannot be part of a sum"):
            run_checks(form, basis=basis)
        return
    assert not _failed(form, basis=basis)


OTHERS = ("bernstein", "haar", "matern", "relu", "wendland")
"""Families of other kinds than `FAMILIES`."""


@pytest.mark.slow
@pytest.mark.parametrize(
    "basis",
    [
        pytest.param(name, marks=[pytest.mark.thorough] * (name not in OTHERS))
        for name in sorted(set(list_bases()) - set(FAMILIES))
    ],
)
def test_every_family_serves_every_form(basis):
    for form in list_forms():
        if form == "sum" and basis in OUTSIDE_A_SUM:
            continue
        try:
            outcomes = run_checks(form, basis=basis)
        except ValueError as error:  # a family that is no identity, or has no gradient, says so
            assert "start" in str(error), (form, basis)
            continue
        assert not {o.check: o.detail for o in outcomes if not o.passed}, (form, basis)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("basis", FAMILIES)
def test_every_form_conforms_on_a_gpu(basis):
    for form in list_forms():
        if form != "sum" or basis not in OUTSIDE_A_SUM:
            assert not _failed(form, device="cuda", basis=basis), form


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("basis", ["sinc", "hat"])
@pytest.mark.parametrize("scope", ["row", "column"])
def test_every_scope_conforms_on_a_gpu(scope, basis):
    for form in ("elementwise", "hadamard", "sum"):
        options = {"basis": basis, "sharing": "all", "sharing_scope": scope}
        assert not _failed(form, device="cuda", **options), form


@pytest.mark.parametrize("basis", ["sinc", "hat"])
@pytest.mark.parametrize("level", ["all", "amplitude", "bandwidth"])
@pytest.mark.parametrize("scope", ["row", "column"])
@pytest.mark.parametrize("form", ["elementwise", "hadamard", "sum"])
def test_every_scope_conforms(form, scope, level, basis):
    options = {"basis": basis, "sharing": level, "sharing_scope": scope}
    if (level, basis) == ("bandwidth", "hat"):
        with pytest.raises(ValueError, match="nothing, since phi trains no such number"):
            run_checks(form, **options)
        return
    skipped = {"counts"} if level != "all" else set()  # which the level decides
    failed = _failed(form, **options)
    assert not failed.keys() - skipped, failed


def test_the_device_that_is_asked_for_is_checked(monkeypatch):
    def check_where(subject: Subject) -> str:
        weight = layer_of(subject.model()).base_layer.weight
        return f"{subject.x.device} {weight.device}"

    monkeypatch.setattr(form_conformance, "CHECKS", (check_where,))
    (outcome,) = run_checks("elementwise", device="meta")
    assert outcome.detail == "meta meta"
    with pytest.raises(RuntimeError, match="device string: gpu"):
        run_checks("elementwise", device="gpu")


@pytest.fixture
def planted():
    """Registers a class under a name for one test."""
    names: list[str] = []

    def plant(cls: type[Form]) -> str:
        names.append("planted")
        register_form("planted")(cls)
        return "planted"

    yield plant
    for name in names:
        del _FORMS._members[name]
        _FORMS._foreign.discard(name)


@dataclasses.dataclass(frozen=True)
class _Plain(Form):
    def update(self, of, phi):
        return phi.of_product(of.b, of.a)

    def oracle(self, b, a, weight, phi, **options):
        return phi(b @ a)


class _WrongOracle(_Plain):
    def oracle(self, b, a, weight, phi, **options):
        return 2 * phi(b @ a)


class _WrongRank(_Plain):
    def largest_rank(self, r, shape):
        return r


class _WrongReach(_Plain):
    def reach(self, of):
        return of.b.abs().max() * 0 + 0.01


class _WrongGradient(_Plain):
    def update(self, of, phi):
        return phi.of_product(of.b.detach(), of.a)


class _ApplyOfItsOwn(_Plain):
    applied: ClassVar[bool] = True

    def apply(self, x, of, phi, scale):
        return 3 * super().apply(x, of, phi, scale)


class _MergesWhatItMustNot(_Plain):
    mergeable: ClassVar[bool] = False

    def oracle(self, b, a, weight, phi, **options):
        return options["x"] @ phi(b @ a).T


@pytest.mark.parametrize(
    ("cls", "found_by"),
    [
        (_WrongOracle, "oracle"),
        (_WrongRank, "rank"),
        (_WrongReach, "reach"),
        (_WrongGradient, "gradients"),
        (_ApplyOfItsOwn, "merged"),
        (_MergesWhatItMustNot, "merged"),
    ],
)
def test_a_wrong_declaration_is_found(planted, cls, found_by):
    assert found_by in _failed(planted(cls))


def test_a_right_form_of_a_user_passes(planted):
    assert not _failed(planted(_Plain))


FILE = '''
from dataclasses import dataclass

from adapters.forms import FactoredForm, register_form


@register_form("bent_factor")
@dataclass(frozen=True)
class BentFactor(FactoredForm):
    """s (B + c φ(B)) A."""

    c: float = 2.0

    def largest_rank(self, r, shape):
        return min(r, *shape)

    def reach(self, of):
        return of.b.abs().max().clamp_min(1e-4)

    def factors(self, of, phi):
        return of.b + self.c * phi(of.b), of.a

    def oracle(self, b, a, weight, phi, **options):
        return ORACLE
'''


@pytest.mark.parametrize(("oracle", "code"), [("(b + 2 * phi(b)) @ a", 0), ("phi(b) @ a", 1)])
def test_a_file_is_checked_by_the_command(tmp_path, capsys, oracle, code):
    file = tmp_path / f"form_{code}.py"
    name = f"bent_factor_{code}"
    file.write_text(FILE.replace("bent_factor", name).replace("ORACLE", oracle))
    try:
        assert main(["check", str(file)]) == code
    finally:
        del _FORMS._members[name]
        _FORMS._foreign.discard(name)
    printed = capsys.readouterr().out
    assert ("FAIL  oracle" in printed) == bool(code)
    assert f"{10 + (1 - code)} passed, {code} failed" in printed


def test_the_command_refuses_what_it_cannot_check(tmp_path, capsys):
    empty = Path(tmp_path / "nothing.py")
    empty.write_text("x = 1\n")
    assert main(["check", str(empty)]) == 2
    assert "registers no form" in capsys.readouterr().err
    assert main(["check", "elementwize"]) == 2
    assert "Did you mean 'elementwise'?" in capsys.readouterr().err


def test_the_command_lists_forms(capsys):
    assert main(["list"]) == 0
    printed = capsys.readouterr().out
    assert all(name in printed for name in list_forms())
    assert printed.count("cannot be merged") == 1


def test_a_factored_form_needs_its_factors_alone():
    class Lora(FactoredForm):
        def factors(self, of, phi):
            return of.b, of.a

    from adapters.forms import Operands

    torch.manual_seed(0)
    b, a, x = torch.randn(5, 2), torch.randn(2, 4), torch.randn(3, 4)
    of = Operands(b, a, None, (-3.0, 3.0))
    form = Lora()
    assert np.allclose(form.update(of, None), b @ a)
    assert torch.allclose(form.apply(x, of, None, 2.0), 2 * x @ (b @ a).T, atol=1e-6)
