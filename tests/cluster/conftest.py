"""A real Slurm for the tests of this folder, started once; they skip, with the reason, where there can be none."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from slurm_site import SlurmSite, missing


@pytest.fixture(scope="session")
def site() -> Iterator[SlurmSite]:
    reason = missing()
    if reason:
        pytest.skip(f"no Slurm: {reason}")
    root = Path(tempfile.mkdtemp(prefix="slurm-"))  # a short path: sockets lie below it
    root.chmod(0o755)  # munged insists that others can reach its socket
    try:
        with SlurmSite(root / "site") as made:
            yield made
    finally:
        shutil.rmtree(root)
