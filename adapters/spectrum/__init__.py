"""What an adapter has learned: spectra of its updates, and how much of phi is in use.

Figures are in `adapters.spectrum.plots`, which alone needs matplotlib.
"""

from adapters.spectrum.by_part import rank_statistics, size_statistics
from adapters.spectrum.curves import PhiCurve, phi_curves
from adapters.spectrum.measures import effective_rank, numerical_rank, singular_values, stable_rank
from adapters.spectrum.modules import ModuleSpectrum, spectra, spectra_of_saved, table
from adapters.spectrum.sizes import SIZES, phi_sizes
from adapters.spectrum.usage import effective_degree, grid_occupancy, non_affine_share, utilization
from adapters.training.stable_rank import stable_rank_by_power

__all__ = [
    "SIZES",
    "ModuleSpectrum",
    "PhiCurve",
    "effective_degree",
    "effective_rank",
    "grid_occupancy",
    "non_affine_share",
    "numerical_rank",
    "phi_curves",
    "phi_sizes",
    "rank_statistics",
    "singular_values",
    "size_statistics",
    "spectra",
    "spectra_of_saved",
    "stable_rank",
    "stable_rank_by_power",
    "table",
    "utilization",
]
