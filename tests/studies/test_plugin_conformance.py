"""A study that names a plug-in's basis that fails a check is refused before any training."""

from pathlib import Path

import pytest

from studies.engine.definition.checks import check_adapter
from studies.engine.definition.plugins import load_plugins

PLUGIN = """
from basis_zoo import LocationScaleBasis, register_basis

@register_basis("{name}")
class Planted(LocationScaleBasis):
    '''A family planted by a test.'''

    def psi(self, z):
        return {psi}
"""


def plant(folder: Path, name: str, psi: str) -> None:
    file = folder / f"{name}.py"
    file.write_text(PLUGIN.format(name=name, psi=psi))
    load_plugins([str(file)])


def test_a_basis_with_a_pole_is_refused_with_the_check_named(tmp_path: Path) -> None:
    plant(tmp_path, "planted_pole", "1 / z")
    with pytest.raises(ValueError, match=r"'planted_pole' fails .* finite: .*-inf at -3"):
        check_adapter({"method": "basis", "basis": "planted_pole"})


def test_a_basis_without_oracle_is_accepted(tmp_path: Path) -> None:
    plant(tmp_path, "planted_bell", "1 / (1 + z.square())")
    check_adapter({"method": "basis", "basis": "planted_bell", "num_basis": 12})
