"""Any additive adapter as plain LoRA of unequal ranks, by one threshold over all layers (PARA)."""

from adapters.export.allocate import allocate
from adapters.export.curve import CurvePoint, accuracy_curve
from adapters.export.lora import LayerReport, LoraExport, to_lora
from adapters.export.updates import Factors, LayerUpdate, layer_updates

__all__ = [
    "CurvePoint",
    "Factors",
    "LayerReport",
    "LayerUpdate",
    "LoraExport",
    "accuracy_curve",
    "allocate",
    "layer_updates",
    "to_lora",
]
