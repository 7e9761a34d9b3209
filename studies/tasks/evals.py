"""The archive of OpenAI's evals, read and never installed."""

from studies.archives import Archive, Member

ROOT = "evals/registry/data"

EVALS = Archive(
    package="evals",
    version="3.0.1.post1",
    filename="evals-3.0.1.post1-py3-none-any.whl",
    size=46_322_659,
    sha256="0abcb2051303500784b1641a6e4f6b813ed43ad64f879a37d344a6774eb8eb78",
    members=(
        Member(
            (f"{ROOT}/sarcasm/samples.jsonl",),
            "sarcasm.jsonl",
            6_906_270,
            "4cb34ff4d2718da62368440ffe8dece7ece39a46b0fe4d172fdd8a76bc420f46",
        ),
        Member(
            (f"{ROOT}/theory_of_mind/socialiqa/test.jsonl",),
            "social_iqa.jsonl",
            534_549,
            "33e5a7e1f8270934fcff115f18ca51aede77987d1225cf3ac718a22fb1715714",
        ),
    ),
)
