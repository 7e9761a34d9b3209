"""The questions that a study asks the rooms that know: adapters, backbones, tasks.

torch and peft are imported here, on the first question, so that a file that is not even YAML is
refused at once.
"""

import functools
import importlib
import json
from collections.abc import Mapping, Sequence
from typing import Any


def common_options() -> Sequence[str]:
    """Adapter options that every method understands."""
    return importlib.import_module("adapters").COMMON_OPTIONS


def check_adapter_options(adapter: dict[str, Any]) -> None:
    """Raises `ValueError` where a word or a number of `adapter` is wrong; nothing is fitted."""
    _check_options(_canonical(adapter))


@functools.cache
def _check_options(canonical: str) -> None:
    adapter = json.loads(canonical)
    if adapter.get("method") == "basis" and isinstance(adapter.get("basis"), str):
        _check_family(adapter["basis"])
    start, options = adapter.get("start"), adapter.get("start_options") or {}
    if adapter.get("method") == "basis" and start is not None and isinstance(options, dict):
        importlib.import_module("basis_zoo").get_start(start, **options)
        adapter = {k: v for k, v in adapter.items() if k not in ("start", "start_options")}
    importlib.import_module("adapters").check_options(adapter)


def _check_family(name: str) -> None:
    try:
        importlib.import_module("basis_zoo.basis").get_basis_class(name)
    except ValueError as error:
        raise ValueError(f"{error}. One of your own: --plugin FILE") from error


def check_adapter(adapter: dict[str, Any]) -> None:
    """Raises `ValueError` where `adapter` cannot be built, or its basis fails its conformance.

    Starts are fitted, which takes up to a second for hundreds of functions: each adapter once.
    """
    _build(_canonical(adapter))


def _canonical(adapter: dict[str, Any]) -> str:
    """`adapter` as a key: a study asks of each arm several times."""
    return json.dumps(adapter, sort_keys=True, default=repr)


@functools.cache
def _build(canonical: str) -> None:
    adapter = json.loads(canonical)
    importlib.import_module("adapters").check_options(adapter)
    if adapter["method"] == "basis":
        _check_conformance(adapter.get("basis", "sinc"), adapter.get("basis_options") or {})


def _check_conformance(family: str, options: Mapping[str, Any]) -> None:
    """Hold a plug-in's family to the contract; the shipped ones are held to it by the tests."""
    conformance = importlib.import_module("basis_zoo.conformance")
    module = importlib.import_module("basis_zoo.basis").get_basis_class(family).__module__
    if module.startswith("basis_zoo.families."):
        return
    try:
        conformance.assert_conforms(family, **options)
    except conformance.ConformanceError as error:
        raise ValueError(str(error)) from error


def check_backbone(backbone: dict[str, Any]) -> None:
    """Raises `ValueError` where `backbone` cannot be loaded."""
    importlib.import_module("studies.backbones").check(backbone)


def check_task(task: dict[str, Any]) -> Mapping[str, str]:
    """The metrics that `task` reports and which way is better, e.g. {"accuracy": "maximize"}.

    Raises `ValueError` where the task cannot be loaded.
    """
    return importlib.import_module("studies.tasks").check(task).metrics


def can_be_pruned(adapter: Mapping[str, Any]) -> bool:
    """Whether the method adds a matrix to the weight, so that PARA can follow."""
    return bool(importlib.import_module("adapters").get_method(adapter["method"]).convertible)


def has_phi(adapter: Mapping[str, Any]) -> bool:
    """Whether the method's update is s phi(BA), phi trained or fixed."""
    adapters = importlib.import_module("adapters")
    config = adapters.get_method(adapter["method"]).config
    return config is not None and issubclass(config, adapters.BasisConfig)
