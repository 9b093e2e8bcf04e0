"""Publishing for real: W&B's own sync, client and report against a stand-in for the server that loses things."""

from __future__ import annotations

import io
import json
import os
import shutil
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from commands import run_main
from leaks import names_this_host
from report_spec import drawn, grids, masked
from rich.console import Console
from shared_run import CANARY, make, overrides, use
from wandb_server import ENTITY, KEY, Stub, wandb_server

from pipeline.config.compose import load
from pipeline.errors import UserError
from pipeline.publish import server, stage
from pipeline.publish.curves import write_curves
from pipeline.publish.offline import expected_runs, read_pieces
from pipeline.report import figures
from pipeline.schema import Config
from pipeline.schema.publish import PublishConfig
from pipeline.workspace import Workspace
from tests.standins import ForkedWandb

Publish = Callable[..., str]
REPORT = "upsertView"
GOLDEN = Path(__file__).with_name("golden_report.json")
ROWS = [3, 4]  # 2 steps of training and the figures; rung 0, 2 rungs and the figures


@dataclass(frozen=True)
class Master:
    """The finished run that every test copies, and what its command line composes."""

    place: Path
    config: Config
    plan: dict[str, Any]


@pytest.fixture(scope="module")
def master(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path) -> Master:
    """A finished run with W&B's files, its curves among them; nobody was asked for anything while it was made."""
    place = tmp_path_factory.mktemp("shared")
    with wandb_server() as stub, pytest.MonkeyPatch.context() as patch:
        use(stub, patch)
        folder = make(place, tiny_folder)
        assert stub.received == []
    config = load(overrides(place, tiny_folder))
    work = Workspace(config, Console(file=io.StringIO()))
    run = stage._read(work)
    write_curves(run, config.track, folder, read_pieces(folder / "wandb")[0], figures(run))
    return Master(place, config, work.plan)


@pytest.fixture
def place(tmp_path: Path, master: Master) -> Path:
    shutil.copytree(master.place, tmp_path, dirs_exist_ok=True)
    return tmp_path


@pytest.fixture
def stub() -> Iterator[Stub]:
    with wandb_server() as served:
        yield served


