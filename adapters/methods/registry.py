"""Every method an arm of a study can name.

A method is a PEFT configuration with the options of the project's own vocabulary (`r`, `alpha`,
`target_modules`, ...) translated to PEFT's.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

from peft import PeftConfig
from torch import nn

from adapters.methods.common_options import COMMON_OPTIONS, check_common
from adapters.placement.targets import WORDS, check_layers
from basis_zoo.registry import Registry, no_option


@dataclasses.dataclass(frozen=True)
class Method:
    """A way to adapt a model.

    `config` is the PEFT configuration's class, or None where nothing is wrapped; `renamed` maps
    our option names to the configuration's; `fixed` are values that define the method;
    `trains` says, without a configuration, which parameters are trained, by name.
    """

    name: str
    config: type[PeftConfig] | None = None
    renamed: dict[str, str] = dataclasses.field(default_factory=dict)
    fixed: dict[str, Any] = dataclasses.field(default_factory=dict)
    ignored: frozenset[str] = frozenset()
    """Common options that mean nothing to this method."""
    trains: Callable[[str], bool] | None = None
    defaults: dict[str, Any] = dataclasses.field(default_factory=dict)
    """Values of the configuration that we set unless an option does."""
    complete: Callable[[dict[str, Any]], dict[str, Any]] | None = None
    """Adds to the configuration's values those that follow from others."""
    follow: Callable[[nn.Module, Any], None] | None = None
    """Sets what follows from the modules that are adapted, once the configuration names them."""
    weightless: dict[str, Any] = dataclasses.field(default_factory=dict)
    """Values of the configuration in place of those that need a weight, on the meta device."""
    initialise: Callable[[nn.Module], None] | None = None
    """Called once with the adapted model."""
    size: str | None = "r"
    """The option that decides how many numbers are trained; None where there is no choice."""
    sizes: Callable[[int], Sequence[int]] = lambda smallest_side: range(1, smallest_side + 1)
    """The values of `size` to match with, by the smallest side of an adapted weight; the number
    of trained parameters rises or falls from first to last."""
    mergeable: bool = True
    """Whether the update can be put into the weights."""
    convertible: bool = True
    """Whether `peft.convert_to_lora` is right for it."""
    low_rank: bool = False
    """Whether the update is a product of factors of rank r, so that PARA can cut its rank."""
    formula: str = ""
    """The update, one line."""
    source: str = ""
    note: str = ""
    """What a user has to know."""

    @property
    def changes_weights(self) -> bool:
        """Whether matrices of the model become others, once the adapter is put into them."""
        return self.mergeable and (self.trains is None or self.trains("layer.0.dense.weight"))

    @property
    def resolved(self) -> list[str]:
        """Common options that the configuration lacks: `attach` finds the modules for it."""
        if self.config is None:
            return []
        fields = {f.name for f in dataclasses.fields(self.config)}
        common = ("exclude_modules", "layers_to_transform", "layers")
        return [o for o in common if o not in fields]

    def options(self) -> list[str]:
        """The options a study may set."""
        if self.config is None:
            return []
        hidden = {"peft_type", "task_type", "auto_mapping", "peft_version", "inference_mode"}
        hidden |= {"base_model_name_or_path", "revision", "schema_version", *self.fixed}
        own = {f.name for f in dataclasses.fields(self.config)} - hidden
        own -= set(self.renamed.values())
        return sorted({*own, *self.renamed, *self.resolved} - self.ignored)

    def build(self, options: dict[str, Any]) -> PeftConfig | None:
        """The PEFT configuration, or None where the method needs none.

        Raises:
            ValueError: An option the method lacks, or a value it refuses.
        """
        own_options = self.options()
        settings = {k: v for k, v in options.items() if k not in self.ignored}
        # null leaves what all methods share to the method
        settings = {k: v for k, v in settings.items() if not (v is None and k in COMMON_OPTIONS)}
        if "dropout" not in own_options and settings.pop("dropout", 0):
            raise ValueError(
                f"method {self.name!r} has no dropout, got dropout {options['dropout']}: set "
                "`dropout: 0` for it, or compare with methods that have it"
            )
        for option in settings:
            if option not in own_options:
                raise ValueError(no_option(f"method {self.name!r}", option, own_options))
        if self.config is None:
            return None
        check_layers(settings.get("layers", "all"))
        values = {self.renamed.get(k, k): v for k, v in settings.items() if k not in self.resolved}
        values = {**self.defaults, **values}
        if values.get("target_modules") in WORDS:  # PEFT refuses indices of blocks beside a text
            values["target_modules"] = [values["target_modules"]]
        if self.complete is not None:
            values = self.complete(values)
        try:
            return self.config(**self.fixed, **values)
        except (TypeError, AttributeError) as error:
            raise ValueError(f"method {self.name!r} refuses {settings}: {error}") from error


_METHODS: Registry[Method] = Registry("method", Method, origin=lambda method: method.formula)
get_method = _METHODS.find
list_methods = _METHODS.names


def register_method(method: Method) -> None:
    """Make a method known by its name.

    Raises:
        ValueError: The name is taken or not a lower-case word.
    """
    _METHODS.add(method.name, method)


def check_options(adapter: dict[str, Any]) -> None:
    """Refuse an `adapter:` mapping that cannot be built; needs no model.

    Raises:
        ValueError: The method, an option or a value is wrong; the message says what is allowed.
    """
    configured(adapter)


def configured(adapter: dict[str, Any]) -> tuple[Method, PeftConfig | None]:
    """The method that an `adapter:` mapping names, and its PEFT configuration.

    Raises:
        ValueError: As `check_options`.
    """
    options = dict(adapter)
    name = options.pop("method", None)
    if name is None:
        raise ValueError(f"`adapter` needs a `method`, one of: {', '.join(list_methods())}")
    method = get_method(name)
    check_common(adapter)
    return method, method.build(options)
