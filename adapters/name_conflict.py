"""AdapterHub's package on PyPI is called `adapters` too."""

import warnings
from importlib.metadata import PackageNotFoundError, version


def warn_of_name_conflict() -> None:
    """Warn where AdapterHub's `adapters` is installed beside basis-zoo."""
    try:
        theirs = version("adapters")
    except PackageNotFoundError:
        return
    warnings.warn(
        f"AdapterHub's `adapters` {theirs} is installed too; `import adapters` finds one of the "
        "two, here basis-zoo's: keep them in two environments, or `pip uninstall adapters` and "
        "install basis-zoo again",
        stacklevel=3,
    )
