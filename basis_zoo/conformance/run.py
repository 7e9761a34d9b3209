"""Run the checks."""

import functools
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

from basis_zoo.basis import Basis, get_basis, get_basis_class
from basis_zoo.conformance.check import ALL_CHECKS, Check, ConformanceError
from basis_zoo.conformance.subject import Subject
from basis_zoo.grids import Grid, get_grid, list_grids

_ORDER = ("values", "tensors", "derivatives", "claims", "modules")


@dataclass(frozen=True)
class Outcome:
    """What one check found."""

    check: str
    grid: str
    passed: bool
    detail: str
    """What was measured, or what is wrong."""
    seconds: float


def checks_for(basis: Basis) -> list[Check]:
    """The checks that `basis` must pass: the contract's, and one for each of its claims."""
    return sorted((check for check in ALL_CHECKS if check.applies(basis)), key=_place)


def _place(check: Check) -> int:
    return _ORDER.index(check.run.__module__.rpartition(".")[2])


def grids_for(basis: Basis) -> list[Grid]:
    """The grids on which the family differs: all registered, or one if it reads no points."""
    uniform = get_grid("uniform")
    if not basis.num_points:
        return [uniform]
    return [uniform] + [get_grid(name) for name in list_grids() if name != "uniform"]


def run_checks(basis: Basis, *, all_grids: bool = True, slow: bool = True) -> list[Outcome]:
    """Run every check that applies.

    Args:
        basis: The family.
        all_grids: Whether to repeat the checks that depend on the grid on every grid.
        slow: Whether to run the slow ones (compiling).

    Returns:
        One outcome a check and grid. An exception inside the family is a failed check with the
        exception as its detail.
    """
    outcomes = []
    for check in checks_for(basis):
        if check.slow and not slow:
            continue
        grids = grids_for(basis)
        for grid in grids if check.per_grid and all_grids else grids[:1]:
            outcomes.append(run_one(check, basis, grid))
    return outcomes


def run_one(check: Check, basis: Basis, grid: Grid) -> Outcome:
    """Run one check on one grid."""
    return outcome_of(check.name, grid.name, lambda: check(Subject(basis, grid)))


def outcome_of(name: str, where: str, run: Callable[[], str]) -> Outcome:
    """What the check `name` found: `run` returns what it measured, or raises."""
    began = time.perf_counter()
    try:
        passed, detail = True, run()
    except ConformanceError as error:
        passed, detail = False, str(error)
    except Exception as error:  # it runs someone else's code: whatever that raises is a finding
        passed, detail = False, f"{type(error).__name__}: {error}"
    return Outcome(name, where, passed, detail, time.perf_counter() - began)


def undeclared(basis: Basis) -> list[str]:
    """What the family does not declare, so that it could not be checked."""
    declared = {
        "oracle": basis.has_oracle,
        "formula": bool(basis.formula),
        "reference": bool(basis.reference),
        "claims": bool(basis.claims),
    }
    return [what for what, there in declared.items() if not there]


def format_outcomes(outcomes: list[Outcome]) -> str:
    """A table with one line for each outcome and the count at the end."""
    wide = max(len(o.check) for o in outcomes)
    lines = [
        f"{'pass' if o.passed else 'FAIL'}  {o.check:{wide}}  {o.grid:9}  {o.detail}"
        for o in outcomes
    ]
    failed = sum(not o.passed for o in outcomes)
    return "\n".join([*lines, f"{len(outcomes) - failed} passed, {failed} failed"])


def assert_conforms(name: str, **options: object) -> None:
    """Refuse a family that fails a check; takes about a second, once for each set of options.

    Raises:
        ConformanceError: Names the family, the failed checks and how to see them all.
        ValueError: Unknown family or option.
    """
    failed = _failures(get_basis(name, **options))
    if failed:
        details = "; ".join(f"{o.check}: {o.detail}" for o in failed[:3])
        more = f" (and {len(failed) - 3} more)" if len(failed) > 3 else ""
        raise ConformanceError(
            f"basis family {name!r} fails {len(failed)} of its checks: {details}{more}. "
            f"See all of them with: python -m basis_zoo check {_reached_by(name)}"
        )


def _reached_by(name: str) -> str:
    """What to pass to the command `check`, which finds a plug-in's family by its file alone."""
    module = get_basis_class(name).__module__
    file = getattr(sys.modules.get(module), "__file__", None)
    return name if file is None or module.startswith("basis_zoo.") else file


@functools.lru_cache(maxsize=256)
def _failures(basis: Basis) -> list[Outcome]:
    return [o for o in run_checks(basis, all_grids=False, slow=False) if not o.passed]
