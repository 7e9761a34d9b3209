"""The version that is installed: it stands once, in pyproject.toml."""

from importlib.metadata import PackageNotFoundError, version


def installed_version() -> str:
    """As the package's metadata has it; `0+unknown` in a checkout that is not installed."""
    try:
        return version("basis-zoo")
    except PackageNotFoundError:
        return "0+unknown"
