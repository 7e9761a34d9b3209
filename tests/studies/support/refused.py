"""What is said of a study that is refused when it is read."""

from pathlib import Path

import pytest

from studies.engine.definition.schema import load_study
from studies.engine.errors import StudyError


def refusal(folder: Path, study: str, old: str, new: str) -> str:
    """What is said of `study` with `new` in the place of `old`; the file is s.yaml in `folder`."""
    assert old in study
    path = folder / "s.yaml"
    path.write_text(study.replace(old, new))
    with pytest.raises(StudyError) as caught:
        load_study(path)
    return str(caught.value)
