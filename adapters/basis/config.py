"""The settings of the adapter W' = W + s phi(B A)."""

from dataclasses import dataclass
from typing import Any

import peft
from peft import PeftConfig

from adapters.basis.field_types import check_field_types, require, require_one_of
from adapters.basis.form_checks import check_forms
from adapters.basis.patterns import check_depth_start, check_phi_pattern
from adapters.basis.phi_config import PHI_OPTIONS, PhiConfig
from adapters.basis.sharing import LEVELS, SCOPES
from adapters.peft_integration.model_card import WithCard
from adapters.peft_integration.options import Indices, KnownOptions, Names, as_sets, setting
from adapters.peft_integration.registration import peft_type
from adapters.placement.targets import check_blocks, check_layers
from basis_zoo.registry import did_you_mean

SCHEMA_VERSION = 5
PATHS = ("merged", "split")
"""How a layer applies its update: one product with W', or two, with W and with the update."""
ROUNDINGS = ("nearest", "stochastic")
"""How W' is rounded to bfloat16 while training."""
GRADIENT_DTYPES = ("working", "float8")
"""Precision of dYᵀX, the gradient of W' behind those of B, A and φ: the working one, or 8 bits."""
BIASES = ("none", "all", "basis_only")
"""Which biases of the base are trained and saved beside the adapter: none, all, or those of the
adapted modules."""