@pytest.fixture
def publish(
    place: Path, master: Master, stub: Stub, warm: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> Publish:
    """Publish the copy, as `holdfast stages=[publish] publish.KEY=…` does; return what was said, on one line.

    W&B's client and sync are forked from a process that has imported them (`tests/warm.py`).
    """
    use(stub, monkeypatch)
    monkeypatch.setattr(server, "subprocess", ForkedWandb(warm("wandb")))

    def run(**changes: Any) -> str:
        asked = PublishConfig(wait_s=0.5, **changes)
        there = replace(master.config.run, dir=str(run_folder(place)))
        said = io.StringIO()
        work = Workspace(replace(master.config, publish=asked, run=there), Console(file=said, width=1000))
        work.__dict__["plan"] = master.plan  # made from the same words; making it opens the subject
        stage.publish(work)
        return " ".join(said.getvalue().split())

    return run


def run_folder(place: Path) -> Path:
    (folder,) = (place / "runs").iterdir()
    return folder


def rows(stub: Stub) -> dict[str, int]:
    return {name: len(run.history) for name, run in stub.runs.items()}


def refused(publish: Publish, **changes: Any) -> str:
    with pytest.raises(UserError) as error:
        publish(**changes)
    return " ".join(str(error.value).split())


def assert_golden(spec: Any) -> None:
    """Hold a spec against the golden file; HOLDFAST_GOLDEN=write in the environment writes it anew."""
    if os.environ.get("HOLDFAST_GOLDEN") == "write":
        GOLDEN.write_text(json.dumps(spec, indent=1, ensure_ascii=False, sort_keys=True) + "\n")
    assert spec == json.loads(GOLDEN.read_text())


def assert_drawn_from_what_is_there(spec: dict[str, Any], stub: Stub) -> None:
    """Every metric of every panel is in the history of each of its runs; figures and summaries, in one at least."""
    seen = set()
    for runs, panels in grids(spec):
        history = [{key for line in stub.runs[run].history for key in json.loads(line)} for run in runs]
        for panel in panels:
            assert panel["config"].get("xAxis") not in ("_step", None) or panel["viewType"] == "Media Browser"
            for name in drawn(panel):
                assert all(name in keys for keys in history), (panel["config"]["chartTitle"], name)
                seen.add(name)
    assert {"dose/steps", "measure/refusal", "measure/capability", "train/loss", "figures/path"} <= seen


def test_the_command_line_says_what_was_dropped_as_exit_code_2_and_sends_it_alone_the_next_time(
    place: Path, stub: Stub, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    use(stub, monkeypatch)
    asked = [*overrides(place, tiny_folder), "stages=[publish]", "publish.wait_s=0"]
    stub.dropped = "compliance-0 measured"
    said = run_main(asked, monkeypatch, capfd, code=2)
    assert said.err.count("holdfast: publish: ") == 1
    assert "not there" in said.err
    assert "no report was saved" in said.err
    assert stub.views == {}
    sent, [lost] = len(stub.offsets), [name for name in stub.runs if stub.kept(name) is None]
    stub.dropped = ""
    del stub.runs[lost]
    assert "The W&B Report (draft" in run_main(asked, monkeypatch, capfd).err
    assert {name for name, _, _ in stub.offsets[sent:]} == {lost}
    assert sorted(rows(stub).values()) == ROWS


def test_all_arrives_once_and_the_report_is_refused_drafted_updated_and_made_public(
    publish: Publish, stub: Stub, place: Path
) -> None:
    stub.refuse_report = True
    assert "permission denied" in refused(publish)
    assert (len(stub.runs), stub.views) == (2, {})
    stub.refuse_report = False
    said = publish()
    assert "Nothing to send" in said
    assert stub.unknown == []
    runs = expected_runs(read_pieces(run_folder(place) / "wandb")[0])
    assert rows(stub) == {run.run: run.rows for run in runs}
    assert sorted(rows(stub).values()) == ROWS
    assert all(run.state == "finished" for run in stub.runs.values())
    [view] = stub.views.values()
    assert (view["type"], view["displayName"]) == ("runs/draft", "tiny: collapses")
    assert f"{stub.url}/{ENTITY}/holdfast/reports/tiny-collapses--" in said
    assert "draft, not yet public; new" in said
    spec = json.loads(view["spec"])
    assert_golden(masked(spec))
    assert_drawn_from_what_is_there(spec, stub)

    once = rows(stub)
    said = publish(title="The second/time")
    assert (rows(stub), len(stub.views)) == (once, 1)
    assert "Nothing to send" in said
    assert "updated in place" in said
    assert "/reports/The-second-time--" in said

    said = publish(draft=False)
    [view] = stub.views.values()
    assert view["type"] == "runs"
    assert "public in its project" in said

    publish()  # a draft beside the public one, which is not turned back
    assert [view["type"] for view in stub.views.values()] == ["runs", "runs/draft"]
    assert rows(stub) == once


def test_what_does_not_arrive_is_listed_not_published_and_half_a_piece_not_mended_by_sending_its_rows_twice(
    publish: Publish, stub: Stub, place: Path
) -> None:
    stub.keep_rows, stub.lose_file = 1, ".plotly.json"
    said = refused(publish)
    assert "1 history rows, 3 in the files" in said
    assert "missing or cut: media/plotly/figures/" in said
    assert "no report was saved" in said
    assert REPORT not in stub.asked
    assert stub.views == {}
    assert not (run_folder(place) / "publish.json").exists()

    sent, stub.keep_rows, stub.lose_file = len(stub.offsets), None, ""
    assert "publish.project=" in refused(publish)
    assert len(stub.offsets) == sent


@pytest.mark.parametrize(
    ("key", "refuse", "told"),
    [(KEY, True, "refuses the key"), (None, False, "there is no key"), ("1" * 40, False, "refuses the key")],
)
def test_without_a_key_that_is_taken_nothing_is_sent(
    publish: Publish, stub: Stub, monkeypatch: pytest.MonkeyPatch, key: str | None, refuse: bool, told: str
) -> None:
    stub.refuse_key = refuse
    use(stub, monkeypatch, key)
    said = refused(publish)
    assert told in said
    assert "WANDB_API_KEY" in said
    assert (stub.runs, stub.views) == ({}, {})


def test_a_server_that_is_not_there_is_said_at_once(publish: Publish, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as bound:  # bound, not listening: refuses every connection
        bound.bind(("127.0.0.1", 0))
        monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{bound.getsockname()[1]}")
        said = refused(publish)
    assert "the W&B server cannot be reached" in said
    assert "WANDB_BASE_URL" in said


def test_no_text_path_host_or_key_is_sent_said_or_kept_no_empty_folder_read_and_nothing_sent_that_went_online(
    publish: Publish, stub: Stub, place: Path
) -> None:
    folder = run_folder(place)
    empty = folder / "wandb" / "offline-run-20260101_000000-cut"
    empty.mkdir()
    (empty / "run-cut.wandb").touch()
    said = publish()
    assert f"Passed over, holds no run: {empty}" in said
    assert len(stub.runs) == 2
    replies = b"".join(path.read_bytes() for path in (folder / "replies").iterdir())
    assert CANARY.encode() in replies, "the canary must be there"
    sent = b"\0".join(stub.received)
    assert b"measure/refusal" in sent
    for secret in (CANARY, str(place), KEY):
        assert secret.encode() not in sent, secret
    assert not names_this_host(sent)
    kept = b"".join(p.read_bytes() for p in [*(folder / "wandb").rglob("*"), folder / "publish.json"] if p.is_file())
    assert KEY.encode() not in kept
    assert CANARY.encode() not in kept
    assert KEY not in said

    pieces = len(stub.offsets)
    for offline in (folder / "wandb").glob("offline-run-*"):
        offline.rename(offline.with_name(offline.name.removeprefix("offline-")))  # as if tracked online
    said = publish()
    assert "went to W&B while they were written: not sent again" in said
    assert len(stub.offsets) == pieces


def test_curves_are_written_once_anew_where_they_were_cut_off_and_apart_where_they_changed(
    place: Path, master: Master
) -> None:
    folder = run_folder(place)
    run = stage._read(Workspace(replace(master.config, run=replace(master.config.run, dir=str(folder))), Console()))

    def write() -> tuple[str, list[Path]]:
        pieces, _ = read_pieces(folder / "wandb")
        [name] = write_curves(run, master.config.track, folder, pieces, {})
        return name, sorted((folder / "wandb").glob(f"*{name}"))

    first, there = write()
    assert write() == (first, there)
    log = there[0] / f"run-{first}.wandb"
    log.write_bytes(log.read_bytes()[:-40])  # without its last records
    name, anew = write()
    assert (name, len(anew)) == (first, 1)
    assert anew != there
    run.verdict["post_hoc"] = {"judge": {"planned": "a", "used": "b"}}
    other, _ = write()
    assert other != first
    assert sorted((folder / "wandb").glob(f"*{first}")) == anew


def test_a_comparison_of_other_runs_is_refused_before_anything_is_sent(
    publish: Publish, stub: Stub, tmp_path: Path
) -> None:
    (tmp_path / "comparison.json").write_text(json.dumps({"runs": {"A": {"run_sha256": "0" * 64}}}))
    said = refused(publish, compare=str(tmp_path / "comparison.json"))
    assert "no comparison of this run" in said
    assert stub.received == []


def test_a_comparison_under_another_judge_is_not_put_beside_this_verdict(
    place: Path, publish: Publish, stub: Stub, tmp_path: Path
) -> None:
    folder = run_folder(place)
    verdict, plan = (json.loads((folder / name).read_text()) for name in ("verdict.json", "plan.json"))
    judge = {"kind": verdict["judge"]["kind"], "version": "0" * 64}
    made = {"runs": {"A": {"run_sha256": plan["run_sha256"]}}, "judge": judge, "thresholds": verdict["thresholds"]}
    (tmp_path / "comparison.json").write_text(json.dumps(made))
    said = refused(publish, compare=str(tmp_path / "comparison.json"))
    assert "under another judge or other thresholds" in said
    assert stub.received == []
