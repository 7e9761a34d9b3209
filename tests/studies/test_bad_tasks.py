"""Studies of several tasks that are refused before anything is trained, each by name."""

from pathlib import Path

import pytest
from several import MIXED, STUDY

from studies.engine.definition.schema import load_study
from studies.engine.errors import StudyError

CLAIM = "claims: [{{claim: c, arm: low, than: lora, expect: higher, {}}}]\n"

BAD = {
    "metrics are mixed unsaid": (
        MIXED.replace(", mixed: true", ""),
        "mean over tasks would be one of different metrics (test/accuracy of glue_rte, "
        "test/matthews of glue_cola): say so by objective.mixed: true",
    ),
    "a metric that a task lacks": (
        STUDY.replace("- sarcasm", "- glue_stsb"),
        "the task 'glue_stsb' reports no 'test/accuracy'.",
    ),
    "its own metric is misspelt": (
        MIXED.replace("test/matthews", "test/mathews"),
        "tasks[1].metric: the task 'glue_cola' reports no 'test/mathews'. Did you mean "
        "'test/matthews'",
    ),
    "another direction": (
        MIXED.replace("test/matthews", "test/loss"),
        "'test/loss' is to minimize, got maximize: all tasks of a study have one direction",
    ),
    "chosen on test": (
        MIXED.replace("valid/matthews", "test/matthews"),
        "choices are made on validation, never on test: valid/matthews",
    ),
    "one task": (
        STUDY.replace("  - sarcasm\n", "").replace("  - {name: vitaminc", "#"),
        "expected two or more, got one: write task: short",
    ),
    "a task twice": (
        STUDY.replace("- sarcasm", "- vitaminc"),
        "each name once, got vitaminc repeatedly",
    ),
    "the same data and settings": (
        STUDY.replace("- sarcasm", "- movie_sentences").replace(", task.train_rows: 100", ""),
        "'lora' on 'movie_sentences' and 'lora' on 'short' are the same point",
    ),
    "a task beside them": (STUDY + "task: sarcasm\n", "task: 'sarcasm' is beside `tasks`"),
    "an unknown task": (STUDY.replace("- sarcasm", "- sarcasms"), "Did you mean 'sarcasm'"),
    "an unknown key": (STUDY.replace("{name: short,", "{name: short, rows: 3,"), "tasks[2].rows"),
    "an unknown setting": (
        STUDY.replace("train.epochs: 3", "train.epoch: 3"),
        "tasks[1].set.train.epoch: unknown setting. Did you mean 'epochs'",
    ),
    "a bad value": (STUDY.replace("train.epochs: 3", "train.epochs: -1"), "s.yaml:5: train.epochs"),
    "an arm sets what a task sets": (
        STUDY.replace("{adapter.r: 2}", "{train.epochs: 2}"),
        "arms[1].set.train.epochs: the task 'vitaminc' sets train.epochs itself",
    ),
    "an arm has a task": (
        STUDY.replace("{adapter.r: 2}", "{task: qasc}"),
        "the task 'sarcasm' sets task.name itself",
    ),
    "tuned and set": (
        STUDY + "tune: {train.epochs: [1, 2], seeds: [100]}\n",
        "tune.train.epochs: the task 'vitaminc' sets it itself",
    ),
    "a search": (
        STUDY + "search: {arm: low, trials: 2, seed: 100, space: {adapter.r: [2, 4]}, "
        "objectives: [{metric: valid/accuracy}]}\n",
        "search: a search is about one task: search with `task: NAME`",
    ),
    "a claim on no task": (
        STUDY + CLAIM.format("task: shirt"),
        "claims[0].task: no task is called 'shirt'. Did you mean 'short'",
    ),
    "a metric that only one task has": (
        MIXED + CLAIM.format("metric: test/matthews"),
        "on the task 'glue_rte' the arm 'lora' reports no 'test/matthews'",
    ),
    "a task of one": (
        STUDY[: STUDY.index("tasks")] + STUDY[STUDY.index("arms") :]
        + CLAIM.format("task: sarcasm"),
        "claims[0].task: the study has one task alone: leave it out",
    ),
    "parts of several": (
        STUDY.replace("metric: test/accuracy", "metric: test/accuracy, parts: [test/loss]"),
        "objective.parts: are of one task: remove them or `tasks`",
    ),
    "a table of one setting": (
        STUDY + "published: {table: table_12_base_rank, x: adapter.r}\n",
        "published.table: table_12_base_rank is of one task",
    ),
    "a table without its part": (
        STUDY + "published: {table: table_2_glue}\n",
        "table_2_glue has a part for each model: say which, got None. Parts: RoBERTa-base",
    ),
    "no table of tasks": (
        STUDY + "published: {table: table_2_glu, part: RoBERTa-base}\n",
        "no published table of tasks is called 'table_2_glu'. Did you mean 'table_2_glue'",
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", BAD)
def test_it_is_refused(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text, message = BAD[kind]
    monkeypatch.chdir(tmp_path)
    Path("s.yaml").write_text(text)
    with pytest.raises(StudyError) as caught:
        load_study("s.yaml")
    assert message in str(caught.value)
    assert str(caught.value).startswith("s.yaml:")
