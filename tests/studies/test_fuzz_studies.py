"""Study files at random: each is read, or refused by one message with place and reason."""

import random
import re
from pathlib import Path

import bad_studies
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from studies.engine.command.cli import BAD_INPUT, main
from studies.engine.definition.schema import load_study
from studies.engine.definition.study import Study
from studies.engine.errors import StudyError

FILE = f"{bad_studies.NAME}.yaml"
PROBLEM = re.compile(r"[^:\n]+:[1-9]\d*: \S[^\n]*")
"""file:line: reason"""
fuzz = settings(deadline=None, suppress_health_check=list(HealthCheck))


@pytest.fixture(autouse=True)
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def read(content: bytes) -> list[str]:
    """The problems of a study file; that nothing but the file was there afterwards is checked."""
    Path(FILE).write_bytes(content)
    try:
        assert isinstance(load_study(FILE), Study)
        problems = []
    except StudyError as error:
        problems = list(error.problems)
        assert problems
        for problem in problems:
            assert PROBLEM.fullmatch(problem), problem
            assert problem.isprintable()
    assert [path.name for path in Path.cwd().iterdir()] == [FILE]
    return problems


@pytest.mark.slow
@pytest.mark.parametrize("kind", sorted(bad_studies.KINDS))
@settings(fuzz, max_examples=20)
@given(seed=st.integers(0, 2**32))
def test_a_bad_study_is_refused_with_place_and_reason(kind: str, seed: int) -> None:
    assert read(bad_studies.KINDS[kind](random.Random(seed)))


@settings(fuzz, max_examples=40)
@given(
    text=st.sampled_from(bad_studies.TEXTS),
    cuts=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 40), st.text(max_size=6)), min_size=1,
                  max_size=4),
)  # fmt: skip
def test_a_mutated_study_is_read_or_refused(text: str, cuts: list) -> None:
    for where, length, new in cuts:
        at = int(where * len(text))
        text = text[:at] + new + text[at + length :]
    read(text.encode("utf-8", errors="surrogatepass"))


@settings(fuzz, max_examples=40)
@given(content=st.binary(max_size=200))
def test_bytes_are_refused(content: bytes) -> None:
    assert read(content)


@settings(fuzz, max_examples=25)
@given(seed=st.integers(0, 2**32))
def test_the_command_line_says_it_in_one_message_and_exits_with_2(
    capsys: pytest.CaptureFixture[str], seed: int
) -> None:
    kind, content = bad_studies.bad_study(random.Random(seed))
    Path(FILE).write_bytes(content)
    assert main([FILE, "--plan"]) == BAD_INPUT, kind
    out, err = capsys.readouterr()
    assert out == ""
    assert all(PROBLEM.fullmatch(line) for line in err.splitlines()), err
    assert [path.name for path in Path.cwd().iterdir()] == [FILE]


def test_what_is_left_out_of_no_sweep_is_refused() -> None:
    text = bad_studies.TEXTS[0].split("sweep:")[0]
    text += (
        "arms: [{name: lora, adapter: {method: lora}}]\nbaseline: lora\n"
        "objective: {metric: test/accuracy}\nexclude: [{adapter.r: 8}]\n"
    )
    (problem,) = read(text.encode())
    assert "leaves out no point of the sweep" in problem
