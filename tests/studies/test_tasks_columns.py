"""Multiple choice and instructions out of a user's own files, and a model that learns from them."""

import json
from pathlib import Path
from typing import Any

import pytest

from studies import tasks
from studies.engine.records import Trial
from studies.engine.trials.trial import run_trial
from studies.tasks.rows import Exchange, Item

COLOURS = ("red", "blue", "green")


def records(count: int = 120) -> list[dict[str, Any]]:
    """The answer is the word that the question has in capitals."""
    rows = []
    for n in range(count):
        right = COLOURS[n % 3]
        words = [right.upper() if c == right else c for c in COLOURS]
        rows.append(
            {"question": f"{n} {' '.join(words)}", "label": right}
            | {f"choice{i}": c for i, c in enumerate(COLOURS)}
        )
    return rows


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return path


COLUMNS = {"template": "Q: {question}\nA:", "choices": ["choice0", "choice1", "choice2"]}


@pytest.mark.parametrize(
    "relabel",
    [
        lambda place: COLOURS[place],
        lambda place: "ABC"[place],
        lambda place: "abc"[place],
        lambda place: place,
        lambda place: str(place + 1),
    ],
    ids=["text", "letter", "small letter", "from 0", "from 1"],
)
def test_labels_are_texts_letters_or_numbers(relabel: Any, tmp_path: Path) -> None:
    rows = [{**row, "label": relabel(COLOURS.index(row["label"]))} for row in records()]
    data = tasks.load({"name": str(write(tmp_path / "rows.jsonl", rows)), **COLUMNS})
    for item in data.splits["train"]:
        assert isinstance(item, Item)
        context, answer = item.options[item.gold]
        assert context.startswith("Q: ") and context.endswith("\nA:")
        assert answer.strip().upper() in context


def test_choices_may_be_one_column_with_a_list(tmp_path: Path) -> None:
    rows = [{"q": r["question"], "c": list(COLOURS), "gold": r["label"]} for r in records()]
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    spec = {"name": str(tmp_path / "rows.json"), "template": "{q}", "choices": "c", "label": "gold"}
    assert tasks.check(spec).kind == "multiple_choice"
    assert len(tasks.load(spec).splits["test"]) == 24


def ask(path: Path, choices: Any, labels: list[Any], **keys: Any) -> list[Any]:
    """The right choices' texts, for questions that all have the same choices."""
    rows = [{"q": f"which {n}?", "c": choices, "gold": label} for n, label in enumerate(labels)]
    spec = {"name": str(write(path / "rows.jsonl", rows)), "template": "{q}", "choices": "c"}
    data = tasks.load({**spec, "label": "gold", **keys})
    items = {row.options[0][0]: row for rows in data.splits.values() for row in rows}
    return [items[f"which {n}?"].options[items[f"which {n}?"].gold][1] for n in range(len(labels))]


TEXTS = {"text": list(COLOURS), "label": ["A", "B", "C"]}


@pytest.mark.parametrize(
    ("choices", "labels"),
    [
        (TEXTS, list("ABCBA" * 6)),
        ({**TEXTS, "label": ["1", "2", "3"]}, list("12321" * 6)),
        ([{"text": t, "label": n} for t, n in zip(COLOURS, "xyz", strict=True)], list("xyzyx" * 6)),
        (list(COLOURS), ["red", "blue", "green", "blue", "red"] * 6),
        (list(COLOURS), [1, 2, 3, 2, 1] * 6),
        (list(COLOURS), [0.0, 1.0, 2.0, 1.0, 0.0] * 6),
    ],
)
def test_a_list_of_choices_and_arcs_form(choices: Any, labels: list[Any], tmp_path: Path) -> None:
    right = [" red", " blue", " green", " blue", " red"] * 6
    assert ask(tmp_path, choices, labels) == right


