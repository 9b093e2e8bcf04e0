"""What is forked warm is a process of its own: exit code, output, environment, folder and death as a started one's."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from tests.warm import Process, start

Warm = Callable[[str], Path]


def test_a_fault_of_the_user_is_exit_code_2_and_one_message(warm: Warm, tmp_path: Path):
    assert start(["holdfast", "nonsense=1", f"run.root={tmp_path}"], warm, tmp_path / "said").wait(60) == 2
    said = (tmp_path / "said").read_text()
    assert "nonsense" in said
    assert "Traceback" not in said


def test_it_stands_in_its_own_folder_and_session_and_a_signal_ends_it(
    warm: Warm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("MINE", "of this test")
    waits = "pathlib.Path('there').write_text(os.environ['MINE']); time.sleep(60)"
    words = ["timeit", "-n1", "-r1", "-s", "import os, pathlib, time", waits]
    process: Process = start(words, warm, tmp_path / "said", cwd=tmp_path)
    seen = psutil.Process(process.pid)
    there = tmp_path / "there"
    while process.poll() is None and not (there.exists() and there.read_text()):
        time.sleep(0.02)
    assert there.read_text() == "of this test"
    assert (seen.cwd(), os.getsid(process.pid)) == (str(tmp_path), process.pid)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait(10) == -signal.SIGKILL
