"""The section `adapter` of a study: what all methods share. A method checks its other options."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, Strict, ValidationError

Names = str | list[str]
Whole = Annotated[int, Strict()]
Number = Annotated[float, Strict()]


class AdapterSection(BaseModel):
    """The method, and where and how large it is; null leaves an option to the method."""

    model_config = ConfigDict(extra="allow", frozen=True, use_attribute_docstrings=True)

    method: Annotated[str, Field(examples=["basis", "lora"])]
    """A name of `docs/methods.md`."""
    r: Annotated[Whole | None, Field(examples=[8])] = None
    """Rank of the factors."""
    alpha: Annotated[Number | None, Field(examples=[16])] = None
    """Scale of the update: most methods multiply by alpha / r."""
    dropout: Annotated[Annotated[Number, Field(ge=0, lt=1)] | None, Field(examples=[0.05])] = None
    """Share of the adapter's input that is zeroed while training; a method without it takes 0."""
    target_modules: Annotated[Names | None, Field(examples=[["query", "value"], "attention"])] = (
        None
    )
    """Linear layers to adapt: a word (attention, mlp, qkv, gate_up, all), names, or one pattern."""
    exclude_modules: Annotated[Names | None, Field(examples=[["lm_head"]])] = None
    """Names, or one pattern, of modules that are left out."""
    layers_to_transform: Annotated[Whole | list[Whole] | None, Field(examples=[[0, 1]])] = None
    """Blocks to adapt, by index from 0; null: all of them."""
    layers: Annotated[str | list[Whole] | None, Field(examples=["odd", "first_last_2", [0, 5]])] = (
        None
    )
    """Blocks to adapt: all, odd, even, `first_last_<k>`, or indices from 0; null: all."""
    modules_to_save: Annotated[list[str] | None, Field(examples=[["classifier"]])] = None
    """Modules that are trained and saved whole; null: the task's head."""


COMMON_OPTIONS = tuple(name for name in AdapterSection.model_fields if name != "method")
"""Options that say where and how large an adapter is; arms of other methods inherit them."""

_EXPECTED = {
    "string_type": "text",
    "int_type": "a whole number",
    "float_type": "a number",
    "list_type": "a list",
    "greater_than_equal": "at least 0",
    "less_than": "below 1",
}
"""Words for pydantic's types of error."""


def check_common(adapter: dict[str, Any]) -> None:
    """Refuse an option that all methods share where its value is of the wrong kind.

    Raises:
        ValueError: The message names the option, what is expected, and what was given.
    """
    try:
        AdapterSection.model_validate(adapter)
    except ValidationError as error:
        errors = error.errors(include_url=False)
        option = errors[0]["loc"][0]
        of_option = (each for each in errors if each["loc"][0] == option)
        kinds = dict.fromkeys(_EXPECTED.get(each["type"], each["msg"]) for each in of_option)
        raise ValueError(
            f"option {option!r} must be {' or '.join(kinds)}, got {adapter.get(str(option))!r}"
        ) from error
