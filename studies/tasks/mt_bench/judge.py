"""Grades of answers by a judging model: estimated first, resumable, unreadable grades counted."""

import re
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from studies.tasks.mt_bench.endpoint import Endpoint
from studies.tasks.mt_bench.files import Question, append, read_done

MAX_TOKENS = 512
"""Room for the judge's explanation and grade."""
CHARACTERS_PER_TOKEN = 4.0
"""Of English text, for the estimate alone."""
_GRADE = re.compile(r"\[\[(\d+(?:\.\d+)?)\]\]")
_TASK = (
    "Grade the last answer of the assistant in the conversation below. Consider whether it is "
    "helpful, relevant, correct, deep, creative where that is asked for, and detailed enough. "
    "Explain in a few sentences, then end with a grade from 1 to 10 in exactly this form: "
    "[[grade]], for example: [[5]].\n\n"
)


@dataclass(frozen=True)
class Estimate:
    """What judging will take."""

    requests: int
    prompt_tokens: int
    completion_tokens: int
    """At most."""

    def cost(self, prompt_price: float, completion_price: float) -> float:
        """Upper bound, from prices of a million tokens."""
        spent = self.prompt_tokens * prompt_price + self.completion_tokens * completion_price
        return spent / 1e6


@dataclass(frozen=True)
class Grades:
    """What judging found."""

    mean: float
    """Over all readable grades; NaN where there are none."""
    first_turn: float
    second_turn: float
    unparsed: float
    """Share of answers without a readable grade."""


def grading_prompt(question: Question, answers: Sequence[str], turn: int) -> str:
    """What the judge is asked about the answer to `turn` (from 0)."""
    parts = [_TASK]
    if turn < len(question.reference):
        parts.append(f"[Reference answer]\n{question.reference[turn]}\n[End]\n\n")
    for user, answer in zip(question.turns[: turn + 1], answers[: turn + 1], strict=True):
        parts.append(f"[User]\n{user}\n[Assistant]\n{answer}\n")
    return "".join(parts) + "[End of the conversation]"


def estimate(
    questions: Sequence[Question], answers: Mapping[int, list[str]], out: Path
) -> Estimate:
    """The requests that are still to be made."""
    prompts = [
        grading_prompt(question, answers[question.number], turn)
        for question in _left(questions, answers, out)
        for turn in range(len(question.turns))
    ]
    tokens = round(sum(map(len, prompts)) / CHARACTERS_PER_TOKEN)
    return Estimate(len(prompts), tokens, MAX_TOKENS * len(prompts))


def judge(
    questions: Sequence[Question], answers: Mapping[int, list[str]], out: Path, endpoint: Endpoint
) -> Grades:
    """Grade what `out` lacks, appending each question's grades, and sum all up.

    Raises:
        studies.tasks.mt_bench.endpoint.EndpointError: the endpoint cannot be used; what was graded
            before is kept.
    """
    for question in _left(questions, answers, out):
        grades, tokens = [], [0, 0]
        for turn in range(len(question.turns)):
            prompt = grading_prompt(question, answers[question.number], turn)
            reply = endpoint.ask(prompt, MAX_TOKENS)
            grades.append(grade_of(reply.text))
            tokens = [tokens[0] + reply.prompt_tokens, tokens[1] + reply.completion_tokens]
        record = {"question_id": question.number, "grades": grades, "judge": endpoint.model}
        append(out, {**record, "prompt_tokens": tokens[0], "completion_tokens": tokens[1]})
    return summary(list(read_done(out, "grades").values()))


def grade_of(text: str) -> float | None:
    """The last grade in the judge's words, or None where there is none from 1 to 10."""
    grades = _GRADE.findall(text)
    return float(grades[-1]) if grades and 1 <= float(grades[-1]) <= 10 else None


def summary(grades: Sequence[Sequence[float | None]]) -> Grades:
    """Means over all grades and over each turn's."""

    def mean(values: list[float | None]) -> float:
        readable = [value for value in values if value is not None]
        return statistics.fmean(readable) if readable else float("nan")

    every = [grade for turns in grades for grade in turns]
    return Grades(
        mean(every),
        mean([turns[0] for turns in grades if turns]),
        mean([turns[1] for turns in grades if len(turns) > 1]),
        sum(grade is None for grade in every) / len(every) if every else 0.0,
    )


def _left(
    questions: Sequence[Question], answers: Mapping[int, list[str]], out: Path
) -> list[Question]:
    """Questions to be graded: answered, and not in `out`.

    Raises:
        ValueError: an answer is missing.
    """
    missing = [question.number for question in questions if question.number not in answers]
    if missing:
        raise ValueError(f"no answers yet to questions {missing[:5]}; run `answer` first")
    done = read_done(out, "grades")
    return [question for question in questions if question.number not in done]
