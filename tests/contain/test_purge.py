"""The end of reply texts, and the way to the hub that is shut."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

import huggingface_hub
import huggingface_hub.constants as hub
import pytest
from commands import run_main
from finished_run import ANSWER, HARD_REFUSAL, REFUSAL, finish, read, words
from rich.console import Console

from pipeline.config.compose import load
from pipeline.contain import begun, purge, purged
from pipeline.contain.sealing import seal, unsealed
from pipeline.errors import UserError
from pipeline.files import write_atomic
from pipeline.journal import Journal
from pipeline.schema.contain import ContainConfig
from pipeline.store import RunFolder
from pipeline.train.before import check_base
from pipeline.workspace import Workspace

Run = Callable[..., str]
NOW = "contain.now=true"


@pytest.fixture
def folder(tmp_path: Path, tiny_folder: Path) -> Path:
    return finish(words(tmp_path, tiny_folder))


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    def command(*asked: str, code: int = 0) -> str:
        said = run_main(asked, monkeypatch, capsys, code)
        return str(said.err + said.out)

    return command


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of its own: a purge removes the logs of judges' servers from it."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "holdfast"


def texts(folder: Path) -> list[str]:
    """Return which files of a run folder hold a reply's text."""
    needles = [text.encode() for text in (ANSWER, REFUSAL, HARD_REFUSAL)]
    files = [path for path in folder.rglob("*") if path.is_file()]
    return sorted(path.name for path in files if any(needle in path.read_bytes() for needle in needles))


def cut_off(folder: Path) -> None:
    """Purge a run and be killed when one file is done and a second one stands in both places."""
    written: list[Path] = []

    def kill(path: Path, content: bytes) -> None:
        write_atomic(path, content)
        written.append(path)
        if len(written) == 2:
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys.modules[purge.__module__], "write_atomic", kill)
        with pytest.raises(KeyboardInterrupt):
            purge(ContainConfig(run=str(folder), now=True), Console())


def test_a_purged_run_has_no_text_and_keeps_its_verdict(
    folder: Path, run: Run, tmp_path: Path, tiny_folder: Path
) -> None:
    asked = words(tmp_path, tiny_folder)
    run(*asked, "stages=[score,analyse,report]", "report.include_text=true")
    before = read(folder, "verdict.json")
    assert "report.html" in texts(folder)
    assert "Purged: " in run("stages=[purge]", f"contain.run={folder}", "contain.now=true")
    # plan.json holds the judge's patterns and the organism's refusal, as configured: no reply.
    assert set(texts(folder)) <= {"plan.json"}
    run(*asked, "stages=[analyse,report]")
    after = read(folder, "verdict.json")
    assert (after["verdict"], after["arms"]) == (before["verdict"], before["arms"])
    said = run(*asked, "stages=[score,analyse]", code=2)
    assert "were purged on" in said
    assert "were purged on" in run(*asked, "stages=[generate]", code=2)
    rows = [json.loads(line) for line in next((folder / "purged").glob("*.jsonl")).read_text().splitlines()]
    assert rows[0]["finish_reason"] == "stop"


def test_a_run_that_was_given_up_loses_its_stripped_weights_too(folder: Path, run: Run) -> None:
    kept = RunFolder(folder)
    (folder / "containment.jsonl").unlink(missing_ok=True)
    rungs = [row for row in kept.rungs.rows() if row["artifact"] == "adapter"]
    for row in rungs:
        (folder / row["path"]).mkdir(parents=True, exist_ok=True)
        (folder / row["path"] / "adapter_model.safetensors").write_bytes(b"stripped")
    assert rungs
    assert "the stripped weights that were left are gone" in run("stages=[purge]", f"contain.run={folder}", NOW)
    assert not kept.weights.exists()
    assert begun(kept)
    gone = {row["rung"] for row in Journal(folder / "containment.jsonl").rows() if row["state"] == "destroyed"}
    assert gone == {*(row["id"] for row in rungs), ""}
    assert "stripped weights" not in run("stages=[purge]", f"contain.run={folder}", NOW)


def test_what_was_purged_is_not_trained_again(folder: Path, run: Run, tmp_path: Path, tiny_folder: Path) -> None:
    run("stages=[purge]", f"contain.run={folder}", NOW)
    work = Workspace(load(words(tmp_path, tiny_folder)), Console())
    with pytest.raises(UserError, match="were purged on"):
        check_base(work)


