"""Learnable nonlinear adapters W' = W + s phi(B A) as a PEFT method, and the arms beside it."""

from adapters import baselines as baselines
from adapters.card import push_to_hub, write_model_card
from adapters.combining import rescale_adapter_scale
from adapters.config import BasisConfig
from adapters.counting import parameter_table
from adapters.hooks import StepCallback, after_step, on_attach
from adapters.layers import BasisLayer, BasisLinear, BasisParameter
from adapters.matching import match
from adapters.methods import (
    Method,
    attach,
    check_options,
    get_method,
    list_methods,
    register_method,
)
from adapters.model import BasisModel
from adapters.monitor import MONITORED, monitor
from adapters.namesake import warn_of_namesake
from adapters.peft_gaps import merge_and_unload
from adapters.section import COMMON_OPTIONS, AdapterSection
from adapters.training import (
    Trained,
    clip_gradients,
    count_parameters,
    parameter_groups,
    phi_parameters,
    trained_parameters,
)
from basis_zoo.version import installed_version

__version__ = installed_version()
__all__ = [
    "COMMON_OPTIONS",
    "MONITORED",
    "AdapterSection",
    "BasisConfig",
    "BasisLayer",
    "BasisLinear",
    "BasisModel",
    "BasisParameter",
    "Method",
    "StepCallback",
    "Trained",
    "after_step",
    "attach",
    "check_options",
    "clip_gradients",
    "count_parameters",
    "get_method",
    "list_methods",
    "match",
    "merge_and_unload",
    "monitor",
    "on_attach",
    "parameter_groups",
    "parameter_table",
    "phi_parameters",
    "push_to_hub",
    "register_method",
    "rescale_adapter_scale",
    "trained_parameters",
    "write_model_card",
]

warn_of_namesake()
