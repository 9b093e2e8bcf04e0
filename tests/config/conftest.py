"""A conf/ of a test's own."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from pipeline.config import compose as module
from pipeline.config.compose import conf_folder


@pytest.fixture
def conf_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of conf/ that a test may spoil."""
    copy = tmp_path / "conf"
    shutil.copytree(conf_folder(), copy)
    monkeypatch.setattr(module, "conf_folder", lambda: copy)
    return copy
