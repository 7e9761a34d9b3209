"""The page of all methods, made from the registry: `python -m tools.methods_page FILE`."""

from typing import Any

from adapters.methods.registry import Method, get_method, list_methods
from tools.pages import prose, table_row, write_page

_ELSEWHERE = frozenset({"qalora_group_size", "total_step", "schema_version", "tolerance"})
"""Numbers in PEFT's configurations that other methods use, or that are no hyperparameters."""

_HEAD = """# Methods

Every name below can be the `method` of an arm. Made by `python -m tools.methods_page`; a test
compares this file with the registry.

- *Defaults* are the numbers in force when an arm says nothing; `r`, `alpha` and the options that
  place adapters are inherited from the study by all methods that have them.
- *Merge*: whether `adapters.merge_and_unload` can put the update into the weights.
- *LoRA*: whether `peft.convert_to_lora` and `save_as_lora` give the same model at full rank.
- *PARA*: whether the update has rank r, so that its ranks can be cut after training.
- *Matched by*: the option that `match: parameters` chooses.

| method | update of W (or of the output) | defaults | merge | LoRA | PARA | matched by | source |
|---|---|---|---|---|---|---|---|
"""


def defaults(method: Method) -> dict[str, Any]:
    """The numeric hyperparameters of `method` under our names, as an empty arm would have them."""
    config = method.build({})
    if config is None:
        return {}
    values = {}
    for option in method.options():
        value = getattr(config, method.renamed.get(option, option), None)
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if number and option not in _ELSEWHERE and not (value == 0 and option != "seed"):
            values[option] = value
    return values


def page() -> str:
    """The whole page, Markdown."""
    rows, notes = [], []
    for name in list_methods():
        method = get_method(name)
        numbers = ", ".join(f"{option} {value:g}" for option, value in defaults(method).items())
        marks = ("yes" if m else "no" for m in (method.mergeable, method.convertible))
        para = "yes" if method.low_rank else "no"
        cells = (f"`{name}`", method.formula, numbers or "none", *marks, para, method.size or "—")
        rows.append(f"{table_row((*cells, method.source or 'ours'))}\n")
        if method.note:
            notes.append(f"{prose(f'- `{name}`: {method.note}.', indent='  ')}\n")
    return _HEAD + "".join(rows) + "\n## What to know\n\n" + "".join(notes)


if __name__ == "__main__":
    write_page("methods_page", page, "docs/methods.md")