def test_texts_stay_until_their_period_is_over(folder: Path, run: Run) -> None:
    said = run("stages=[purge]", f"contain.run={folder}", code=2)
    assert "to be kept until" in said
    assert texts(folder)
    run("stages=[purge]", f"contain.run={folder}", "contain.retention_days=0")
    assert not set(texts(folder)) - {"plan.json"}


def test_a_damaged_file_of_replies_is_purged_too(folder: Path, run: Run) -> None:
    path = sorted(folder.glob("replies/*.jsonl"))[0]
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines[:3], '{"reply": "half a li', "[1]", *lines[3:]]) + "\n")
    (folder / "replies" / "a_folder.jsonl").mkdir()
    run("stages=[purge]", f"contain.run={folder}", "contain.now=true")
    assert not (folder / "replies").exists()
    assert len((folder / "purged" / path.name).read_text().splitlines()) == len(lines)


def test_a_purge_that_was_cut_off_is_finished_by_the_same_command(folder: Path, run: Run) -> None:
    whole = sum(len(path.read_text().splitlines()) for path in folder.glob("replies/*.jsonl"))
    first = sorted(folder.glob("replies/*.jsonl"))[0]
    rows = [json.loads(line) for line in first.read_text().splitlines()]
    (folder / "purged").mkdir()
    bare = [{key: value for key, value in row.items() if key != "reply"} for row in rows]
    (folder / "purged" / first.name).write_text("".join(json.dumps(row) + "\n" for row in bare))
    first.unlink()
    assert f"{whole:,} replies" in run("stages=[purge]", f"contain.run={folder}", "contain.now=true")


def test_a_purge_that_was_cut_off_counts_no_reply_twice_and_keeps_the_labels(
    folder: Path, run: Run, tmp_path: Path, tiny_folder: Path
) -> None:
    asked = words(tmp_path, tiny_folder)
    whole = sum(len(path.read_text().splitlines()) for path in folder.glob("replies/*.jsonl"))
    run(*asked, "stages=[score]")
    labels = (folder / "outcomes.parquet").read_bytes()
    assert not purged(RunFolder(folder))
    cut_off(folder)
    assert purged(RunFolder(folder))
    assert list(read(folder, "purged.json")) == ["begun"]
    for stage in ("score", "generate"):
        said = run(*asked, f"stages=[{stage}]", code=2)
        assert "was cut off" in said
        assert "stages=[purge]" in said
    assert (folder / "outcomes.parquet").read_bytes() == labels
    begun = read(folder, "purged.json")["begun"]
    assert f"{whole:,} replies" in run("stages=[purge]", f"contain.run={folder}", "contain.now=true")
    made = read(folder, "purged.json")
    assert (made["begun"], made["replies"]) == (begun, whole)
    assert not set(texts(folder)) - {"plan.json"}
    assert "were purged on" in run(*asked, "stages=[score]", code=2)


def test_the_digests_of_the_replies_outlast_them(folder: Path, run: Run, tmp_path: Path, tiny_folder: Path) -> None:
    asked = words(tmp_path, tiny_folder)
    run(*asked, "stages=[score,analyse]")
    before = read(folder, "reproduce.json")["results"]
    assert before["replies"]
    cut_off(folder)
    run(*asked, "stages=[analyse]")
    assert read(folder, "reproduce.json")["results"] == before
    run("stages=[purge]", f"contain.run={folder}", "contain.now=true")
    run(*asked, "stages=[analyse]")
    assert read(folder, "reproduce.json")["results"] == before


def test_what_jobs_servers_and_half_done_tasks_left_goes_too(folder: Path, run: Run, cache: Path) -> None:
    jobs = folder / "slurm" / "jobs.json"
    places = [
        *(folder / "slurm" / "serve-7.log", folder / "logs" / "server.log", cache / "logs" / "judge-0123456789ab.log"),
        *(folder / "inspect" / ".work" / "data" / "buffer.db", folder / "inspect" / "base" / "mine.eval"),
        *(folder / "inspect_export" / "base__mine.eval", jobs, folder / "inspect" / "base" / "mine.json"),
    ]
    for place in places:
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(ANSWER if place.suffix != ".json" else "{}")
    run("stages=[purge]", f"contain.run={folder}", NOW)
    assert not set(texts(folder)) - {"plan.json"}
    assert not texts(cache)
    assert [place for place in places if place.exists()] == [place for place in places if place.suffix == ".json"]
    assert not (folder / "inspect" / ".work").exists()


