"""Checks that every basis family must pass; they ship, so that users can check theirs too.

Every check builds what it needs, measures, and returns one line with the number measured or
raises `ConformanceError` with what is wrong and where. Modules here hold checks by subject.
"""

from basis_zoo.conformance import claims, derivatives, modules, tensors, values
from basis_zoo.conformance.check import Check, ConformanceError
from basis_zoo.conformance.run import (
    Outcome,
    assert_conforms,
    checks_for,
    format_outcomes,
    run_checks,
    undeclared,
)
from basis_zoo.conformance.subject import Subject

__all__ = [
    "Check",
    "ConformanceError",
    "Outcome",
    "Subject",
    "assert_conforms",
    "checks_for",
    "claims",
    "derivatives",
    "format_outcomes",
    "modules",
    "run_checks",
    "tensors",
    "undeclared",
    "values",
]
