"""The model's answers, turn after turn, several conversations at a time."""

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import nn
from transformers import PreTrainedTokenizerBase

from studies.tasks.alpaca import alpaca_prompt
from studies.tasks.kinds.generation import generate
from studies.tasks.kinds.prepared import evaluating
from studies.tasks.mt_bench.files import Question, append, read_done

# greedy for what has one right answer, as in FastChat
TEMPERATURES = {"writing": 0.7, "roleplay": 0.7, "humanities": 0.1, "stem": 0.1}


def write_answers(
    model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    questions: Sequence[Question],
    out: Path,
    *,
    batch_size: int = 8,
    max_length: int = 2048,
    max_new_tokens: int = 1024,
) -> int:
    """Append the answers that `out` lacks, and return how many that were."""
    done = read_done(out, "turns")
    left = [question for question in questions if question.number not in done]
    for (temperature, turns), batch in _alike(left, batch_size):
        torch.manual_seed(batch[0].number)
        answers: list[list[str]] = [[] for _ in batch]
        for turn in range(turns):
            prompts = [
                conversation(tokenizer, question.turns[: turn + 1], given)
                for question, given in zip(batch, answers, strict=True)
            ]
            with evaluating(model, None) as device:
                written = generate(
                    model,
                    tokenizer,
                    prompts,
                    batch_size=len(batch),
                    max_length=max_length,
                    max_new_tokens=max_new_tokens,
                    device=device,
                    temperature=temperature,
                )
            for given, text in zip(answers, written, strict=True):
                given.append(text)
        for question, given in zip(batch, answers, strict=True):
            append(out, {"question_id": question.number, "turns": given})
    return len(left)


def conversation(
    tokenizer: PreTrainedTokenizerBase, questions: Sequence[str], answered: Sequence[str]
) -> str:
    """The prompt for the next answer: the tokenizer's chat template, or else Alpaca's prompts."""
    if tokenizer.chat_template:
        messages = [{"role": "user", "content": questions[0]}]
        for answer, question in zip(answered, questions[1:], strict=True):
            messages += [
                {"role": "assistant", "content": answer},
                {"role": "user", "content": question},
            ]
        prompt = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        assert isinstance(prompt, str), "not tokenised"
        return prompt
    parts = [
        alpaca_prompt(question) + answer
        for question, answer in zip(questions, [*answered, ""], strict=True)
    ]
    return "\n\n".join(parts)


def _alike(
    questions: Sequence[Question], size: int
) -> Iterator[tuple[tuple[float, int], list[Question]]]:
    """Batches of one temperature and number of turns, beside these two."""

    def kind(question: Question) -> tuple[float, int]:
        return TEMPERATURES.get(question.category, 0.0), len(question.turns)

    for own, group in itertools.groupby(sorted(questions, key=kind), kind):
        alike = list(group)
        for start in range(0, len(alike), size):
            yield own, alike[start : start + size]
