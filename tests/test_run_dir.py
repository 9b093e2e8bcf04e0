"""Where a run folder cannot be written, the option is told that named it."""

from __future__ import annotations

from pathlib import Path

import pytest
from rich.console import Console

from pipeline.config.compose import load
from pipeline.errors import UserError
from pipeline.workspace import Workspace


@pytest.mark.parametrize("key", ["run.dir", "run.root"])
@pytest.mark.parametrize("below", ["", "/x"])
def test_a_file_where_a_run_folder_should_be_is_told_by_the_option_that_named_it(
    tmp_path: Path, key: str, below: str
) -> None:
    (tmp_path / "file").write_text("mine")
    work = Workspace(load([f"{key}={tmp_path}/file{below}"]), Console())
    with pytest.raises(UserError) as caught, work._folder("0" * 64).locked():
        pass
    assert caught.value.what.startswith(f"{key}: cannot write the run folder {tmp_path}/file")
    assert caught.value.remedy == f"name another with {key}="
    assert (tmp_path / "file").read_text() == "mine"
