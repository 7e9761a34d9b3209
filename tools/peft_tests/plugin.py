"""A plugin of pytest: chooses LoRA's rows of PEFT's tests, puts our method there, records."""

import contextlib
import inspect
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import peft
import pytest

from tools.peft_tests.rules import exclusion_reason
from tools.peft_tests.substitute import LORA, LoraConfig, substitute_names


class Rows:
    """Runs LoRA's rows and records them.

    Args:
        method: `lora` for PEFT as it is, `basis` for our method in LoRA's place.
        results: Rows by method, each {outcome, reason}; added to.
        file: Where they are written as they come.
        again: Run rows that `results` holds already, too.
    """

    def __init__(self, method: str, results: dict[str, Any], file: Path, again: bool) -> None:
        self.config = LORA if method == "lora" else LoraConfig
        self.results, self.file = results, file
        self.rows: dict[str, Any] = results.setdefault(method, {})
        self.settled = set() if again else set(self.rows)
        vars(peft)["LoraConfig"] = self.config  # before the tests are imported

    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[Any]) -> None:
        """Keep LoRA's rows that are not known yet."""
        for namespace in [vars(m) for name, m in sys.modules.items() if name.startswith("tests.")]:
            if "hub_online_once" in namespace:  # it allows the network
                namespace["hub_online_once"] = lambda _: contextlib.nullcontext()
            if self.config is LoraConfig:
                substitute_names(namespace)
        chosen = [item for item in items if self._is_wanted(item)]
        config.hook.pytest_deselected(items=[item for item in items if item not in set(chosen)])
        items[:] = chosen

    def _is_wanted(self, item: Any) -> bool:
        """Whether a parameter is LoRA's configuration, or there is none and the code names it."""
        if item.nodeid in self.settled or exclusion_reason(item.nodeid):
            return False
        if configs := list(_configs(_parameter_values(item))):
            return any(c is self.config or type(c) is self.config for c in configs)
        return any(re.search(r"\bLoraConfig\b", inspect.getsource(code)) for code in _code(item))

    def pytest_runtest_setup(self, item: Any) -> None:
        """Refuse, in its own row, a configuration that could not be made at collection."""
        for refused in (
            getattr(config, "refused", "") for config in _configs(_parameter_values(item))
        ):
            if refused:
                (pytest.skip if "LoRA's own" in refused else pytest.fail)(refused)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Record a row."""
        if report.when == "call" or not report.passed:
            self.rows[report.nodeid] = {"outcome": report.outcome, "reason": reason(report)}
            if len(self.rows) % 50 == 0:
                self.pytest_sessionfinish()

    def pytest_sessionfinish(self) -> None:
        """Write the results."""
        self.file.write_text(json.dumps(self.results, indent=1), encoding="utf-8")


def reason(report: pytest.TestReport) -> str:
    """One line: the error, and where it was raised."""
    if report.passed:
        return ""
    if isinstance(report.longrepr, tuple):  # skipped
        return report.longrepr[2]
    crash = getattr(report.longrepr, "reprcrash", None)
    message = " ".join((crash.message if crash else str(report.longrepr)).split())
    message = message if len(message) < 400 else f"{message[:200]} ... {message[-200:]}"
    return f"{message} ({Path(crash.path).name}:{crash.lineno})" if crash else message


def _parameter_values(item: Any) -> list[Any]:
    """The values of the row's parameters."""
    return list(item.callspec.params.values()) if hasattr(item, "callspec") else []


def _configs(values: list[Any] | tuple[Any, ...]) -> Iterator[Any]:
    for value in values:
        if isinstance(value, list | tuple):
            yield from _configs(value)
        elif issubclass(value if inspect.isclass(value) else type(value), peft.PeftConfig):
            yield value


def _code(item: Any) -> Iterator[Any]:
    """The test, the fixtures of its file, and the methods of its class that it calls."""
    yield item.function
    for fixtures in item._fixtureinfo.name2fixturedefs.values():
        if (function := inspect.unwrap(fixtures[-1].func)).__module__ == item.module.__name__:
            yield function
    for name in re.findall(r"self\.(\w+)\(", inspect.getsource(item.function)):
        if inspect.isfunction(method := getattr(item.cls, name, None)):
            yield method