def test_where_numbers_start_must_be_told(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"from 0 or from 1: set `task.label_start` to 0 or 1"):
        ask(tmp_path, list(COLOURS), [1, 2] * 15)
    assert ask(tmp_path, list(COLOURS), [1, 2] * 15, label_start=0) == [" blue", " green"] * 15
    assert ask(tmp_path, list(COLOURS), [1, 2] * 15, label_start=1) == [" red", " blue"] * 15
    assert ask(tmp_path, [5, 1, 2], [1, 2] * 15) == [" 1", " 2"] * 15
    assert ask(tmp_path, [5, 1, 2], [1, 2] * 15, label_start=1) == [" 5", " 1"] * 15
    with pytest.raises(ValueError, match=r"task\.label_start: expected at most 1, got 2"):
        ask(tmp_path, list(COLOURS), [1, 2] * 15, label_start=2)


def test_labels_that_may_be_texts_or_numbers_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"row 1: label '0' may be the text .* or its number"):
        ask(tmp_path, [3, 1, 2, 0], [0, 1, 2] * 10)
    with pytest.raises(ValueError, match=r"label 'A' may be the text .* or its letter"):
        ask(tmp_path, ["B", "A", "C"], ["A", "C"] * 15)
    assert ask(tmp_path, [0, 1, 2], [0, 1, 2] * 10) == [" 0", " 1", " 2"] * 10  # all agree


@pytest.mark.parametrize("labels", ["text", "letter", "number"])
def test_the_wrong_row_is_named(labels: str, tmp_path: Path) -> None:
    given: list[Any] = {"text": list(COLOURS), "letter": list("ABC"), "number": [0, 1, 2]}[labels]
    given = given * 10
    given[16], given[25] = "gren", "purple"
    with pytest.raises(ValueError, match=r"row 17: label 'gren' is not one .*so it is in row 26"):
        ask(tmp_path, list(COLOURS), given)


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ("['red', 'blue']", r"holds a text that looks like a list: .*\.jsonl .*column of its own"),
        ("red", "holds a text: 'red'"),
        (["red"], "holds 1 of them"),
        ([], "holds 0 of them"),
        (["red", ""], "holds the choice ''"),
        (["red", None], "holds the choice None"),
        (["red", ["blue"]], r"holds the choice \['blue'\]"),
        (["red", True], "holds the choice True"),
        ({"a": 1, "b": 2}, r"holds \{'a': 1, 'b': 2}"),
        ({"text": ["red", "blue"], "label": ["A"]}, "holds 2 texts with 1 labels"),
        (7, "holds 7"),
    ],
)
def test_other_choices_are_refused(choices: Any, message: str, tmp_path: Path) -> None:
    rows = [{"q": f"which {n}?", "c": list(COLOURS), "gold": "red"} for n in range(30)]
    rows[11]["c"] = choices
    spec = {"name": str(write(tmp_path / "rows.jsonl", rows)), "template": "{q}", "choices": "c"}
    with pytest.raises(ValueError, match=f"row 12: column 'c' must hold a list .*{message}"):
        tasks.load({**spec, "label": "gold"})


