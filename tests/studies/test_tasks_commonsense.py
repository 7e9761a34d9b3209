"""The commonsense suite on hand-written rows in LLM-Adapters' format, and answers in words."""

import json
from pathlib import Path
from typing import Any

import pytest

from studies import backbones, tasks
from studies.engine.records import Trial
from studies.engine.trials.trial import run_trial
from studies.tasks.commonsense import PARTS
from studies.tasks.kinds.multiple_choice import extract

WORDS = {
    "boolq": ("true", "false"),
    "piqa": ("solution1", "solution2"),
    "social_i_qa": ("answer1", "answer2", "answer3"),
    "hellaswag": ("ending1", "ending2", "ending3", "ending4"),
    "winogrande": ("option1", "option2"),
    "ARC-Easy": ("answer1", "answer2", "answer3", "answer4"),
    "ARC-Challenge": ("answer1", "answer2", "answer3", "answer4"),
    "openbookqa": ("answer1", "answer2", "answer3", "answer4"),
}


def row(part: str, number: int, kind: str) -> dict[str, str]:
    answer = WORDS[part][number % len(WORDS[part])]
    return {
        "instruction": f"Please choose ({kind} {part} {number}).\n\n"
        f"Answer format: {'/'.join(WORDS[part])}",
        "input": "",
        "output": f"the correct answer is {answer}",
        "answer": answer,
    }


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An LLM-Adapters checkout in small: 80 rows to train on, 3 rows a test set."""
    train = [row(part, number, "train") for part in PARTS for number in range(10)]
    train += [row("boolq", 0, "test"), train[0]]  # a test row and a duplicate
    place = tmp_path / "ft-training_set"
    place.mkdir()
    (place / "commonsense_15k.json").write_text(json.dumps(train))
    for part in PARTS:
        (tmp_path / "dataset" / part).mkdir(parents=True)
        rows = [row(part, number, "test") for number in range(3)]
        (tmp_path / "dataset" / part / "test.json").write_text(json.dumps(rows))
    return tmp_path


def test_the_mixture_and_the_eight_sets_are_read_and_kept_apart(folder: Path) -> None:
    data = tasks.load({"name": "commonsense_15k", "data": str(folder)})
    assert tasks.describe(data)["rows"] == {"train": 72, "valid": 8, "test": 24}
    assert data.removed["in_test"] == 1 and data.removed["duplicate"] == 1
    assert len({item.part for item in data.splits["test"]}) == 8
    assert set(data.info.metrics) >= {"accuracy", "accuracy_arc_easy", "accuracy_boolq"}
    few = tasks.load({"name": "commonsense_15k", "data": str(folder), "test_rows": 2})
    assert len(few.splits["test"]) == 16


def test_prompts_are_those_of_the_two_scripts(folder: Path) -> None:
    (item, *_) = tasks.load({"name": "commonsense_15k", "data": str(folder)}).splits["test"]
    pad = " " * 16
    instruction = "Please choose (test boolq 0).\n\nAnswer format: true/false"
    begin = "Below is an instruction that describes a task. Write a response that appropriately "
    begin += "completes the request. "
    assert item.options == tuple(
        (
            f"{begin}\n\n{pad}### Instruction:\n{pad}{instruction}\n\n{pad}### Response:\n{pad}",
            f"the correct answer is {word}",
        )
        for word in ("true", "false")
    )
    assert item.lesson == (
        f"{begin} # noqa: E501\n\n{pad}### Instruction:\n{pad}{instruction}\n{pad}\n"
        f"{pad}### Response:\n{pad}",
        "the correct answer is true",
    )


def test_missing_files_say_where_to_get_them(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"boolq/test\.json is neither in .* set `task\.data`"):
        tasks.load({"name": "commonsense_170k", "data": str(tmp_path)})
    with pytest.raises(ValueError, match="`data` names no file, folder or hub data set"):
        tasks.load({"name": "commonsense_170k", "data": "./no-such-folder"})


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("instruction", "No format here", "row 1: task: this row does not end with 'Answer format"),
        ("output", None, "row 1: task: no text under 'output'"),
    ],
)
def test_a_bad_row_is_named(folder: Path, key: str, value: Any, message: str) -> None:
    file = folder / "dataset" / "piqa" / "test.json"
    file.write_text(json.dumps([{**row("piqa", 0, "test"), key: value}]))
    with pytest.raises(ValueError, match=message):
        tasks.load({"name": "commonsense_15k", "data": str(folder)})


@pytest.mark.parametrize(
    ("answer", "choices", "place"),
    [
        ("the correct answer is answer2", ["answer1", "answer2"], 1),
        ("Answer2, not answer1", ["answer1", "answer2"], 1),
        ("answer12", ["answer1", "answer2", "answer12"], 2),
        ("untrue", ["true", "false"], None),
        ("", ["true", "false"], None),
        ("true\n### Response:\nfalse", ["true", "false"], 1),
    ],
)
def test_the_first_choice_that_is_named_counts(
    answer: str, choices: list[str], place: int | None
) -> None:
    assert extract(answer, choices) == place


def test_generated_answers_do_not_depend_on_the_batch(tiny_llama: Path, folder: Path) -> None:
    spec = {"name": "commonsense_15k", "data": str(folder), "max_new_tokens": 6, "max_length": 400}
    data = tasks.load(spec)
    model, tokenizer = backbones.load(str(tiny_llama), tasks.head(spec, data))
    prepared = tasks.prepare(spec, data, tokenizer)
    items, device = data.splits["test"][::3], model.device
    one, many = (prepared.answers(model.eval(), items, size, device) for size in (1, 5))
    assert one == many and any(one)


@pytest.mark.parametrize("train_on_inputs", [True, False])
def test_a_trial_reports_both_ways_of_answering(
    tiny_llama: Path, folder: Path, tmp_path: Path, train_on_inputs: bool
) -> None:
    config = {
        "backbone": {"name": str(tiny_llama)},
        "task": {
            "name": "commonsense_15k",
            "data": str(folder),
            "test_rows": 1,
            "valid_rows": 4,
            "max_length": 400,
            "evaluate": "both",
            "max_new_tokens": 4,
            "train_on_inputs": train_on_inputs,
        },
        "adapter": {"method": "lora", "r": 2, "alpha": 4, "target_modules": ["q_proj", "v_proj"]},
        "train": {"batch_size": 8, "max_steps": 2, "eval_batch_size": 8},
        "split_seed": 0,
    }
    result = run_trial(
        Trial(study="s", profile="p", arm="a", seed=0, config=config), tmp_path / "run"
    )
    assert result.status == "done", result.failure
    names = [f"test/{name}" for name in tasks.check(config["task"]).metrics]
    assert set(names) <= set(result.metrics)
    assert result.metrics["test/unparsed"] == 1.0  # a random model names no choice
    parts = [v for n, v in result.metrics.items() if n.startswith("test/accuracy_")]
    assert len(parts) == 8 + 3
    own = [result.metrics[f"test/accuracy_{part.lower().replace('-', '_')}"] for part in PARTS]
    assert result.metrics["test/accuracy"] == pytest.approx(sum(own) / 8)
