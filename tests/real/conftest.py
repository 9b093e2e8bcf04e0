"""What the tests of the real thing share: running `holdfast` as a user does."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from real_runs import Finished, command

from tests import warm as warmed


def finished(root: Path, said: str, began: float) -> Finished:
    """Return the only run in `root`."""
    (folder,) = [path for path in root.iterdir() if path.is_dir()]
    return Finished(folder, said, time.monotonic() - began)


@pytest.fixture(scope="session")
def holdfast() -> Callable[..., Finished]:
    """Run `holdfast WORDS` in a process of its own and expect success."""

    def run(root: Path, *words: str) -> Finished:
        began = time.monotonic()
        done = subprocess.run(
            command(f"run.root={root}", *words), capture_output=True, text=True, timeout=1200, check=False
        )
        assert done.returncode == 0, done.stderr[-4000:]
        return finished(root, done.stderr, began)

    return run


@pytest.fixture(scope="session")
def forked(warm: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Finished]:
    """Run `holdfast WORDS` as `holdfast` does, in a process that need not import anything first."""
    logs = tmp_path_factory.mktemp("said")

    def run(root: Path, *words: str) -> Finished:
        began, log = time.monotonic(), logs / f"{len(list(logs.iterdir()))}.log"
        code = warmed.start(["holdfast", f"run.root={root}", *words], warm, log).wait(1200)
        assert code == 0, log.read_text()[-4000:]
        return finished(root, log.read_text(), began)

    return run


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory, holdfast: Callable[..., Finished]) -> Finished:
    """The README's demo, run once for all tests that look at its results."""
    return holdfast(tmp_path_factory.mktemp("demo"))
