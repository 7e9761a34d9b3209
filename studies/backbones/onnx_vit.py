"""A vision transformer's weights out of an ONNX graph, as a `Dinov2Model` folder."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

WIDTH, SIDE, PATCH = 384, 518, 14
CONFIG = {
    "architectures": ["Dinov2Model"],
    "model_type": "dinov2",
    "hidden_size": WIDTH,
    "num_hidden_layers": 12,
    "num_attention_heads": 6,
    "mlp_ratio": 4,
    "image_size": SIDE,
    "patch_size": PATCH,
    "qkv_bias": True,
    "layerscale_value": 1.0,
    "layer_norm_eps": 1e-6,
    "hidden_act": "gelu",
    "use_swiglu_ffn": False,
}
PREPROCESSOR = {
    "image_processor_type": "BitImageProcessor",
    "do_resize": True,
    "size": {"shortest_edge": 224},
    "do_center_crop": True,
    "crop_size": {"height": 224, "width": 224},
    "do_normalize": True,
    "do_rescale": True,
    "do_convert_rgb": True,
    "resample": 3,
    "image_mean": [0.485, 0.456, 0.406],
    "image_std": [0.229, 0.224, 0.225],
}
_PREFIX = "backbone."


def convert_onnx_vit(sources: Sequence[Path], folder: Path) -> None:
    """Read `vit_s_focus.onnx` and fill `folder` with config, preprocessor and safetensors."""
    import onnx
    import torch
    from onnx import numpy_helper
    from safetensors.torch import save_file

    graph = onnx.load(sources[0] / "vit_s_focus.onnx").graph
    weights = {t.name: torch.from_numpy(numpy_helper.to_array(t).copy()) for t in graph.initializer}
    state = {k.removeprefix(_PREFIX): v for k, v in weights.items() if k.startswith(_PREFIX)}
    state |= _matrices(graph, weights)
    width, patches = WIDTH, (SIDE // PATCH) ** 2
    token = weights[f"{_PREFIX}embeddings.cls_token"]
    # the exporter folded the interpolation of the positions away and kept its two halves
    cls = next(v for v in weights.values() if v.shape == (1, 1, width) and v is not token)
    grid = next(v for v in weights.values() if v.shape == (1, patches, width))
    state["embeddings.position_embeddings"] = torch.cat([cls, grid], dim=1)
    state["embeddings.mask_token"] = torch.zeros(1, width)
    tensors = {name: tensor.contiguous() for name, tensor in state.items()}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(CONFIG, indent=2), encoding="utf-8")
    preprocessor = folder / "preprocessor_config.json"
    preprocessor.write_text(json.dumps(PREPROCESSOR, indent=2), encoding="utf-8")


def _matrices(graph: Any, weights: dict[str, Any]) -> dict[str, Any]:
    """Weights of the linear layers, which ONNX names by number: each takes its bias's name."""
    producer = {output: node for node in graph.node for output in node.output}
    matrices = {}
    for node in graph.node:  # Add(bias, MatMul(x, W))
        bias = [i for i in node.input if i in weights and i.endswith(".bias")]
        other = [producer[i] for i in node.input if i not in weights and i in producer]
        if node.op_type == "Add" and bias and other and other[0].op_type == "MatMul":
            for name in other[0].input:
                if name in weights:
                    key = bias[0].removeprefix(_PREFIX).removesuffix("bias") + "weight"
                    matrices[key] = weights[name].T.contiguous()
    return matrices
