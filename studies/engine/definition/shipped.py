"""The studies and profiles that ship, by name. Imports nothing heavy: `--help` needs it."""

from pathlib import Path

from studies.engine.definition.yaml_source import read_yaml
from studies.engine.errors import StudyError

STUDIES = Path(__file__).resolve().parents[2]
PROFILES = STUDIES / "profiles"


def list_profiles() -> list[str]:
    """Names of the profiles that ship, sorted."""
    return sorted(path.stem for path in PROFILES.glob("*.yaml"))


def shipped_studies() -> dict[str, str]:
    """Name and question of every study that ships."""
    files = sorted(STUDIES.glob("*.yaml"))
    return {path.stem: str(read_yaml(path).get("question", "")) for path in files}


def find_study(given: str) -> Path:
    """The file that `given` means: a path, or the name of a study that ships.

    Raises `StudyError` where it is neither.
    """
    path = Path(given)
    ships = f"{path.parent.name}/{path.name}" == f"studies/{path.name}"
    if ships and not path.exists() and (STUDIES / path.name).is_file():
        raise StudyError(f"{given}: there is no such file here; the study that ships: {path.stem}")
    if path.exists() or path.suffix in (".yaml", ".yml") or path.name != given:
        return path
    names = [file.stem for file in sorted(STUDIES.glob("*.yaml"))]
    if given in names:
        return STUDIES / f"{given}.yaml"
    from studies.sections import unlike  # with pydantic, which `--help` and `list` do without

    if Path(f"{given}.yaml").is_file():
        raise StudyError(f"{given}: no study of this name ships; the file here: {given}.yaml")
    message = f"{given}: no file, and no study of this name ships"
    raise StudyError(unlike(message, given, names, "Studies"))
