"""The questions that a study asks the rooms that know: adapters, backbones, tasks.

torch and peft are imported here, on the first question that no command before this one was
answered (see `answers`), so that `--plan` and a refusal are quick.
"""

import sys
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypedDict

from basis_zoo.registry import no_option, unknown
from studies import backbones, tasks
from studies.backbones.head import HeadKind
from studies.engine.definition import answers

OWN = ". One of your own: `plugins: [FILE.py]` or --plugin FILE"


class Words(TypedDict):
    """The names that an adapter section may use, and what methods, families and forms are."""

    names: dict[str, list[str]]
    """All that are registered, by what they are of: method, form, basis, grid, start, penalty."""
    common: Sequence[str]
    monitored: Sequence[str]
    methods: dict[str, dict[str, Any]]
    """By method: `options`, `ignored`, whether it is `pruned`, `changed` and `phi` as in `Traits`,
    and the basis `family` that it fixes."""
    plain: list[str]
    """Families without bandwidths."""
    unmergeable: list[str]
    """Forms that change no weight."""


class Traits(NamedTuple):
    """What an adapter does to a model."""

    pruned: bool = False
    """It adds a matrix to the weight, so that PARA can follow."""
    phi: bool = False
    """Its update is s phi(BA), phi trained or fixed."""
    bandwidths: bool = False
    """Its phi has bandwidths."""
    changed: bool = False
    """It changes matrices of the model, so that the change has a rank."""

    @property
    def needs_weights(self) -> bool:
        """Whether the update is known only by what the weights were and have become."""
        return self.changed and not self.pruned


def words() -> Words:
    """The names that an adapter section may use, so that most mistakes are found without torch."""
    return _read_words(_registered() if "adapters" in sys.modules else None)


def _registered() -> dict[str, list[str]]:
    """All names that there are by now: families and methods of one's own may come at any time."""
    import adapters
    import basis_zoo
    from adapters.training.penalties import list_penalties

    return {
        "method": adapters.list_methods(),
        "form": adapters.list_forms(),
        "basis": basis_zoo.list_bases(),
        "grid": basis_zoo.list_grids(),
        "start": basis_zoo.list_starts(),
        "penalty": list_penalties(),
    }


@answers.once
def _read_words(registered: dict[str, list[str]] | None) -> Words:
    import adapters

    names = registered or _registered()
    return {
        "names": names,
        "common": adapters.COMMON_OPTIONS,
        "monitored": adapters.MONITORED,
        "methods": {
            method.name: {
                "options": method.options(),
                "ignored": sorted(method.ignored),
                "pruned": method.convertible,
                "changed": method.changes_weights,
                "phi": method.config is not None
                and issubclass(method.config, adapters.BasisConfig),
                "family": method.fixed.get("basis"),
            }
            for method in map(adapters.get_method, names["method"])
        },
        "plain": [name for name in names["basis"] if not _has_bandwidths(name)],
        "unmergeable": [
            name for name in names["form"] if not adapters.get_form_class(name).mergeable
        ],
    }


def _has_bandwidths(family: str) -> bool:
    import basis_zoo

    try:
        return basis_zoo.get_basis(family, num_basis=8).num_bandwidths > 0
    except ValueError:  # of one's own, which wants other options
        return True


def _about(method: Any) -> dict[str, Any] | None:
    """What `Words` says of `method`; None where that is none, whatever a file may say."""
    return words()["methods"].get(method) if isinstance(method, str) else None


def options_of(method: Any) -> Sequence[str]:
    """The options that `method` takes; none of an unknown one."""
    known = _about(method)
    return () if known is None else ("dropout", *known["options"], *known["ignored"])


def traits(adapter: Mapping[str, Any]) -> Traits:
    """What `adapter` does to a model; nothing where its method is unknown."""
    known = words()
    if (method := _about(adapter.get("method"))) is None:
        return Traits()
    changed = method["changed"] and adapter.get("form") not in known["unmergeable"]
    family = method["family"] or adapter.get("basis", "sinc")
    bandwidths = method["phi"] and family not in known["plain"]
    return Traits(changed and method["pruned"], method["phi"], bandwidths, changed)


