"""FourierFT: a few coefficients of the update's Fourier transform."""

from peft import FourierFTConfig

from adapters.methods.registry import Method, register_method


def frequencies(smallest_side: int) -> list[int]:
    """Numbers of coefficients that matching may choose from."""
    return list(range(1, smallest_side**2 + 1))


register_method(
    Method(
        "fourierft",
        FourierFTConfig,
        ignored=frozenset({"r", "alpha"}),
        size="n_frequency",
        sizes=frequencies,
        formula="scaling · Re(ifft2(n_frequency coefficients at random places))",
        source="Gao et al., arXiv 2405.03003; PEFT",
        note="has no r and no alpha",
    )
)
