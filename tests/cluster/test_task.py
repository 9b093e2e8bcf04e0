"""A task that is told to make room, on this machine; and a job whose run another still holds."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import huggingface_hub.constants as hub
import pytest
from commands import run_main
from finished_run import finish, words
from rich.console import Console

from pipeline.cluster import task as module
from pipeline.cluster.task import LAST_S, Notice, run_task, status_of
from pipeline.config.compose import load
from pipeline.files import read_json, write_json
from pipeline.plan.kept import keep_plan
from pipeline.records import Dose
from pipeline.schema import TrackConfig
from pipeline.track import tracker as tracking
from pipeline.track.tracker import NullTracker
from pipeline.workspace import Workspace

HOLD = (
    "import sys, time\nfrom pathlib import Path\nfrom pipeline.store import RunFolder\n"
    "with RunFolder(Path(sys.argv[1])).locked():\n    print('held', flush=True)\n    time.sleep(float(sys.argv[2]))\n"
)


@pytest.fixture
def _as_before(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What a task changes of its process, it leaves: it ends."""
    monkeypatch.setattr(hub, "HF_HUB_OFFLINE", hub.HF_HUB_OFFLINE)
    numbers = (signal.SIGUSR1, signal.SIGTERM)
    before = [signal.getsignal(number) for number in numbers]
    yield
    for number, handler in zip(numbers, before, strict=True):
        signal.signal(number, handler)


class SlowTracker(NullTracker):
    """Tracks nothing, tells the task to make room between two rungs, and notes how its end finds the task."""

    def __init__(self, config: TrackConfig, root: Path) -> None:
        self.config, self.root = config, root
        self.found: list[tuple[str, float]] = []

    def step(self, arm: str, seed: int, dose: Dose, values: Mapping[str, float]) -> None:
        if dose.steps == 5:
            os.kill(os.getpid(), signal.SIGUSR1)

    def close(self) -> None:
        self.found.append((status_of(self.root, "compliance/0")["state"], self.config.finish_timeout_s))


@pytest.mark.usefixtures("_as_before")
def test_a_task_says_that_it_is_paused_before_its_tracker_takes_the_rest_of_the_notice(
    tmp_path: Path, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[SlowTracker] = []

    def slow(config: TrackConfig, *, run_dir: Path, **_: Any) -> SlowTracker:
        made.append(SlowTracker(config, run_dir))
        return made[-1]

    monkeypatch.setattr(tracking, "tracker", slow)
    monkeypatch.setattr(module, "_devices", lambda _: {"NVIDIA H100"})
    more = ("arms.compliance.training.max_steps=8", "track=wandb_offline", "cluster.slurm.signal_s=30")
    job = ("cluster.kind=slurm", "cluster.job=train", "cluster.task=compliance/0", "stages=[train]")
    work = Workspace(load([*words(tmp_path, tiny_folder), *more, *job]), Console(quiet=True))
    keep_plan(work)
    write_json(work.folder.own / "status.json", {"state": "paused", "devices": ["NVIDIA A100"]})  # its first start
    assert run_task(work) == "paused"
    ((state, left),) = made[0].found
    assert state == "paused"
    assert 1.0 <= left <= 30.0 - LAST_S, "less than the 60 s that track.finish_timeout_s allows"
    assert work.config.track.finish_timeout_s == 60.0, "the plan's own stays as it is"
    said = status_of(work.folder.root, "compliance/0")
    assert (said["state"], said["devices"]) == ("paused", ["NVIDIA A100", "NVIDIA H100"])
    assert read_json(work.folder.own / "parked.json")["step"] in (5, 6)


@pytest.mark.usefixtures("_as_before")
def test_what_is_left_of_a_notice_falls_from_its_first_signal_on() -> None:
    notice = Notice()
    assert (notice.came(), notice.left(60.0)) == (False, 60.0 - LAST_S)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(0.1)
    os.kill(os.getpid(), signal.SIGUSR1)
    assert notice.came()
    assert notice.left(60.0) <= 59.9 - LAST_S
    assert notice.left(LAST_S) == 1.0


def test_a_job_waits_for_a_lock_that_outlives_who_held_it(
    tmp_path: Path, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """A file system lets a dead node's lock go only after a minute or two; Slurm starts the job anew before."""
    overrides = words(tmp_path, tiny_folder)
    root = finish(overrides)
    run_main([*overrides, "stages=[score]"], monkeypatch, capfd)
    with subprocess.Popen([sys.executable, "-c", HOLD, str(root), "4"], stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        asked = [*overrides, "stages=[analyse]"]
        assert "another holdfast is working in" in run_main(asked, monkeypatch, capfd, 2).err
        run_main([*asked, "cluster.kind=slurm", "cluster.job=report"], monkeypatch, capfd)
        assert holder.wait(20) == 0
    assert "another holdfast is working in" in caplog.text
    assert (root / "verdict.json").exists()