def check_adapter_names(adapter: Mapping[str, Any]) -> None:
    """Raises `ValueError` where no method, option, family, grid or start is called as it says."""
    known, method = words(), adapter.get("method")
    if (about := _about(method)) is None:
        raise ValueError(unknown("method", method, known["methods"]) + OWN)
    for option in adapter:
        if option not in ("method", *options_of(method)):
            raise ValueError(no_option(f"method {method!r}", option, about["options"]))
    for option in ("basis", "grid", "start", "form"):
        kind = "basis family" if option == "basis" else option
        name, names = adapter.get(option), known["names"][option]
        if about["phi"] and isinstance(name, str) and name not in names:
            raise ValueError(unknown(kind, name, names) + OWN)


def monitored(adapter: Mapping[str, Any]) -> Sequence[str]:
    """What a trial reports of its phi beside the task's metrics, by name."""
    own = traits(adapter)
    names = words()["monitored"] if own.phi else ()
    return [name for name in names if own.changed or "update/" not in name]


def _config_of(adapter: dict[str, Any]) -> Any:
    """The PEFT configuration that the method makes of `adapter`; None where it cannot."""
    import adapters

    options = {option: value for option, value in adapter.items() if option != "method"}
    try:
        return adapters.get_method(adapter["method"]).build(options)
    except ValueError:
        return None


@answers.once
def lacks(adapter: dict[str, Any], need: str) -> str | None:
    """What the adapter has not that `need`, or the penalty of that name, asks for, and what to do;
    None where it has it, and where it cannot be built, which is said elsewhere."""
    from adapters.training import needs, penalties

    if (config := _config_of(adapter)) is None:
        return None
    penalty = need in penalties.list_penalties()
    return needs.lacks(config, penalties.get_penalty(need).need if penalty else need)


@answers.once
def phi_refusal(adapter: dict[str, Any], folder: str, content: str | None) -> str | None:
    """Why the adapter cannot begin with the phi saved in `folder`; None where it can, and where it
    cannot be built, which is said elsewhere. `content` is the folder's, which decides the answer.
    """
    import adapters
    from adapters.training.needs import lacks
    from adapters.training.transfer import mismatch

    if (config := _config_of(adapter)) is None:
        return None
    if not isinstance(config, adapters.BasisConfig):
        return lacks(config, "update")
    start = config.phi.build_start()
    if not (start.anchored and start.zero_b):
        return (
            f"the start {config.start!r}, with which a loaded phi changes the model before the "
            "first step: set start to random, whose B is 0"
        )
    try:
        return mismatch(config, folder)
    except (ValueError, TypeError) as error:
        return f"no phi to load: {error}"


@answers.once
def check_adapter_options(adapter: dict[str, Any]) -> None:
    """Raises `ValueError` where a word or a number of `adapter` is wrong; nothing is fitted."""
    import adapters
    import basis_zoo

    # a start that is right is taken out, unless a form wants it: it is what takes long
    fitted = adapter.get("start") is not None and "form" not in adapter
    if adapter.get("method") == "basis" and fitted:
        options = adapter.get("start_options") or {}
        if isinstance(options, dict):
            basis_zoo.get_start(adapter["start"], **options)
            del adapter["start"]
            adapter.pop("start_options", None)
    adapters.check_options(adapter)


@answers.once
def check_adapter(adapter: dict[str, Any]) -> None:
    """Raises `ValueError` where `adapter` cannot be built, or its basis fails its conformance.

    Starts are fitted, which takes up to a second for hundreds of functions: each adapter once.
    """
    import adapters

    adapters.check_options(adapter)
    if adapter["method"] == "basis":
        _check_conformance(adapter.get("basis", "sinc"), adapter.get("basis_options") or {})
        _check_form(adapter.get("form", "elementwise"), adapter.get("form_options") or {})


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