def test_a_column_without_a_choice_lacks_a_value(tmp_path: Path) -> None:
    rows = records()
    rows[4]["choice1"] = " "
    spec = {"name": str(write(tmp_path / "rows.jsonl", rows)), **COLUMNS}
    with pytest.raises(ValueError, match="lacks a value for 'choice1' in row 5"):
        tasks.load(spec)
    assert tasks.load({**spec, "missing": "drop"}).removed["missing"] == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"template": "{choice0}", "label": "question"},
            "row 1: label '0 RED blue green' is not one of its 3 choices",
        ),
        ({"choices": ["choice0", "choice9"]}, "no column 'choice9'.*`task.choices`"),
        ({"template": "{questions}"}, "no column 'questions'.*Did you mean 'question'"),
        ({"template": None}, "`choices` needs a `template`"),
        ({"labels": ["red", "blue"]}, "`labels` is for text classification.*multiple choice"),
        ({"choices": None, "label_start": 1}, "`label_start` is for multiple choice.*instruction"),
        ({"scoring": "best"}, r"task\.scoring: expected one of sum, normalised, got 'best'"),
        (
            {"choices": ["choice0"]},
            r"task\.choices: expected one column or a list of two or more, got",
        ),
        ({"train_on_inputs": "yes"}, r"task\.train_on_inputs: expected true or false, got 'yes'"),
    ],
)
def test_bad_columns_are_named(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    spec = {"name": str(write(tmp_path / "rows.jsonl", records())), **COLUMNS, **changes}
    with pytest.raises(ValueError, match=message):
        tasks.load(spec)


def test_a_template_without_choices_is_an_instruction(tmp_path: Path) -> None:
    name = str(write(tmp_path / "rows.jsonl", records()))
    data = tasks.load({"name": name, "template": "Say it: {question}\n"})
    row = data.splits["train"][0]
    assert isinstance(row, Exchange) and row.prompt.startswith("Say it: ")
    assert data.info.metric == "loss" and data.info.direction == "minimize"


def trial(backbone: Path, task: dict[str, Any], **train: Any) -> Trial:
    config = {
        "backbone": {"name": str(backbone)},
        "task": task,
        "adapter": {"method": "full"},
        "train": {"batch_size": 16, "learning_rate": 3e-3, "epochs": 12, **train},
        "split_seed": 0,
    }
    return Trial(study="s", profile="p", arm="a", seed=0, config=config)


def test_a_model_learns_to_answer(tiny_llama: Path, tmp_path: Path) -> None:
    task = {"name": str(write(tmp_path / "rows.jsonl", records(300))), **COLUMNS}
    result = run_trial(trial(tiny_llama, task), tmp_path / "run")
    assert result.status == "done", result.failure
    assert result.metrics["test/accuracy"] > 0.6, result.metrics
    assert result.metrics["test/accuracy_normalised"] > 0.6
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").open()]
    losses = [line["train/loss"] for line in lines if "train/loss" in line]
    assert losses[-1] < 0.3 * losses[0]
    assert result.data["majority"]["test"] < 0.5


def test_a_model_learns_to_respond(tiny_llama: Path, tmp_path: Path) -> None:
    name = str(write(tmp_path / "rows.jsonl", records(300)))
    task = {"name": name, "template": "{question}\n"}
    result = run_trial(trial(tiny_llama, task, epochs=4), tmp_path / "run")
    assert result.status == "done", result.failure
    assert result.metrics["test/loss"] < 2.0 < 5.0 < result.metrics["test/perplexity"] + 4.0


def test_accumulated_batches_give_the_gradient_of_all_their_tokens(
    tiny_llama: Path, tmp_path: Path
) -> None:
    task = {"name": str(write(tmp_path / "rows.jsonl", records())), **COLUMNS, "train_rows": 32}
    losses = []
    for size, batches in ((32, 1), (8, 4)):
        settings = {"batch_size": size, "gradient_accumulation": batches, "max_steps": 4}
        result = run_trial(trial(tiny_llama, task, **settings), tmp_path / f"run{size}")
        assert result.status == "done", result.failure
        losses.append(result.metrics["valid/loss"])
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)


def test_the_documents_table_is_the_commands() -> None:
    from studies.tasks.__main__ import table

    document = Path(__file__).parents[2] / "docs" / "tasks.md"
    assert document.read_text(encoding="utf-8").endswith(table() + "\n"), (
        "docs/tasks.md is out of date: put the output of `python -m studies.tasks table` there"
    )


PAIRS: list[dict[str, Any]] = [
    {"q": f"question {n}", "text": f"context {n}", "label": "ab"[n % 2]} for n in range(40)
]


