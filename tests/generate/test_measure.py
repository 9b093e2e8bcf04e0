"""The generate stage where no server may be started: destruction of weights has begun, or the budget is spent."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any

import pytest
from commands import run_main
from finished_run import read
from measured_run import lose_a_reply, opened, said
from measured_run import measure as made

from pipeline.contain import begun, destroyed, weights
from pipeline.errors import UserError
from pipeline.generate import stage as measure
from pipeline.generate.matrix import journal
from pipeline.generate.stage import generate
from pipeline.ledger import Attempt
from pipeline.track.tracker import NullTracker

AFTER = "stages=[train,generate,score,analyse,report]"


@pytest.fixture(scope="module")
def master(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path) -> Path:
    """A measured run whose adapters are still there. Tests work on copies of it."""
    folder = tmp_path_factory.mktemp("measured")
    made(folder, tiny_folder)
    return folder


@pytest.fixture
def run(master: Path, tmp_path: Path) -> Path:
    shutil.copytree(master, tmp_path, dirs_exist_ok=True)
    (folder,) = (tmp_path / "runs").iterdir()
    return folder


@pytest.fixture
def work(run: Path, tmp_path: Path, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return the run's workspace; whoever starts a server fails."""

    def no_server(*_: object) -> None:
        raise AssertionError("a server was started")

    monkeypatch.setattr(measure, "Server", no_server)
    return opened(said(run, tmp_path, tiny_folder))


def end_on_budget(work: Any) -> None:
    """Record that the budget ended generation before the last reply."""
    with work.ledger.attempt(measure.STAGE) as attempt:
        attempt.detail = "budget"
    lose_a_reply(work)


def cut_destruction_off(work: Any, after: int) -> None:
    """Let the destruction be killed when `after` adapters are gone."""
    left = after

    class Killed(BaseException):
        pass

    def dying(folder: Path) -> None:
        nonlocal left
        if left == 0:
            raise Killed
        left -= 1
        real(folder)

    real = weights.destroy
    rungs = work.rungs()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(weights, "destroy", dying)
        with pytest.raises(Killed):
            weights.contain(work.folder, rungs, work.config.contain)


@pytest.mark.parametrize("after", [0, 1, 3])  # adapters; 3: all, but not what else lies below weights/
def test_a_kill_within_the_destruction_is_made_good_and_the_run_is_scored(
    after: int, run: Path, work: Any, tmp_path: Path, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    end_on_budget(work)
    cut_destruction_off(work, after)
    assert (begun(work.folder), destroyed(work.folder)) == (True, None)
    run_main([*said(run, tmp_path, tiny_folder), AFTER], monkeypatch, capsys)
    assert destroyed(work.folder) is not None
    assert not work.folder.weights.exists()
    assert read(run, "verdict.json")["controls"]["adapter_parity"] == "pass"
    assert (run / "report.html").exists()


def test_a_kill_after_the_last_reply_leaves_no_measuring_that_is_not_done(
    run: Path, work: Any, tmp_path: Path, tiny_folder: Path
) -> None:
    def again() -> Any:
        return opened(said(run, tmp_path, tiny_folder))

    cut_off = work.ledger.attempt(measure.STAGE)
    cut_off.__enter__()  # and it never ends
    assert again().ledger.ending(measure.STAGE, "", -1) is None
    generate(again(), NullTracker())
    rows = again().ledger.attempts()
    assert again().ledger.ending(measure.STAGE, "", -1) == "complete"
    assert again().ledger.spent(measure.STAGE).device_seconds < 1.0
    generate(again(), NullTracker())
    assert again().ledger.attempts() == rows


def test_replies_that_were_lost_do_not_hold_the_destruction_up(work: Any) -> None:
    """They cannot be made good once it has begun, and it goes on whatever else is refused."""
    lose_a_reply(work)
    cut_destruction_off(work, 1)
    with pytest.raises(UserError, match=r"1 replies or Inspect logs are missing.* were destroyed on 20"):
        generate(work, NullTracker())
    assert not work.folder.weights.exists()


def spend_all(work: Any) -> None:
    """Record an attempt at generation that failed when it had spent more than there was."""
    Attempt(work.ledger, measure.STAGE, "", -1, 1, time.monotonic() - 2000.0).write("failed")


@pytest.mark.parametrize("measured", ["in part", "not at all"])
def test_no_engine_is_started_on_a_budget_that_is_spent(
    measured: str, run: Path, work: Any, tmp_path: Path, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    spend_all(work)
    if measured == "in part":
        lose_a_reply(work)
    else:
        shutil.rmtree(run / "replies")
        (run / "proofs.jsonl").unlink()
    generate(work, NullTracker())
    assert work.ledger.ending(measure.STAGE, "", -1) == "budget"
    assert "The budget ended before every reply was generated" in work.console.file.getvalue()
    assert destroyed(work.folder) is not None
    run_main([*said(run, tmp_path, tiny_folder), AFTER], monkeypatch, capsys)
    verdict = read(run, "verdict.json")
    if measured == "not at all":
        assert (verdict["verdict"], verdict["controls"]["adapter_parity"]) == ("inconclusive", "not run")
    else:
        assert verdict["controls"]["adapter_parity"] == "pass"
    assert (run / "report.html").exists()


def test_what_has_replies_is_proved_on_a_budget_that_is_spent(run: Path, work: Any) -> None:
    """Without its proof all that was measured would count for nothing."""
    (run / "proofs.jsonl").unlink()
    spend_all(work)
    with pytest.raises(AssertionError, match="a server was started"):
        generate(work, NullTracker())
    assert (run / "weights").exists()


@pytest.mark.parametrize("gone", [False, True])
def test_a_damaged_file_of_replies_is_not_to_be_removed_once_the_weights_are_gone(gone: bool, work: Any) -> None:
    """What gave them is destroyed: who did as told would lose what no command makes again."""
    rung = work.rungs()[-1].id
    if gone:
        weights.contain(work.folder, work.rungs(), work.config.contain)
    path = journal(work.folder, rung).path
    path.write_bytes(path.read_bytes().replace(b"{", b"[", 1))
    with pytest.raises(UserError, match="line 1: not JSON") as caught:
        list(journal(work.folder, rung).rows())
    assert ("bring it back from a copy" in caught.value.remedy) is gone
    assert ("remove it and run the same command again" in caught.value.remedy) is not gone
