"""Alpaca's format, and MT-Bench against a local server that speaks the protocol."""

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from studies import backbones, tasks
from studies.tasks.alpaca import alpaca_prompt
from studies.tasks.mt_bench.__main__ import main
from studies.tasks.mt_bench.answers import conversation, write_answers
from studies.tasks.mt_bench.endpoint import Endpoint, EndpointError
from studies.tasks.mt_bench.files import append, read_done, read_questions
from studies.tasks.mt_bench.judge import grade_of

KEY = "sk-a-secret-of-this-test"
QUESTIONS = [
    {"question_id": 81, "category": "writing", "turns": ["Write.", "Again."]},
    {
        "question_id": 101,
        "category": "math",
        "turns": ["1+1?", "And 2+2?"],
        "reference": ["2", "4"],
    },
    {"question_id": 102, "category": "math", "turns": ["Once?"]},
]


@pytest.fixture
def questions(tmp_path: Path) -> Path:
    path = tmp_path / "question.jsonl"
    path.write_text("".join(f"{json.dumps(question)}\n" for question in QUESTIONS))
    return path


@dataclass
class Judge:
    """What the fake endpoint says and was asked."""

    url: str = ""
    replies: list[Any] = field(default_factory=list)
    """Texts, or numbers for HTTP errors; the last one is repeated."""
    asked: list[dict[str, Any]] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Judge]:
    judge = Judge()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            judge.asked.append({"path": self.path, **body})
            judge.keys.append(self.headers["Authorization"])
            reply = judge.replies.pop(0) if len(judge.replies) > 1 else judge.replies[0]
            if isinstance(reply, int):
                self.send_response(reply)
                self.send_header("Location", "http://127.0.0.1:9/elsewhere")
                self.end_headers()
                return
            usage = {"prompt_tokens": 7, "completion_tokens": 3}
            message = {"choices": [{"message": {"content": reply}}], "usage": usage}
            data = json.dumps(message).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *args: Any) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=http.serve_forever, daemon=True)
    thread.start()
    judge.url = f"http://127.0.0.1:{http.server_port}/v1"
    monkeypatch.setenv("BASIS_ZOO_JUDGE_URL", judge.url)
    monkeypatch.setenv("BASIS_ZOO_JUDGE_KEY", KEY)
    yield judge
    http.shutdown()
    http.server_close()
    thread.join()


def run(tmp_path: Path, *more: str) -> int:
    answers = tmp_path / "answers.jsonl"
    if not answers.exists():
        lines = [
            {"question_id": q["question_id"], "turns": ["x"] * len(q["turns"])} for q in QUESTIONS
        ]
        answers.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    files = ["--questions", str(tmp_path / "question.jsonl"), "--answers", str(answers)]
    return main(["judge", *files, "--out", str(tmp_path / "grades.jsonl"), "--model", "m", *more])