def _check_form(form: str, options: Mapping[str, Any]) -> None:
    """Hold a plug-in's form to the contract, as `_check_conformance` does a family."""
    import adapters
    from adapters.form_conformance import run_checks

    if adapters.get_form_class(form).__module__.startswith("adapters.forms.builtin."):
        return
    failed = [o for o in run_checks(form, form_options=dict(options)) if not o.passed]
    if failed:
        details = "; ".join(f"{o.check}: {o.detail}" for o in failed[:3])
        raise ValueError(
            f"form {form!r} fails {len(failed)} of its checks: {details}. See all of them with: "
            "python -m adapters check, and the form's file"
        )


def check_fit(task: dict[str, Any], backbone: dict[str, Any]) -> bool:
    """True; raises `ValueError` where `backbone` is known and has not what `task` needs."""
    kind = _head_kind(task)
    backbones.check_fit(backbone, kind)
    if kind != "image_classes":
        backbones.check_length(backbone, tasks.parse(task).max_length)
    return True


def is_at_hand(backbone: dict[str, Any]) -> bool:
    """Whether the backbone's configuration is on this machine, so that arms can be held to it."""
    is_matrix = backbones.check(backbone).kind == "matrix"
    return is_matrix or backbones.config_file(backbone) is not None


def check_modules(backbone: dict[str, Any], task: dict[str, Any], adapter: dict[str, Any]) -> None:
    """Raises `ValueError` where `adapter` names modules that a backbone at hand does not have."""
    if backbones.check(backbone).kind == "matrix":
        shape = tasks.head(task, tasks.load(task)).shape
        assert shape is not None, "`check_fit` refuses every other task"
        _check_on_matrix(backbone, shape, adapter)
    elif file := backbones.config_file(backbone):
        content = file.read_text(encoding="utf-8")
        _check_modules(str(file), content, _head_kind(task), adapter)


@answers.once
def _check_on_matrix(
    backbone: dict[str, Any], shape: tuple[int, int], adapter: dict[str, Any]
) -> None:
    """As `check_modules`; raises also where the method cannot learn to change the one layer."""
    import torch

    import adapters

    if not traits(adapter).changed:
        raise ValueError(
            f"method {adapter['method']!r} changes no weight, and the task is a matrix"
        )
    head = backbones.Head("matrix", shape=shape)
    with torch.random.fork_rng(devices=()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(0)
        adapted = adapters.attach(backbones.load(backbone, head)[0], adapter)
        update = adapted(inputs=torch.eye(shape[1])).logits
        (update * torch.randn_like(update)).sum().backward()
    if not any(p.grad is not None and p.grad.any() for p in adapted.parameters()):
        raise ValueError(
            f"method {adapter['method']!r} has no gradient where it starts: it makes its update of "
            f"W, which is 0 in {backbone['name']}: set `backbone: random_matrix`"
        )


def _head_kind(task: dict[str, Any]) -> HeadKind:
    return tasks.HEADS[tasks.check(task).kind]


@answers.once
def _check_modules(file: str, content: str, kind: HeadKind, adapter: dict[str, Any]) -> None:
    """`content` is the file's, which decides the answer."""
    import adapters

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of transformers to the authors of models
        model = backbones.skeleton(Path(file), kind)
        if model is not None:
            adapters.attach(model, adapter)


def check_task(task: dict[str, Any]) -> Mapping[str, str]:
    """The metrics that `task` reports and which way is better, e.g. {"accuracy": "maximize"}.

    Raises `ValueError` where the task cannot be loaded.
    """
    return tasks.check(task).metrics


def training_rows(task: dict[str, Any]) -> int | None:
    """Rows that `task` trains on; None where that is known only once they are read."""
    return 1 if tasks.check(task).kind == "matrix" else task.get("train_rows")
