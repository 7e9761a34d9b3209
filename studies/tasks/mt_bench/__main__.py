"""`python -m studies.tasks.mt_bench answer|judge|compare`: see the package."""

import argparse
import json
import math
import sys
from pathlib import Path

from studies.tasks.mt_bench.categories import ALL, as_data, by_category, comparison, read_grades
from studies.tasks.mt_bench.endpoint import KEY_VARIABLE, URL_VARIABLE, Endpoint, EndpointError
from studies.tasks.mt_bench.files import read_done, read_questions
from studies.tasks.mt_bench.judge import estimate, judge


def main(arguments: list[str] | None = None) -> int:
    """Run one of the commands."""
    parser = argparse.ArgumentParser(prog="python -m studies.tasks.mt_bench")
    commands = parser.add_subparsers(dest="command", required=True)
    answer = commands.add_parser("answer", help="write the model's answers to a file")
    answer.add_argument("--backbone", required=True, help="name, hub id or folder")
    answer.add_argument("--dtype", default="float32")
    answer.add_argument("--adapter", help="folder of a saved adapter")
    answer.add_argument("--batch-size", type=int, default=8)
    answer.add_argument("--max-new-tokens", type=int, default=1024)
    grade = commands.add_parser("judge", help="grade the answers of a file")
    grade.add_argument("--answers", type=Path, required=True)
    grade.add_argument("--model", required=True, help="the judging model's name at the endpoint")
    grade.add_argument("--prompt-price", type=float, default=0.0, help="of a million tokens")
    grade.add_argument("--completion-price", type=float, default=0.0, help="of a million tokens")
    grade.add_argument("--yes", action="store_true", help="go on after the estimate")
    grade.epilog = f"The endpoint comes from {URL_VARIABLE} and {KEY_VARIABLE}."
    compare = commands.add_parser("compare", help="grades of several models, by category")
    compare.add_argument(
        "--grades", action="append", required=True, type=_named, metavar="NAME=FILE",
        help="a model and what `judge` wrote for it, several times; the first is the baseline",
    )  # fmt: skip
    compare.add_argument("--json", type=Path, help="where the numbers go, too")
    for each in (answer, grade, compare):
        each.add_argument("--questions", type=Path, required=True, help="FastChat's question.jsonl")
    for each in (answer, grade):
        each.add_argument("--out", type=Path, required=True, help="appended to; resumes")
    given = parser.parse_args(arguments)
    try:
        return {"answer": _answer, "judge": _judge, "compare": _compare}[given.command](given)
    except (EndpointError, ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def _answer(given: argparse.Namespace) -> int:
    import torch
    from transformers import PreTrainedTokenizerBase

    from studies import backbones
    from studies.tasks.mt_bench.answers import write_answers

    spec = {"name": given.backbone, "dtype": given.dtype}
    model, tokenizer = backbones.load(spec, backbones.Head("language_model"))
    if given.adapter:
        from peft import PeftModel

        import adapters  # noqa: F401 - registers our methods with peft

        model = PeftModel.from_pretrained(model, given.adapter)
    assert isinstance(tokenizer, PreTrainedTokenizerBase), "a language model has one"
    model.to("cuda" if torch.cuda.is_available() else "cpu")
    count = write_answers(
        model,
        tokenizer,
        read_questions(given.questions),
        given.out,
        batch_size=given.batch_size,
        max_new_tokens=given.max_new_tokens,
    )
    print(f"{count} answers written to {given.out}")
    return 0


def _judge(given: argparse.Namespace) -> int:
    questions, answers = read_questions(given.questions), read_done(given.answers, "turns")
    needed = estimate(questions, answers, given.out)
    print(
        f"{needed.requests} requests, about {needed.prompt_tokens:,} prompt tokens and at most "
        f"{needed.completion_tokens:,} completion tokens; at most "
        f"{needed.cost(given.prompt_price, given.completion_price):.2f} at the prices given"
    )
    if needed.requests and not given.yes:
        print("Add --yes to send them.")
        return 0
    grades = judge(questions, answers, given.out, Endpoint(given.model))
    turns = f"turn 1 {grades.first_turn:.2f}"
    if not math.isnan(grades.second_turn):
        turns += f", turn 2 {grades.second_turn:.2f}"
    print(f"mean {grades.mean:.2f} ({turns}), unparsed {grades.unparsed:.1%}")
    for name, own in by_category(questions, read_done(given.out, "grades")).items():
        if name != ALL:
            print(f"  {name}: {own.mean:.2f}, unparsed {own.unparsed:.1%}")
    return 0


def _compare(given: argparse.Namespace) -> int:
    files = dict(given.grades)
    if len(files) < len(given.grades):
        raise ValueError("every model needs a name of its own: --grades NAME=FILE")
    questions, models = read_questions(given.questions), read_grades(files)
    print(comparison(questions, models))
    if given.json is not None:
        text = json.dumps(as_data(questions, models), indent=2, allow_nan=False)
        given.json.write_text(f"{text}\n", encoding="utf-8")
    return 0


def _named(text: str) -> tuple[str, Path]:
    name, _, file = text.partition("=")
    if not name or not file:
        raise argparse.ArgumentTypeError(f"expected NAME=FILE, got {text!r}")
    return name, Path(file)


if __name__ == "__main__":
    sys.exit(main())
