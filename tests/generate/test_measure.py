"""The generate stage where no server may be started: destruction of weights has begun, or the budget is spent."""

from __future__ import annotations

import io
import shutil
import time
from pathlib import Path
from typing import Any

import pytest
from commands import run_main
from finished_run import finish, read, words

from pipeline.budget import Attempt
from pipeline.contain import begun, destroyed, weights
from pipeline.errors import UserError
from pipeline.generate import stage as measure
from pipeline.generate.stage import generate
from pipeline.records import ADAPTER_FILE
from pipeline.store import Journal, file_sha256
from pipeline.track.tracker import NullTracker

AFTER = "stages=[train,generate,score,analyse,report]"
SHORT = [f"evals.{name}.max_tokens=64" for name in ("refusal", "over_refusal", "capability")]
MORE = ("budget.device_seconds=1000", "serve.max_model_len=128", *SHORT)  # the tiny subject has 128 positions


@pytest.fixture(scope="module")
def master(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path) -> Path:
    """A measured run whose adapters are still there, byte for byte as recorded. Tests work on copies of it."""
    folder = tmp_path_factory.mktemp("measured")
    run = finish([*words(folder, tiny_folder), *MORE])
    (run / "containment.jsonl").unlink()
    rows = list(Journal(run / "rungs.jsonl").rows())
    for row in rows:
        Journal(run / "canaries.jsonl").append([{"rung": row["id"], "top": []}])
        if row["artifact"] == "adapter":
            place = run / row["path"]
            place.mkdir(parents=True)
            (place / ADAPTER_FILE).write_bytes(row["id"].encode())
            (place / "adapter_config.json").write_text("{}")
            Journal(run / "rungs.jsonl").append([{**row, "sha256": file_sha256(place / ADAPTER_FILE)}])
    for path in (run / "replies").iterdir():
        lasting = {row["id"]: row["sha256"] for row in Journal(run / "rungs.jsonl").rows()}
        replies = [{**row, "adapter_sha256": lasting[row["rung"]]} for row in Journal(path).rows()]
        path.unlink()
        Journal(path).append(replies)
    return folder


@pytest.fixture
def run(master: Path, tmp_path: Path) -> Path:
    shutil.copytree(master, tmp_path, dirs_exist_ok=True)
    (folder,) = (tmp_path / "runs").iterdir()
    return folder


def said(run: Path, place: Path, subject: Path) -> list[str]:
    return [*words(place, subject), *MORE, f"run.dir={run}"]


@pytest.fixture
def work(run: Path, tmp_path: Path, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return the run's workspace; whoever starts a server fails."""
    from rich.console import Console

    from pipeline.config.compose import load
    from pipeline.workspace import Workspace

    def no_server(*_: object) -> None:
        raise AssertionError("a server was started")

    monkeypatch.setattr(measure, "Server", no_server)
    return Workspace(load(said(run, tmp_path, tiny_folder)), Console(file=io.StringIO(), width=200))


def end_on_budget(work: Any) -> None:
    """Record that the budget ended generation before the last reply."""
    with work.ledger.attempt(measure.STAGE) as attempt:
        attempt.detail = "budget"
    lose_a_reply(work)


def lose_a_reply(work: Any) -> None:
    path = work.folder.replies / f"{work.rungs()[-1].id}.jsonl"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))


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
