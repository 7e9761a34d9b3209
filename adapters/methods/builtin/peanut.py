"""PEANuT: the update as a small network's image of the weight."""

from peft import PeanutConfig

from adapters.methods.registry import Method, register_method

register_method(
    Method(
        "peanut",
        PeanutConfig,
        ignored=frozenset({"alpha"}),
        convertible=False,
        formula="scaling · MLP(W) through width r",
        source="Zhong et al., arXiv 2410.01870; PEFT",
        note="has no alpha; nonlinear in its own parameters, linear in the input",
    )
)
