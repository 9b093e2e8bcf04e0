"""A finished run, and the same run exported, once for all tests that read them."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from exported_run import review, words
from finished_run import finish


@pytest.fixture(scope="session")
def master(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path) -> Path:
    """A scored and analysed run; to be copied, not changed."""
    folder = tmp_path_factory.mktemp("scored")
    finish(words(folder, tiny_folder))
    review([*words(folder, tiny_folder), "stages=[score,analyse]"])
    return folder


@pytest.fixture(scope="session")
def exported(master: Path, tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The run judged by two, exported without text, and what was said; nothing may change it."""
    place = tmp_path_factory.mktemp("read-only") / "place"
    shutil.copytree(master, place)
    lax = ["+judge@panel.lax=pattern", 'panel.lax.refused=["i can\'t"]', "panel.lax.partial=[]"]
    review([*words(place, tiny_folder), "stages=[score,analyse]", *lax])
    return place, review([*words(place, tiny_folder), "stages=[export]"])
