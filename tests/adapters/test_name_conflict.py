"""AdapterHub's package of the same name is told of, once, in one line."""

import importlib
import warnings

import pytest

import adapters


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """As `pip install adapters` leaves it: what importlib.metadata reads."""
    folder = tmp_path / "adapters-1.3.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: adapters\nVersion: 1.3.0\n")
    monkeypatch.syspath_prepend(tmp_path)


def test_the_import_says_so_and_how_to_live_with_it(installed):
    with pytest.warns(UserWarning, match=r"AdapterHub's `adapters` 1\.3\.0.*two envir") as told:
        importlib.reload(adapters)
    (message,) = {str(warning.message) for warning in told}
    assert "pip uninstall adapters" in message and "\n" not in message


def test_alone_it_is_silent():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        importlib.reload(adapters)
