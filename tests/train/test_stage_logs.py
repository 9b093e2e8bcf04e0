"""Where training processes print."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from pipeline.store import RunFolder, task_folder
from pipeline.train.stage import _logs


def test_tasks_that_train_at_the_same_time_have_logs_of_their_own_which_others_cannot_read(tmp_path: Path) -> None:
    places = [
        _logs(cast(Any, SimpleNamespace(folder=folder)))
        for folder in (RunFolder(tmp_path), *(RunFolder(tmp_path, task_folder(name)) for name in ("a/0", "a/1")))
    ]
    assert len(set(places)) == 3
    assert {tmp_path / "logs", *(place.parent for place in places[1:])} == {tmp_path / "logs"}
    assert (tmp_path / "logs").stat().st_mode & 0o077 == 0