def test_nothing_is_sent_before_the_estimate_is_agreed_to(
    questions: Path, server: Judge, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(tmp_path, "--prompt-price", "10", "--completion-price", "30") == 0
    out = capsys.readouterr().out
    assert "5 requests" in out and "2,560 completion tokens" in out and "Add --yes" in out
    assert not server.asked


def test_grades_are_summed_up_and_the_key_appears_nowhere(
    questions: Path, server: Judge, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server.replies = ["Fine. [[8]]", "So so. [[4]]", "[[6]]", "no grade", "[[10]] or [[3]]"]
    assert run(tmp_path, "--yes") == 0
    out = capsys.readouterr()
    assert "mean 5.25 (turn 1 5.67, turn 2 4.00), unparsed 20.0%" in out.out
    assert {call["path"] for call in server.asked} == {"/v1/chat/completions"}
    assert server.asked[0]["temperature"] == 0 and server.asked[0]["model"] == "m"
    prompts = [call["messages"][0]["content"] for call in server.asked]
    assert "[Reference answer]\n4" in prompts[3] and "Reference" not in prompts[0]
    assert set(server.keys) == {f"Bearer {KEY}"}
    written = "".join(path.read_text() for path in tmp_path.iterdir() if path.is_file())
    assert KEY not in written + out.out + out.err
    record = json.loads((tmp_path / "grades.jsonl").read_text().splitlines()[0])
    assert record["prompt_tokens"] == 14 and record["grades"] == [8.0, 4.0]


def test_judging_ends_with_the_categories(
    questions: Path, server: Judge, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server.replies = ["[[8]]", "[[4]]", "[[6]]", "no grade", "[[3]]"]
    assert run(tmp_path, "--yes") == 0
    lines = capsys.readouterr().out.splitlines()[-2:]
    assert lines == ["  writing: 6.00, unparsed 0.0%", "  math: 4.50, unparsed 33.3%"]


def graded(path: Path, grades: dict[int, list[float | None]], judge: str = "m") -> str:
    lines = [{"question_id": n, "grades": own, "judge": judge} for n, own in grades.items()]
    path.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    return f"{path.stem}={path}"


def test_models_are_compared_by_category(
    questions: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lora = graded(tmp_path / "lora.jsonl", {81: [6, 4], 101: [2, 4], 102: [5]})
    phi = graded(tmp_path / "phi.jsonl", {81: [8, 8], 101: [5, None], 102: [6]})
    out = tmp_path / "scores.json"
    given = ["compare", "--questions", str(questions), "--grades", lora, "--grades", phi]
    assert main([*given, "--json", str(out)]) == 0
    head, _, *rows = capsys.readouterr().out.splitlines()
    assert head == "| category | questions | lora | phi | phi − lora [95 %] |"
    assert rows[0] == "| writing | 1 | 5.00 | 8.00 | +3.00 |"
    # by question: 3 to 5 and 5 to 6, so +1.5 with a t interval of two: 12.706 * 0.5
    assert rows[1] == "| math | 2 | 4.00 | 5.50 | +1.50 [-4.85, +7.85] |"
    assert rows[2].startswith("| all | 3 | 4.33 | 6.33 | +2.00 [")
    scores = json.loads(out.read_text())
    assert scores["phi"]["math"]["mean"] == 5.5 and scores["lora"]["math"]["second_turn"] == 4
    assert scores["phi"]["math"]["unparsed"] == pytest.approx(1 / 3)
    assert scores["phi"]["math"]["second_turn"] is None


def test_grades_that_cannot_be_compared_are_refused(
    questions: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lora = graded(tmp_path / "lora.jsonl", {81: [6, 4]})
    other = graded(tmp_path / "other.jsonl", {81: [6, 4]}, judge="another")
    none = graded(tmp_path / "none.jsonl", {})
    given = ["compare", "--questions", str(questions), "--grades", lora, "--grades"]
    for more, message in (
        (other, "different judges cannot be compared: m in "),
        (none, "none.jsonl has no grades: write it with `judge` first"),
        (lora, "every model needs a name of its own"),
    ):
        assert main([*given, more]) == 1
        assert message in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main([*given, "lora"])
    assert "expected NAME=FILE, got 'lora'" in capsys.readouterr().err


def test_judging_goes_on_where_it_stopped(
    questions: Path, server: Judge, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server.replies = ["[[8]]", "[[8]]", 401]
    assert run(tmp_path, "--yes") == 1
    error = capsys.readouterr().err
    assert "refused the request: HTTP 401" in error and KEY not in error
    with (tmp_path / "grades.jsonl").open("a") as file:
        file.write('{"question_id": 101, "gra')  # cut off
    server.replies, server.asked = ["[[2]]"], []
    assert run(tmp_path, "--yes") == 0
    assert len(server.asked) == 3
    assert list(read_done(tmp_path / "grades.jsonl", "grades")) == [81, 101, 102]


def test_a_busy_endpoint_is_asked_again_and_a_redirect_is_not_followed(server: Judge) -> None:
    server.replies = [429, 503, "[[7]]"]
    assert Endpoint("m", pause=0.0).ask("hi", 5).text == "[[7]]"
    server.replies = [500]
    with pytest.raises(EndpointError, match="HTTP 500, 2 times"):
        Endpoint("m", pause=0.0, attempts=2).ask("hi", 5)
    server.replies = [302]
    with pytest.raises(EndpointError, match="HTTP 302"):
        Endpoint("m", pause=0.0, attempts=2).ask("hi", 5)


@pytest.mark.parametrize("url", ["", "ftp://host/v1", "host/v1", "https://user:pw@host/v1"])
def test_an_environment_that_lacks_something_is_refused(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BASIS_ZOO_JUDGE_URL", url)
    monkeypatch.setenv("BASIS_ZOO_JUDGE_KEY", KEY)
    with pytest.raises(EndpointError, match="set BASIS_ZOO_JUDGE_URL") as error:
        Endpoint("m").check()
    assert "pw" not in str(error.value)
    monkeypatch.setenv("BASIS_ZOO_JUDGE_URL", "http://127.0.0.1:9/v1")
    monkeypatch.delenv("BASIS_ZOO_JUDGE_KEY")
    with pytest.raises(EndpointError, match="set BASIS_ZOO_JUDGE_KEY"):
        Endpoint("m").check()


@pytest.mark.parametrize(
    ("text", "grade"), [("[[5]]", 5.0), ("a [[2]] b [[7.5]]", 7.5), ("5", None), ("[[11]]", None)]
)
def test_grades_are_read_in_one_form_only(text: str, grade: float | None) -> None:
    assert grade_of(text) == grade


def test_answers_are_written_turn_after_turn_and_resumed(
    tiny_llama: Path, questions: Path, tmp_path: Path
) -> None:
    model, tokenizer = backbones.load(str(tiny_llama), backbones.Head("language_model"))
    out, asked = tmp_path / "answers.jsonl", read_questions(questions)
    options = {"max_new_tokens": 5, "batch_size": 2, "max_length": 600}
    assert write_answers(model, tokenizer, asked, out, **options) == 3
    done = read_done(out, "turns")
    assert {number: len(turns) for number, turns in done.items()} == {81: 2, 101: 2, 102: 1}
    out.write_text("".join(f"{line}\n" for line in out.read_text().splitlines()[:1]))
    assert write_answers(model, tokenizer, asked, out, **options) == 2
    assert read_done(out, "turns") == done


def test_a_last_line_cut_inside_a_character_is_written_again(tmp_path: Path) -> None:
    out = tmp_path / "answers.jsonl"
    for number in (81, 101):
        append(out, {"question_id": number, "turns": ["é"]})
    out.write_bytes(out.read_bytes().removesuffix(b'\xa9"]}\n'))
    assert read_done(out, "turns") == {81: ["é"]}
    append(out, {"question_id": 102, "turns": ["é"]})
    assert read_done(out, "turns") == {81: ["é"], 102: ["é"]}


def test_a_last_line_without_its_end_is_done_and_stays(tmp_path: Path) -> None:
    out = tmp_path / "answers.jsonl"
    out.write_text('{"question_id": 81, "turns": ["x"]}')
    assert read_done(out, "turns") == {81: ["x"]}
    append(out, {"question_id": 101, "turns": ["y"]})
    assert read_done(out, "turns") == {81: ["x"], 101: ["y"]}


@pytest.mark.parametrize(
    "line", ["5", "null", '["turns"]', '{"turns": ["x"]}', '{"question_id": null, "turns": ["x"]}']
)
def test_a_line_that_is_no_object_with_a_number_is_named(tmp_path: Path, line: str) -> None:
    file = tmp_path / "file.jsonl"
    file.write_text(f"{json.dumps(QUESTIONS[0])}\n{line}\n")
    for read in (read_questions, partial(read_done, key="turns")):
        with pytest.raises(ValueError, match="line 2: needs a JSON object with a question_id"):
            read(file)


def test_a_category_of_null_is_none(tmp_path: Path) -> None:
    (tmp_path / "question.jsonl").write_text(json.dumps(QUESTIONS[0] | {"category": None}))
    (question,) = read_questions(tmp_path / "question.jsonl")
    assert question.category == ""


def test_answers_that_are_given_as_grades_are_refused(
    questions: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["compare", "--grades", f"a={questions}", "--questions", str(questions)]) == 1
    said = capsys.readouterr().err
    assert said == f"error: {questions}, line 1: needs grades, has question_id, category, turns\n"


def test_the_second_turn_sees_the_first(tiny_llama: Path) -> None:
    _, tokenizer = backbones.load(str(tiny_llama), backbones.Head("language_model"))
    prompt = conversation(tokenizer, ["one?", "two?"], ["first answer"])
    assert prompt.index("one?") < prompt.index("first answer") < prompt.index("two?")
    tokenizer.chat_template = (
        "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}<assistant>"
    )
    prompt = conversation(tokenizer, ["one?", "two?"], ["first"])
    assert prompt == "<user>one?<assistant>first<user>two?<assistant>"


def test_alpaca_rows_with_and_without_input(tmp_path: Path) -> None:
    rows = [
        {"instruction": f"Do {n}.", "input": "" if n % 2 else f"with {n}", "output": f"done {n}"}
        for n in range(30)
    ]
    (tmp_path / "alpaca.json").write_text(json.dumps(rows))
    data = tasks.load({"name": "alpaca", "data": str(tmp_path / "alpaca.json")})
    every = {row.response: row.prompt for split in data.splits.values() for row in split}
    assert "### Input:\nwith 4\n\n### Response:\n" in every["done 4"]
    assert "### Input" not in every["done 5"] and every["done 5"].endswith("### Response:\n")
    (tmp_path / "bad.json").write_text(json.dumps([{"instruction": "x"}]))
    with pytest.raises(ValueError, match="a row needs a text under 'output'"):
        tasks.load({"name": "alpaca", "data": str(tmp_path / "bad.json")})


def test_braces_of_an_instruction_stay_in_alpacas_prompt() -> None:
    prompt = alpaca_prompt("Write the template {input} in bold", "{instruction}")
    assert "### Instruction:\nWrite the template {input} in bold\n" in prompt
    assert "### Input:\n{instruction}\n" in prompt
