"""Any additive adapter as plain LoRA of unequal ranks, by one threshold over all layers (PARA)."""

from adapters.export.accuracy_by_size import CurvePoint, accuracy_curve
from adapters.export.affine_fit import AffineFit, affine_fits, affine_in_force
from adapters.export.base_model import save_base
from adapters.export.lora import LayerReport, LoraExport, build, source_parameters, to_lora
from adapters.export.rank_allocation import allocate
from adapters.export.substitution import in_force
from adapters.export.svd import Factors
from adapters.export.updates import LayerUpdate, layer_updates

__all__ = [
    "AffineFit",
    "CurvePoint",
    "Factors",
    "LayerReport",
    "LayerUpdate",
    "LoraExport",
    "accuracy_curve",
    "affine_fits",
    "affine_in_force",
    "allocate",
    "build",
    "in_force",
    "layer_updates",
    "save_base",
    "source_parameters",
    "to_lora",
]
