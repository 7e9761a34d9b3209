"""FourierFT: a few coefficients of the update's Fourier transform."""

from peft import FourierFTConfig

from adapters.methods.registry import Method, register_method

register_method(
    Method(
        "fourierft",
        FourierFTConfig,
        ignored=frozenset({"r", "alpha"}),
        size="n_frequency",
        sizes=lambda smallest_side: range(1, smallest_side**2 + 1),
        formula="scaling · Re(ifft2(n_frequency coefficients at random places))",
        source="Gao et al., arXiv 2405.03003; PEFT",
        note="has no r and no alpha",
    )
)
