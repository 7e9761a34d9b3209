"""The questions that a study asks the rooms that know: adapters, backbones, tasks.

torch and peft are imported here, on the first question, so that a file that is not even YAML is
refused at once.
"""

import functools
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any


def _once(check: Callable[[dict[str, Any]], None]) -> Callable[[Mapping[str, Any]], None]:
    """`check`, made once for each adapter: a study asks of each arm several times."""
    known = functools.cache(lambda canonical: check(json.loads(canonical)))

    @functools.wraps(check)
    def asked(adapter: Mapping[str, Any]) -> None:
        known(json.dumps(adapter, sort_keys=True, default=repr))

    return asked


def common_options() -> Sequence[str]:
    """Adapter options that every method understands."""
    import adapters

    return adapters.COMMON_OPTIONS


@_once
def check_adapter_options(adapter: dict[str, Any]) -> None:
    """Raises `ValueError` where a word or a number of `adapter` is wrong; nothing is fitted."""
    import adapters

    if adapter.get("method") == "basis":
        _check_names(adapter)
    adapters.check_options(adapter)


def _check_names(adapter: dict[str, Any]) -> None:
    """Ask for the family and the start by name; a start that is right is taken out."""
    import basis_zoo
    from basis_zoo.basis import get_basis_class

    if isinstance(name := adapter.get("basis"), str):
        try:
            get_basis_class(name)
        except ValueError as error:
            raise ValueError(f"{error}. One of your own: --plugin FILE") from error
    start, options = adapter.get("start"), adapter.get("start_options") or {}
    if start is not None and isinstance(options, dict):
        basis_zoo.get_start(start, **options)
        del adapter["start"]
        adapter.pop("start_options", None)


@_once
def check_adapter(adapter: dict[str, Any]) -> None:
    """Raises `ValueError` where `adapter` cannot be built, or its basis fails its conformance.

    Starts are fitted, which takes up to a second for hundreds of functions: each adapter once.
    """
    import adapters

    adapters.check_options(adapter)
    if adapter["method"] == "basis":
        _check_conformance(adapter.get("basis", "sinc"), adapter.get("basis_options") or {})


def _check_conformance(family: str, options: Mapping[str, Any]) -> None:
    """Hold a plug-in's family to the contract; the shipped ones are held to it by the tests."""
    from basis_zoo import conformance
    from basis_zoo.basis import get_basis_class

    if get_basis_class(family).__module__.startswith("basis_zoo.families."):
        return
    try:
        conformance.assert_conforms(family, **options)
    except conformance.ConformanceError as error:
        raise ValueError(str(error)) from error


def check_backbone(backbone: dict[str, Any]) -> None:
    """Raises `ValueError` where `backbone` cannot be loaded."""
    from studies import backbones

    backbones.check(backbone)


def check_fit(task: dict[str, Any], backbone: dict[str, Any]) -> None:
    """Raises `ValueError` where `backbone` is known and has not what `task` needs."""
    from studies import backbones, tasks

    backbones.check_fit(backbone, tasks.HEADS[tasks.check(task).kind])


def check_task(task: dict[str, Any]) -> Mapping[str, str]:
    """The metrics that `task` reports and which way is better, e.g. {"accuracy": "maximize"}.

    Raises `ValueError` where the task cannot be loaded.
    """
    from studies import tasks

    return tasks.check(task).metrics


def can_be_pruned(adapter: Mapping[str, Any]) -> bool:
    """Whether the method adds a matrix to the weight, so that PARA can follow."""
    import adapters

    return bool(adapters.get_method(adapter["method"]).convertible)


def changes_weights(adapter: Mapping[str, Any]) -> bool:
    """Whether the method changes matrices of the model, so that the change has a rank."""
    import adapters

    return bool(adapters.get_method(adapter["method"]).changes_weights)


def needs_weights(adapter: Mapping[str, Any]) -> bool:
    """Whether the update is known only by what the weights were and have become."""
    return changes_weights(adapter) and not can_be_pruned(adapter)


def has_phi(adapter: Mapping[str, Any]) -> bool:
    """Whether the method's update is s phi(BA), phi trained or fixed."""
    import adapters

    config = adapters.get_method(adapter["method"]).config
    return config is not None and issubclass(config, adapters.BasisConfig)