@pytest.mark.parametrize(
    ("keys", "rows"),
    [
        ({"template": "{text}: {q}"}, "prompt"),
        ({"text": ["q", "text"]}, "text"),
    ],
)
def test_an_empty_text_among_others_is_missing(
    keys: dict[str, Any], rows: str, tmp_path: Path
) -> None:
    for nothing in ("", " \u200b", None):
        given = [{**r, "text": nothing} if n in (4, 9) else r for n, r in enumerate(PAIRS)]
        spec = {"name": str(write(tmp_path / "rows.jsonl", given)), **keys}
        with pytest.raises(
            ValueError, match=r"'text' in rows 5, 10\..*drop.*`task\.missing: keep`"
        ):
            tasks.load(spec)
        assert tasks.load({**spec, "missing": "drop"}).removed["missing"] == 2
        kept = [r for s in tasks.load({**spec, "missing": "keep"}).splits.values() for r in s]
        assert len(kept) == 40 and {": question 4", "question 4"} & {getattr(r, rows) for r in kept}
        write(tmp_path / "rows.jsonl", [*given, {"q": "", "text": nothing, "label": "a"}])
        with pytest.raises(ValueError, match=r"'(q|text)' in row 41"):
            tasks.load({**spec, "missing": "keep"})


def test_rows_may_have_fewer_choices(tmp_path: Path) -> None:
    lines = ["q,a,b,c,d,gold"]
    lines += [f"which {n}?,red,blue,{'green' if n % 2 else ''},,{'AB'[n % 2]}" for n in range(40)]
    (tmp_path / "rows.csv").write_text("\n".join([*lines, "last?,1,2,3,4,D"]))
    spec = {"name": str(tmp_path / "rows.csv"), "template": "{q}", "label": "gold"}
    spec |= {"choices": ["a", "b", "c", "d"]}
    with pytest.raises(
        ValueError, match=r"'c' in rows 1, .*`task\.missing: keep` takes .* last ch"
    ):
        tasks.load(spec)
    data = tasks.load({**spec, "missing": "keep"})
    items = [item for rows in data.splits.values() for item in rows]
    assert len(items) == 41 and {len(item.options) for item in items} == {2, 3, 4}
    for line, lacks in (("x?,1,,3,,A", "b"), ("x?,1,,,,A", "b"), ("x?,1,2,,4,A", "c")):
        (tmp_path / "rows.csv").write_text("\n".join([*lines, line]))
        with pytest.raises(ValueError, match=f"'{lacks}' in row 41"):
            tasks.load({**spec, "missing": "keep"})
    (tmp_path / "rows.csv").write_text("\n".join([*lines, "x?,1,2,,,C"]))
    with pytest.raises(ValueError, match="row 41: label 'C' is not one of its 2 choices"):
        tasks.load({**spec, "missing": "keep"})


@pytest.mark.parametrize(
    "keys",
    [
        {"text": "label"},
        {"text": ["q", "label"]},
        {"template": "{q} {label}"},
        {"template": "{q} {label}", "choices": ["text", "q"]},
    ],
)
def test_an_answer_among_the_inputs_is_refused(keys: dict[str, Any], tmp_path: Path) -> None:
    name = str(write(tmp_path / "rows.jsonl", PAIRS))
    with pytest.raises(ValueError, match=r"'label' is `label`, the answer.* by `(text|template)`"):
        tasks.check({"name": name, **keys})
    with pytest.raises(ValueError, match=r"`template` names no column in braces, got 'Say\.'"):
        tasks.check({"name": name, "template": "Say."})


@pytest.mark.parametrize(
    ("template", "prompt"),
    [
        ('{{"q": "{q}"}}', '{"q": "question 0"}'),
        ("{{q}} {{{q}}}", "{q} {question 0}"),
        ('{"q": {"r": "{q}"}}', '{"q": {"r": "question 0"}}'),
        ("{q}}", "question 0}"),
    ],
)
def test_braces_of_a_template(template: str, prompt: str, tmp_path: Path) -> None:
    data = tasks.load({"name": str(write(tmp_path / "rows.jsonl", PAIRS)), "template": template})
    assert prompt in {row.prompt for rows in data.splits.values() for row in rows}
