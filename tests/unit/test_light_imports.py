"""What a process of a node, or a command, has no use for is not imported: each megabyte is there once a process."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = ("alembic", "dbos", "highdicom", "monai", "numpy", "pydicom", "pynetdicom", "scipy", "sqlalchemy", "torch")
PIXELS = ("dbos", "highdicom", "monai", "pynetdicom", "scipy", "sqlalchemy", "torch")

LIGHT = {
    "dicomnode.cli.root": HEAVY,
    **{f"dicomnode.cli.{name}": HEAVY for name in ("node", "roles", "studies", "jobs", "deliveries", "destinations")},
    **{f"dicomnode.cli.{name}": PIXELS for name in ("models", "rules", "sources")},
    "dicomnode.node.up": HEAVY,
    "dicomnode.adapters.db.repositories": tuple(name for name in HEAVY if name != "sqlalchemy"),
    "dicomnode.adapters.triton.server": tuple(name for name in HEAVY if name != "numpy"),
    "dicomnode.adapters.dimse.storage_scp": ("dbos", "highdicom", "monai", "scipy", "sqlalchemy", "torch"),
}


@pytest.mark.parametrize("module", LIGHT)
def test_a_module_imports_no_more_than_it_needs(module: str) -> None:
    code = f"import sys, {module}; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert module in loaded
    assert not set(LIGHT[module]) & set(loaded)


def test_the_help_of_all_commands_imports_none_of_them() -> None:
    code = (
        "import sys\nfrom dicomnode.cli.root import main\nsys.argv = ['dicomnode', '--help']\n"
        "try: main()\nexcept SystemExit: print(*sys.modules)"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    loaded = set(shown.splitlines()[-1].split())
    assert "Models: bundles" in shown
    assert "dicomnode.cli.root" in loaded
    assert not loaded & {f"dicomnode.cli.{name}" for name in ("models", "rules", "studies", "node", "check")}
