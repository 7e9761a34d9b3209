"""Make a method of our own known to PEFT from outside.

PEFT's `PeftType` is a closed enum and `register_peft_method` accepts only its members, so one is
added at run time; tests/adapters/peft_integration/private_names.py lists what that relies on.
"""

from peft import PeftConfig
from peft.tuners.tuners_utils import BaseTuner
from peft.utils import PeftType, register_peft_method


def peft_type(name: str) -> PeftType:
    """The member of `PeftType` called `name` in capitals, added where it is missing."""
    key = name.upper()
    if key not in PeftType.__members__:
        member = str.__new__(PeftType, key)
        member._name_, member._value_ = key, key
        type.__setattr__(PeftType, key, member)
        PeftType._member_names_.append(key)
        PeftType._member_map_[key] = member
        PeftType._value2member_map_[key] = member
    return PeftType[key]


def register_with_peft(name: str, config: type[PeftConfig], model: type[BaseTuner]) -> None:
    """Register a tuner with PEFT once; importing twice is harmless."""
    from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING

    if peft_type(name) not in PEFT_TYPE_TO_CONFIG_MAPPING:
        register_peft_method(name=name, config_cls=config, model_cls=model)
