"""Forms: what the update of a matrix is, of its factors, of phi and of W."""

from adapters.forms.form import (
    FactoredForm,
    Form,
    Operands,
    get_form,
    get_form_class,
    list_forms,
    register_form,
)
from adapters.forms.phi_function import PhiFunction

__all__ = [
    "FactoredForm",
    "Form",
    "Operands",
    "PhiFunction",
    "get_form",
    "get_form_class",
    "list_forms",
    "register_form",
]