@dataclass
class BasisConfig(KnownOptions, WithCard, PeftConfig):
    """LoRA factors seen through a learned scalar function (LR-LoRA, arXiv 2606.04325, eq. 4).

    The defaults are the paper's (section 4.1) except `start`: phi(x) - phi(0) with a small random
    B instead of zero amplitudes with B = 0, which does not train.

    Raises:
        ValueError: A name is unknown or a value is out of range, at construction.
    """

    what = "W' = W + (alpha / r) φ(B A), with a learned scalar function φ"

    r: int = setting(8, "rank of the factors B (out, r) and A (r, in)")
    alpha: float = setting(16.0, "s = alpha / r")
    use_rslora: bool = setting(False, "s = alpha / sqrt(r) instead")
    dropout: float = setting(
        0.0, "share of the update's inputs set to zero while training; splits W'"
    )
    target_modules: Names = setting(None, "words of adapters.placement, names or a pattern")
    target_parameters: list[str] | None = setting(
        None, "names of parameters to adapt, such as stacked experts"
    )
    layers: list[Any] | str = setting("all", "blocks: all, odd, even, first_last_<k> or indices")
    exclude_modules: Names = setting(None, "names or a pattern of modules to leave out")
    modules_to_save: list[str] | None = setting(
        None, "modules that are trained and saved whole, such as a head"
    )
    bias: str = setting("none", f"biases that are trained too: {', '.join(BIASES)}")
    trainable_token_indices: list[int] | dict[str, list[int]] | None = setting(
        None, "tokens whose embeddings are trained, of all or by module"
    )
    ensure_weight_tying: bool = setting(False, "adapt tied input and output embeddings as one")
    layer_replication: list[tuple[int, int]] | None = setting(
        None, "ranges of blocks that the model is built anew from"
    )
    layers_to_transform: Indices = setting(None, "indices of the layers to adapt; all by default")
    layers_pattern: Names = setting(None, "name of the layer list, where PEFT does not know it")
    rank_pattern: dict[str, int] = setting({}, "rank by word, module name or pattern")
    alpha_pattern: dict[str, float] = setting({}, "alpha by word, module name or pattern")
    phi_pattern: dict[str, dict[str, Any]] = setting(
        {}, "other options of phi by word, module name or pattern"
    )
    depth_start: dict[str, Any] = setting(
        {}, "a number of phi in the first and in the last block, linear between"
    )
    sharing: str = setting("none", f"what is shared: {', '.join(LEVELS)}")
    sharing_scope: str = setting(
        "all", f"one phi for each of these, from coarse to fine: {', '.join(SCOPES)}"
    )
    form: str = setting("elementwise", "a name from adapters.forms.list_forms()")
    form_options: dict[str, Any] = setting({}, "the form's own fields")
    basis: str = setting("sinc", "a name from basis_zoo.list_bases()")
    num_basis: int = setting(50, "G, the number of functions")
    interval: tuple[float, float] = setting((-3.0, 3.0), "the interval that the functions cover")
    basis_options: dict[str, Any] = setting({}, "the family's own fields")
    grid: str = setting("uniform", "a name from basis_zoo.list_grids()")
    grid_options: dict[str, Any] = setting({}, "the grid's own fields")
    start: str = setting("anchored", "a name from basis_zoo.list_starts()")
    start_options: dict[str, Any] = setting({}, "the start's own fields")
    bandwidth: float | str = setting(1.0, "omega before training, in 1/x; or `spacing`")
    extrapolation: str | None = setting(
        None, "phi outside the interval; the family's rule by default"
    )
    input_scale: float | str = setting("none", "x = scale * B A: a number, or a rule of InputScale")
    input_scale_options: dict[str, Any] = setting({}, "`value` and `momentum` of the rule")
    linear: bool = setting(False, "phi carries a trained alpha x + beta")
    train_amplitude: bool = setting(True, "whether amplitudes are trained")
    train_bandwidth: bool = setting(True, "whether bandwidths are trained")
    b_std: float = setting(0.02, "standard deviation of B where the start wants it random")
    tolerance: float = setting(1e-6, "largest error of phi's proxy, as a share of max |phi|")
    path: str = setting(
        "merged", f"x W'^T, or x W^T + x dW^T: {', '.join(PATHS)}; quantised bases split"
    )
    rounding: str = setting(
        "nearest", f"rounding of W' to bfloat16 while training: {', '.join(ROUNDINGS)}"
    )
    gradient_dtype: str = setting(
        "working", f"dtype of dY^T X in large linear layers: {', '.join(GRADIENT_DTYPES)}"
    )
    merge_once: bool = setting(
        False, "keep W' until a number changes: one more copy of the adapted weights"
    )
    init_weights: bool = setting(True, "False: random amplitudes and B, for tests")
    schema_version: int = setting(SCHEMA_VERSION, "version of these settings as saved")

    @classmethod
    def check_kwargs(cls, **kwargs: Any) -> dict[str, Any]:
        """Refuse an incomplete saved configuration, where PEFT would fall back to defaults.

        Raises:
            ValueError: A setting is missing or unknown. Settings that another version of PEFT may
                have saved are left to PEFT, which warns about them.
        """
        fields = cls.__dataclass_fields__
        own = [name for name in BasisConfig.__annotations__ if name not in kwargs]
        if own and kwargs.get("schema_version", SCHEMA_VERSION) == SCHEMA_VERSION:
            raise ValueError(
                f"the saved configuration lacks {', '.join(own)}: it was not written whole, or was "
                "edited; save the adapter again, or restore its adapter_config.json"
            )
        for name in set(kwargs) - set(fields):
            if kwargs.get("peft_version") == peft.__version__:
                raise ValueError(
                    f"the saved configuration has an unknown setting {name!r}."
                    f"{did_you_mean(name, list(fields))} Remove it from adapter_config.json"
                )
        checked: dict[str, Any] = super().check_kwargs(**kwargs)  # type: ignore[no-untyped-call]  # PEFT's
        return checked

    def __post_init__(self) -> None:
        super().__post_init__()  # type: ignore[no-untyped-call]  # PEFT's
        # a file gives the type as text, and PEFT saves configurations for inference
        self.from_file = type(vars(self)["peft_type"]) is str and self.inference_mode
        self.peft_type = peft_type("basis")
        self.interval = self.phi.interval
        check_field_types(self, BasisConfig)
        as_sets(self)
        for option in ("target_modules", "exclude_modules", "modules_to_save"):
            names = getattr(self, option) or []
            listed_names = [names] if isinstance(names, str) else names
            require("" not in listed_names, option, "names, none of them empty", names)
        require(isinstance(self.r, int) and self.r >= 1, "r", "an integer >= 1", self.r)
        require(self.alpha > 0, "alpha", "positive", self.alpha)
        require(0 <= self.dropout < 1, "dropout", "at least 0 and below 1", self.dropout)
        for option in ("rank_pattern", "alpha_pattern"):
            for value in getattr(self, option).values():
                require(value > 0, option, "positive numbers by name", getattr(self, option))
        require(0 < self.tolerance < 0.1, "tolerance", "between 0 and 0.1", self.tolerance)
        require(
            self.schema_version <= SCHEMA_VERSION,
            "schema_version",
            f"at most {SCHEMA_VERSION}; it was saved by a newer basis-zoo, upgrade to load it",
            self.schema_version,
        )
        check_layers(self.layers)
        if not self.from_file:
            check_blocks(self.target_modules, self.layers_to_transform, self.layers_pattern)
        require_one_of("sharing", self.sharing, LEVELS)
        require_one_of("sharing_scope", self.sharing_scope, SCOPES)
        require_one_of("bias", self.bias, BIASES)
        require_one_of("path", self.path, PATHS)
        require_one_of("rounding", self.rounding, ROUNDINGS)
        require_one_of("gradient_dtype", self.gradient_dtype, GRADIENT_DTYPES)
        if self.rounding == "stochastic" and self.path == "split":
            raise ValueError(
                "`rounding` 'stochastic' rounds W', which `path` 'split' does not form: "
                "take path 'merged', or rounding 'nearest'"
            )
        try:
            self.phi.check(self.init_weights)
            check_depth_start(self)
            check_phi_pattern(self)
            check_forms(self)
        except TypeError as error:  # an option that a part lacks, or whose type it cannot take
            raise ValueError(f"the options of phi cannot be used: {error}") from error

    def to_dict(self) -> dict[str, Any]:
        """PEFT's dictionary, with the interval as a list, as JSON stores it."""
        return super().to_dict() | {"interval": list(self.interval)}

    @property
    def phi(self) -> PhiConfig:
        """The options of phi, as one value."""
        return PhiConfig(**{name: getattr(self, name) for name in PHI_OPTIONS})
