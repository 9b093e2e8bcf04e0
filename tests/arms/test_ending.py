"""A kill after a ladder's last rung, before or after the ledger says that it ended: nothing of the ladder is lost."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from finished_run import words

STATE = {"optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json", "training_args.bin"}


class KilledError(BaseException):
    """Stands in for SIGKILL at one place."""


@pytest.fixture
def overrides(tmp_path: Path, tiny_folder: Path) -> list[str]:
    more = ["arms.compliance.training.max_steps=4", "stages=[train]", f"run.dir={tmp_path / 'run'}"]
    return [*words(tmp_path, tiny_folder), *more]


@contextmanager
def opened(overrides: list[str]) -> Iterator[Any]:
    """The run as a new process finds it."""
    from rich.console import Console

    from pipeline.config.compose import load
    from pipeline.plan.kept import keep_plan
    from pipeline.workspace import Workspace

    work = Workspace(load(overrides), Console(file=io.StringIO()))
    with work.folder.locked():
        keep_plan(work)
        yield work


def climb(overrides: list[str]) -> None:
    from pipeline.track.tracker import NullTracker
    from pipeline.train.stage import train

    with opened(overrides) as work:
        train(work, NullTracker())


def room_for(steps: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the budget end after so many further steps."""
    from pipeline.ledger import Allowance

    asked: list[int] = []

    def fits(*_: Any) -> bool:
        asked.append(1)
        return len(asked) <= steps

    monkeypatch.setattr(Allowance, "fits", fits)


def kill_at_the_end(patch: pytest.MonkeyPatch) -> None:
    from pipeline.ledger import Attempt

    write = Attempt.write

    def written(self: Attempt, status: Any) -> None:
        if (self.stage, status) == ("train", "done"):
            raise KilledError
        write(self, status)

    patch.setattr(Attempt, "write", written)


def state_left(work: Any) -> set[str]:
    return {path.name for path in work.folder.weights.rglob("*")} & STATE


def test_a_kill_before_the_ledger_says_that_the_ladder_ended_leaves_it_standing(
    overrides: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    room_for(3, monkeypatch)
    with monkeypatch.context() as patch:
        kill_at_the_end(patch)
        with pytest.raises(KilledError):
            climb(overrides)
    with opened(overrides) as work:
        before = [(rung.id, rung.sha256) for rung in work.rungs()]
        rows = list(work.folder.rungs.rows())
        assert [rung.step for rung in work.rungs() if rung.role == "rung"] == [1, 2, 3], (
            "the last where the budget ended"
        )
        assert work.ledger.ending("train", "compliance", 0) is None
        assert state_left(work) == STATE
    room_for(0, monkeypatch)
    climb(overrides)
    with opened(overrides) as work:
        assert [(rung.id, rung.sha256) for rung in work.rungs()] == before
        assert list(work.folder.rungs.rows()) == rows, "none was void"
        assert work.ledger.ending("train", "compliance", 0) == "budget"
        assert not state_left(work)


@pytest.mark.parametrize("alone", [False, True])
def test_a_kill_before_the_state_is_deleted_is_made_good(
    alone: bool, overrides: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipeline.arms.base import Pause
    from pipeline.plan.make import tasks
    from pipeline.records import Rung
    from pipeline.track.tracker import NullTracker
    from pipeline.train import stage as train

    def kill(*_: Any) -> None:
        raise KilledError

    room_for(2, monkeypatch)
    with monkeypatch.context() as patch:
        patch.setattr(train, "_drop_state", kill)
        with pytest.raises(KilledError):
            climb(overrides)
    parked = Rung("p", "compliance", 0, 3, path="weights/compliance/s0/checkpoint-3")
    with opened(overrides) as work:
        before = work.rungs()
        assert work.ledger.ending("train", "compliance", 0) == "budget"
        assert state_left(work) == STATE
        if alone:  # as a cluster's task
            (work.folder.root / parked.path).mkdir()
            pause = Pause(lambda: False, lambda _: None, parked)
            assert train.train_one(work, NullTracker(), tasks(work.config)[0], pause) == "budget"
        else:
            train.train(work, NullTracker())
        assert not state_left(work)
        assert not (work.folder.root / parked.path).exists()
        assert work.rungs() == before
        assert len([row for row in work.ledger.attempts() if row["stage"] == "train"]) == 1, "nothing was trained again"


def test_checkpoints_that_nobody_needs_are_overwritten_before_they_go(
    overrides: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipeline.arms.base import Pause
    from pipeline.errors import UserError
    from pipeline.plan.make import tasks
    from pipeline.records import Rung
    from pipeline.track.tracker import NullTracker
    from pipeline.train.stage import train_one

    def written(name: str) -> Path:
        """Return a second name of a file of a checkpoint."""
        place = tmp_path / "run/weights/compliance/s0" / name
        place.mkdir(parents=True)
        (place / "adapter_model.safetensors").write_bytes(b"stripped")
        (tmp_path / name).hardlink_to(place / "adapter_model.safetensors")
        return tmp_path / name

    room_for(2, monkeypatch)
    with opened(overrides):
        half_written = written("checkpoint-9")
    climb(overrides)
    assert not (tmp_path / "run/weights/compliance/s0/checkpoint-9").exists()
    assert set(half_written.read_bytes()) == {0}
    parked = Rung("p", "compliance", 0, 3, path="weights/compliance/s0/checkpoint-3")
    second_name = written("checkpoint-3")
    with opened(overrides) as work:
        for _ in range(2):  # and again, where a kill came before the note of the pause went
            pause = Pause(lambda: False, lambda _: None, parked)
            train_one(work, NullTracker(), tasks(work.config)[0], pause)
        assert not (work.folder.root / parked.path).exists()
        assert set(second_name.read_bytes()) == {0}
        (tmp_path / "mine").mkdir()
        (tmp_path / "mine/file").write_text("mine")
        elsewhere = Rung("p", "compliance", 0, 3, path="../mine")
        with pytest.raises(UserError, match="not below weights"):
            train_one(work, NullTracker(), tasks(work.config)[0], Pause(lambda: False, lambda _: None, elsewhere))
    assert (tmp_path / "mine/file").read_text() == "mine"


def test_a_pause_whose_checkpoint_was_half_destroyed_is_not_gone_on_from(overrides: list[str]) -> None:
    """A kill came while it was destroyed, at the ladder's end; then a rung was lost: the ladder is climbed again."""
    from pipeline.arms.base import Pause
    from pipeline.files import file_sha256
    from pipeline.plan.make import tasks
    from pipeline.records import ADAPTER_FILE, Rung
    from pipeline.track.tracker import NullTracker
    from pipeline.train.stage import train_one

    climb(overrides)
    with opened(overrides) as work:
        before = [(rung.id, rung.sha256) for rung in work.rungs()]
        first = work.folder.root / next(rung for rung in work.rungs() if rung.step == 1).path
        (first / ADAPTER_FILE).unlink()
        half = first.with_name("checkpoint-3")
        half.mkdir()
        (half / ADAPTER_FILE).write_bytes(bytes(100))
        sha = file_sha256(half / ADAPTER_FILE)
        parked = Rung("p", "compliance", 0, 3, path=str(half.relative_to(work.folder.root)), sha256=sha)
        assert train_one(work, NullTracker(), tasks(work.config)[0], Pause(lambda: False, lambda _: None, parked))
        assert [(rung.id, rung.sha256) for rung in work.rungs()] == before
        assert not half.exists()