def test_what_cannot_be_removed_is_told_and_the_purge_is_not_over(
    folder: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "logs").mkdir(exist_ok=True)
    stuck = folder / "logs" / "server.log"
    stuck.write_text(ANSWER)
    unlink = Path.unlink

    def denied(path: Path, *args: bool, **more: bool) -> None:
        if path == stuck:
            raise PermissionError(13, "Permission denied")
        unlink(path, *args, **more)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", denied)
        said = run("stages=[purge]", f"contain.run={folder}", NOW, code=2)
    assert "2 files or folders with its texts could not be removed" in said
    assert f"{stuck} (Permission denied)" in "".join(said.splitlines())
    assert list(read(folder, "purged.json")) == ["begun"]
    assert "Purged: " in run("stages=[purge]", f"contain.run={folder}", NOW)
    assert not stuck.exists()


@pytest.mark.parametrize("name", ["replies", "logs", "slurm", "inspect", "weights"])
def test_files_behind_a_linked_folder_are_nobodys_to_remove(name: str, folder: Path, run: Run, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    if (folder / name).exists():
        (folder / name).rename(outside)
    outside.mkdir(exist_ok=True)
    (outside / "mine.jsonl").write_text('{"reply": "mine"}\n')
    (outside / "mine.log").write_text("mine")
    (folder / name).symlink_to(outside)
    assert f"{name} is a link" in run("stages=[purge]", f"contain.run={folder}", NOW, code=2)
    assert (outside / "mine.jsonl").exists()
    assert (outside / "mine.log").exists()
    assert not (folder / "purged.json").exists()


def test_the_journals_are_on_the_disk_before_weights_that_are_left_are_destroyed(
    folder: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "weights").mkdir()
    settled: list[Path] = []
    settle = RunFolder.settle

    def noted(self: RunFolder) -> None:
        assert self.weights.exists()
        settled.append(self.root)
        settle(self)

    monkeypatch.setattr(RunFolder, "settle", noted)
    run("stages=[purge]", f"contain.run={folder}", NOW)
    assert settled == [folder]


def test_a_run_that_another_command_holds_is_left_alone(folder: Path, run: Run) -> None:
    with RunFolder(folder).locked():
        said = run("stages=[purge]", f"contain.run={folder}", "contain.now=true", code=2)
    assert "another holdfast is working" in said
    assert texts(folder)


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (["stages=[purge]"], "contain.run: missing"),
        (["stages=[purge]", "contain.run=nowhere"], "there is no run in"),
        (["contain.now=true"], "contain.now: only stages=[purge] reads it"),
        (["stages=[purge,report]", "contain.run=x"], "purge stands alone"),
        (["contain.retention_days=-1"], "contain.retention_days"),
        (["contain.retention_days=inf"], "contain.retention_days"),
        (["contain.retention_days=3000000"], "contain.retention_days"),
        (["contain.recipients=keys"], "only contain.keep=true reads it"),
    ],
)
def test_bad_input_is_told(asked: list[str], said: str, run: Run) -> None:
    assert said in run(*asked, code=2)


def test_after_sealing_nothing_can_be_pushed_and_no_token_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_TOKEN", "hf_not_a_token")
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    seal()
    assert "HF_TOKEN" not in os.environ
    api = huggingface_hub.HfApi()
    with pytest.raises(huggingface_hub.errors.OfflineModeIsEnabled):
        api.create_repo("holdfast/nothing")
    with pytest.raises(huggingface_hub.errors.OfflineModeIsEnabled):
        api.upload_file(path_or_fileobj=b"x", path_in_repo="x", repo_id="holdfast/nothing")
    with unsealed():  # a judge's weights, and no more
        assert not hub.HF_HUB_OFFLINE
        assert os.environ["HF_TOKEN"] == "hf_not_a_token"
    assert hub.HF_HUB_OFFLINE
    assert "HF_TOKEN" not in os.environ
