"""Private names of other packages: all are there, and all that the package reads are listed."""

import ast
import inspect
from pathlib import Path

import pytest
from peft import PeftConfig
from peft.tuners.tuners_utils import BaseTuner, BaseTunerLayer

import adapters
from adapters.methods.tuner import UpdateConfig, UpdateLinear, UpdateModel
from tests.adapters.peft_integration.private_names import PRIVATE_NAMES, Private

FILES = sorted(Path(adapters.__file__).parent.rglob("*.py"))
TREES = [ast.parse(file.read_text(encoding="utf-8")) for file in FILES]
LISTED = {part for private in PRIVATE_NAMES for part in private.name.split(".")}
ROOTS = ("peft", "torch", "transformers")
PUBLIC = {"torch.nn", "torch.autograd.graph", "torch.nn.functional", "torch.utils.checkpoint"}
"""Documented modules below a root."""


@pytest.mark.parametrize("private", PRIVATE_NAMES, ids=str)
def test_a_private_name_is_there(private):
    assert private.exists(), f"{private} is gone; adapters needs it for {private.reason}"


def test_what_is_gone_is_told():
    for module, name in (
        ("peft.utils", "PeftType._gone_"),
        ("peft.no_such_module", "x"),
        ("peft.tuners.adalora.layer", "RankAllocator.gone"),
    ):
        assert not Private(module, name, "").exists()


def is_private(name):
    return name.startswith("_") and not name.endswith("__")


def own_names():
    """Private names that the package itself defines or assigns."""
    found = {"_asdict", "_replace"}  # documented, of named tuples
    for node in (node for tree in TREES for node in ast.walk(tree)):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Attribute | ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.attr if isinstance(node, ast.Attribute) else node.id)
    return found


def test_private_attributes_that_are_read_are_listed():
    read = {
        node.attr
        for tree in TREES
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and is_private(node.attr)
    }
    assert sorted(read - own_names() - LISTED) == []


def test_names_from_inner_modules_are_listed():
    listed = {(private.module, private.name.split(".")[0]) for private in PRIVATE_NAMES}
    imported = {
        (node.module, alias.name)
        for tree in TREES
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module and node.level == 0
        for alias in node.names
        if node.module.split(".")[0] in ROOTS and node.module not in {*ROOTS, *PUBLIC}
    }
    assert sorted(imported - listed) == []


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (adapters.BasisModel, BaseTuner),
        (UpdateModel, BaseTuner),
        (adapters.BasisLinear, BaseTunerLayer),
        (UpdateLinear, BaseTunerLayer),
        (adapters.BasisConfig, PeftConfig),
        (UpdateConfig, PeftConfig),
    ],
)
def test_private_methods_that_are_overridden_are_listed(ours, theirs):
    inherited = {name for name, _ in inspect.getmembers(theirs) if is_private(name)}
    assert sorted(set(vars(ours)) & inherited - LISTED - {"_abc_impl"}) == []
