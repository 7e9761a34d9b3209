"""Learnable nonlinear adapters W' = W + s phi(B A) as a PEFT method, and the methods beside it.

What is used from outside is here. The subpackages, from the lowest: `ops` (kernels), `placement`
(where adapters go) and `merging`; `peft_integration`; `forms` (what an update is); `basis` (the
adapter itself); `training` and `export`; `methods` (all that an arm can name) and `spectrum` (what
was learned).
"""

from adapters.basis.config import BasisConfig
from adapters.basis.layers import BasisLayer, BasisLinear, BasisParameter
from adapters.basis.model import BasisModel
from adapters.basis.parameter_counts import parameter_table
from adapters.basis.phi_config import PhiConfig
from adapters.basis.weighted_sums import rescale_adapter_scale
from adapters.forms import Form, get_form_class, list_forms, register_form
from adapters.methods import builtin as builtin
from adapters.methods.attachment import attach
from adapters.methods.common_options import COMMON_OPTIONS, AdapterSection
from adapters.methods.matching import match
from adapters.methods.registry import (
    Method,
    check_options,
    get_method,
    list_methods,
    register_method,
)
from adapters.name_conflict import warn_of_name_conflict
from adapters.peft_integration.fixes import merge_and_unload
from adapters.peft_integration.model_card import push_to_hub, write_model_card
from adapters.spectrum.monitor import MONITORED, monitor
from adapters.training.hooks import StepCallback, after_step, on_attach
from adapters.training.parameters import (
    Trained,
    clip_gradients,
    count_parameters,
    parameter_groups,
    phi_parameters,
    trained_parameters,
)
from adapters.training.penalties import penalty_loss, register_penalty
from adapters.training.transfer import load_phi
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
    "Form",
    "Method",
    "PhiConfig",
    "StepCallback",
    "Trained",
    "after_step",
    "attach",
    "check_options",
    "clip_gradients",
    "count_parameters",
    "get_form_class",
    "get_method",
    "list_forms",
    "list_methods",
    "load_phi",
    "match",
    "merge_and_unload",
    "monitor",
    "on_attach",
    "parameter_groups",
    "parameter_table",
    "penalty_loss",
    "phi_parameters",
    "push_to_hub",
    "register_form",
    "register_method",
    "register_penalty",
    "rescale_adapter_scale",
    "trained_parameters",
    "write_model_card",
]

warn_of_name_conflict()
