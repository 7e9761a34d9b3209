"""Where a user's rows are: in a file or folder of this machine, or on the hub."""

from collections.abc import Sequence
from pathlib import Path

from studies.archives.contents import files_below
from studies.tasks.table_files import is_table, suffix_of
from studies.tasks.values import SHOWN

SPLITS = {"dev": "validation", "val": "validation", "valid": "validation"}
"""Names of splits that stand for another."""
_NAMED = ("train", "validation", "test", *SPLITS)
_CARDS = ("dataset_info", "dataset_infos", "dataset_dict", "state")
"""JSON that `datasets` writes beside the rows."""


def local_path(place: str) -> Path | None:
    """The file or folder that `place` names; None where it is a hub id.

    What begins with a dot, slash or tilde is a path; whatever else is one where it exists, as for
    `datasets` itself.
    """
    path = Path(place).expanduser()
    return path if place.startswith((".", "/", "~")) or path.exists() else None


def split_files(folder: Path) -> dict[str, Path]:
    """The table files of a folder by the split that each is named after, in lower case.

    {} where `datasets` is to read it: there is no table, or Parquet alone, whose types are its own,
    and with names of other kinds or a card.

    Raises:
        ValueError: a file of text is not named after a split, or shares its split with another.
    """
    files = tables_below(folder)
    typed = all(suffix_of(file.name) == ".parquet" for file in files)
    named = {split_of(file): file for file in files}
    strays = [file for file in files if split_of(file) not in _NAMED]
    twice = [file for file in files if named[split_of(file)] != file]
    cards = ("README.md", *(f"{name}.json" for name in _CARDS))
    if typed and (strays or twice or any((folder / card).exists() for card in cards)):
        return {}
    if strays or twice:
        wrong = (strays or twice)[0]
        names = ", ".join(str(file.relative_to(folder)) for file in files[:SHOWN])
        more = f" and {len(files) - SHOWN} more" if len(files) > SHOWN else ""
        raise ValueError(
            f"task: {wrong} {'is named after no split' if strays else 'is one of two files'}: a "
            f"folder holds one file a split, such as train.csv, valid.csv and test.csv, and no "
            f"other table; it has {names}{more}. Rename it, or move it elsewhere"
        )
    return named


def tables_below(folder: Path) -> Sequence[Path]:
    """The table files of a folder and those in it, without what is hidden or describes the rows."""
    return [
        file
        for name, file in files_below(folder).items()
        if is_table(file.name)
        and not any(part.startswith("__") for part in name.split("/"))
        and not (suffix_of(file.name) == ".json" and split_of(file) in _CARDS)
    ]


def split_of(file: Path) -> str:
    """The name of a file without its endings, in lower case."""
    return file.name.lower().partition(".")[0]
