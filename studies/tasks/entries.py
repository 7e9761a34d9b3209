"""The values that the keys of a `task:` entry may have."""

from typing import Any

_TEXTS = ("name", "label", "template", "data")
_CHOICES = {
    "scoring": ("sum", "normalised"),
    "evaluate": ("loglikelihood", "generation", "both"),
    "train_on_inputs": (True, False),
    "augment": (True, False),
}


def checked(key: str, value: Any) -> Any:
    """`value` as `TaskSpec` holds it.

    Raises:
        ValueError: it is of the wrong kind or out of range.
    """
    if key in _CHOICES:
        if value not in _CHOICES[key] or (isinstance(value, int) and not isinstance(value, bool)):
            allowed = ", ".join(str(choice).lower() for choice in _CHOICES[key])
            raise ValueError(f"task: `{key}` must be one of {allowed}, got {value!r}")
        return value
    if key in ("text", "choices", "prompts") and isinstance(value, list | tuple):
        return _names(key, value)
    if key in ("text", "choices", *_TEXTS):
        if not isinstance(value, str) or not value:
            raise ValueError(f"task: `{key}` must be a non-empty string, got {value!r}")
        return value
    if key == "prompts":
        raise ValueError(f"task: `prompts` must be a list of templates, got {value!r}")
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError(f"task: `{key}` must be an integer of at least 1, got {value!r}")
    return value


def _names(key: str, value: list[Any] | tuple[Any, ...]) -> tuple[str, ...]:
    if key == "text" and not 1 <= len(value) <= 2:
        raise ValueError(f"task: `text` must name one or two columns, got {value!r}")
    if key == "choices" and len(value) < 2:
        raise ValueError(f"task: `choices` must name two or more columns, got {value!r}")
    names = tuple(map(str, value))
    if key == "prompts" and not all("{}" in name for name in names):
        raise ValueError(f"task: every one of `prompts` must contain {{}}, got {value!r}")
    return names
