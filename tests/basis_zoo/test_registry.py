"""The one registry, of values and of classes, and its hint at the name that was meant."""

import subprocess
import sys
from dataclasses import dataclass

import pytest

from basis_zoo.registry import ClassRegistry, Registry, did_you_mean


@pytest.fixture
def words() -> Registry[str]:
    registry: Registry[str] = Registry("word", str, origin=str.upper)
    registry.add("hello", "hallo")
    return registry


def test_a_value_is_found_by_its_name(words: Registry[str]) -> None:
    assert words.find("hello") == "hallo" and "hello" in words and words.names() == ["hello"]


@pytest.mark.parametrize(
    ("name", "member", "error", "message"),
    [
        ("hello", "hallo", ValueError, "word 'hello' is already registered as HALLO; give HALLO"),
        ("My Word", "x", ValueError, "the name of a word is a lower-case word, got 'My Word'"),
        ("other", 5, TypeError, "word 'other' must be a str, got 5"),
    ],
)
def test_what_is_not_added(
    words: Registry[str], name: str, member: str, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        words.add(name, member)
    assert words.names() == ["hello"]


def test_an_unknown_name_is_answered_with_the_nearest(words: Registry[str]) -> None:
    with pytest.raises(ValueError, match=r"unknown word 'HELO'\. Did you mean 'hello'\? Regis"):
        words.find("HELO")


@pytest.mark.parametrize(
    ("name", "known", "hint"),
    [
        ("lroa", ["lora", "full"], " Did you mean 'lora'?"),
        ("LORA", ["lora"], " Did you mean 'lora'?"),
        ("Qwen/qwen2", ["Qwen/Qwen2"], " Did you mean 'Qwen/Qwen2'?"),
        ("sink", ["sine", "sinc", "sinter"], " Did you mean 'sine' or 'sinc'?"),
        ("arm1", ["arm2", "arm3", "arm4", "arm5"], " Did you mean 'arm2' or 'arm3' or 'arm4'?"),
        (5, ["lora"], ""),
        ("something", [], ""),
    ],
)
def test_the_hint_looks_past_case(name: object, known: list[str], hint: str) -> None:
    assert did_you_mean(name, known) == hint


def test_a_class_may_come_again_from_its_own_file_only() -> None:
    registry: ClassRegistry[object] = ClassRegistry("thing", object)

    def made() -> type:
        @registry.register("thing")
        @dataclass(frozen=True)
        class Thing:
            size: int = 1

        return Thing

    made()
    again = made()
    assert type(registry.get("thing", size=2)) is again
    with pytest.raises(ValueError, match=r"has no option 'sise'\. Did you mean 'size'"):
        registry.get("thing", sise=2)


@pytest.mark.slow
def test_the_registry_is_light_and_families_are_known_on_first_use() -> None:
    code = (
        "import sys, basis_zoo; from basis_zoo.registry import Registry;"
        "assert 'torch' not in sys.modules and 'Phi' in dir(basis_zoo);"
        "from basis_zoo.basis import get_basis_class; get_basis_class('sinc');"
        "assert basis_zoo.families and basis_zoo.get_grid('uniform') and basis_zoo.Nonlinearity"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    with pytest.raises(AttributeError, match="no attribute 'Fhi'"):
        __import__("basis_zoo").Fhi  # noqa: B018
