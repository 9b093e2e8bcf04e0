"""What is handed to Slurm, in which order, and when nothing is; for Slurm itself see test_slurm_real."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import pytest
from commands import run_main
from fake_slurm import FakeSlurm
from finished_run import words
from rich.console import Console

from pipeline.cluster.submit import submit
from pipeline.config.compose import load
from pipeline.errors import UserError
from pipeline.files import read_json, write_json
from pipeline.workspace import Workspace


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeSlurm:
    return FakeSlurm(tmp_path / "site", monkeypatch)


@pytest.fixture
def overrides(tmp_path: Path, tiny_folder: Path) -> list[str]:
    return [*words(tmp_path, tiny_folder), "seeds=[0,1]", "cluster=slurm"]


def opened(overrides: list[str]) -> Workspace:
    return Workspace(load(overrides), Console(file=io.StringIO(), width=300))


def said(work: Workspace) -> str:
    submit(work)
    text: str = work.console.file.getvalue()  # type: ignore[attr-defined]
    return text


def stands(work: Workspace, task: str, state: str) -> None:
    """Let a task say how it stands."""
    write_json(work.folder.root / "tasks" / task.replace("/", "-s") / "status.json", {"state": state})


def test_no_slurm_here_is_told_before_anything_is_opened_or_written(
    tmp_path: Path, overrides: list[str], monkeypatch: pytest.MonkeyPatch, capfd: Any
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    told = run_main([*overrides, "subject.path=/nowhere"], monkeypatch, capfd, 2)
    assert "sbatch is not installed here" in told.err
    assert not (tmp_path / "runs").exists()


def test_the_same_command_submits_what_is_neither_done_nor_in_the_queue(fake: FakeSlurm, overrides: list[str]) -> None:
    work = opened([*overrides, "seeds=[0,1,2,3]", "cluster.slurm.at_once=2"])
    submit(work)
    root = work.folder.root
    assert fake.tasks() == ["compliance/0 compliance/1 compliance/2 compliance/3", "", ""]
    assert fake.option(0, "array") == "0-3%2"
    assert (fake.option(1, "dependency"), fake.option(2, "dependency")) == ("afterany:10", "afterok:20")
    assert {"stages=[train,generate,score]", "cluster.job=serve"} <= set(fake.submitted[1])
    leases = [read_json(path)["limits"] for path in sorted(root.glob("tasks/*/lease.json"))]
    assert leases == [task["caps"] for task in work.plan["tasks"]]
    stands(work, "compliance/0", "done")
    stands(work, "compliance/1", "paused")
    fake.holds(root, {"10_1": "PENDING", "20": "PENDING", "30": "PENDING"})  # 2 and 3 were cancelled
    submit(work)
    assert fake.tasks()[3:] == ["compliance/2 compliance/3", "", ""]
    assert fake.option(4, "dependency") == "afterany:10:40"
    fake.holds(root, {"50": "RUNNING"})
    with pytest.raises(UserError, match="job 50 of this review is at work"):
        submit(work)
    assert len(fake.submitted) == 6


def test_what_waits_goes_only_when_slurm_has_taken_what_comes_in_its_place(
    fake: FakeSlurm, overrides: list[str]
) -> None:
    work = opened(overrides)
    submit(work)
    stands(work, "compliance/0", "done")
    fake.holds(work.folder.root, {"20": "PENDING", "30": "PENDING"})
    fake.says("refused", "cluster.job=train")
    with pytest.raises(UserError, match="invalid account") as caught:
        submit(work)
    assert "give the same command again" in caught.value.remedy
    assert fake.cancelled == [], "the jobs that wait are all there is"
    fake.says("refused", "")
    fake.says("gone", "scancel: error: Kill job error on job id 20: Invalid job id specified\n")  # it ended meanwhile
    assert "Cancelled, since it would have started too early: job 20, 30" in said(work)
    assert fake.calls[-4:] == ["sbatch 4", "sbatch 5", "sbatch 6", "scancel --state=PENDING 20 30"]


def test_nothing_is_done_where_the_wanted_jobs_wait_already(fake: FakeSlurm, overrides: list[str]) -> None:
    work = opened(overrides)
    submit(work)
    root = work.folder.root
    stands(work, "compliance/0", "done")
    fake.holds(root, {"10_1": "RUNNING", "20": "PENDING", "30": "PENDING"})
    before = work.folder.jobs.read_bytes()
    assert "Nothing is left to submit; in the queue: job 20, 30." in said(work)
    submit(opened([*overrides, "stages=[train]"]))
    assert (len(fake.submitted), fake.cancelled) == (3, [])
    assert work.folder.jobs.read_bytes() == before
    submit(opened([*overrides, "cluster.slurm.serve.time=60"]))  # asked for otherwise
    assert (fake.tasks()[3:], fake.cancelled) == (["", ""], ["--state=PENDING 20 30"])
    fake.holds(root, {"10_1": "RUNNING", "40": "PENDING"})  # its report was cancelled
    submit(opened([*overrides, "cluster.slurm.serve.time=60"]))
    assert len(fake.submitted) == 7


def test_older_jobs_that_still_wait_beside_the_wanted_ones_are_cancelled(fake: FakeSlurm, overrides: list[str]) -> None:
    """As after a scancel that Slurm did not answer."""
    work = opened(overrides)
    submit(work)
    other = [*overrides, "cluster.slurm.serve.time=60", "cluster.slurm.report.time=9"]
    stands(work, "compliance/0", "done")
    fake.holds(work.folder.root, {"10_1": "RUNNING", "20": "PENDING", "30": "PENDING"})
    submit(opened(other))
    both = {"10_1": "RUNNING", **dict.fromkeys(("20", "30", "40", "50"), "PENDING")}
    fake.holds(work.folder.root, both)
    submit(opened(other))
    assert fake.cancelled[-1] == "--state=PENDING 20 30 40 50"
    assert len(fake.submitted) == 7


def test_jobs_that_wait_for_other_arrays_are_no_reason_to_do_nothing(fake: FakeSlurm, overrides: list[str]) -> None:
    work = opened(overrides)
    submit(work)
    root = work.folder.root
    fake.holds(root, {"20": "PENDING", "30": "PENDING"})  # the array was cancelled
    fake.says("refused", "cluster.job=serve")
    with pytest.raises(UserError, match="invalid account"):
        submit(work)
    fake.says("refused", "")
    fake.holds(root, {"20": "PENDING", "30": "PENDING", "40_0": "PENDING", "40_1": "PENDING"})
    submit(work)
    assert (fake.option(4, "dependency"), fake.cancelled) == ("afterany:40", ["--state=PENDING 20 30"])


def test_a_task_that_is_still_ending_is_neither_at_work_nor_forgotten(fake: FakeSlurm, overrides: list[str]) -> None:
    """`scancel`, and the same command at once: no training came of it, and the measuring refused."""
    work = opened(overrides)
    submit(work)
    root = work.folder.root
    stands(work, "compliance/0", "done")
    for name in ("10_1", "20"):
        fake.holds(root, {"10_0": "COMPLETING", name: "COMPLETING"})
        with pytest.raises(UserError, match=f"job {name} is still ending") as caught:
            submit(work)
        assert "try again in a minute" in caught.value.remedy
    assert len(fake.submitted) == 3
    fake.holds(root, {"10_0": "COMPLETING"})  # done: its node is being cleaned
    submit(work)
    assert fake.tasks()[3] == "compliance/1"


def test_each_job_is_on_record_before_the_next_is_asked_for(fake: FakeSlurm, overrides: list[str]) -> None:
    """A kill, or a refusal, between two: the same command would train the same tasks a second time."""
    work = opened(overrides)
    fake.says("refused", "cluster.job=report")
    with pytest.raises(UserError, match="invalid account"):
        submit(work)
    assert (fake.recorded(0), [row["jobs"] for row in fake.recorded(1)]) == (None, [{"train": "10"}])
    assert [row["jobs"] for row in read_json(work.folder.jobs, list)] == [{"train": "10", "serve": "20"}]
    fake.says("refused", "")
    fake.holds(work.folder.root, {"10_0": "RUNNING", "10_1": "PENDING", "20": "PENDING"})
    submit(work)
    assert fake.tasks()[2:] == ["", ""], "both tasks are in the queue"
    assert fake.option(2, "dependency") == "afterany:10"


def test_a_job_is_known_by_its_number_and_after_that_by_its_run(
    fake: FakeSlurm, overrides: list[str], tmp_path: Path
) -> None:
    work = opened(overrides)
    submit(work)
    fake.holds(None, {"10_0": "RUNNING", "10_1": "PENDING", "20": "PENDING", "30": "PENDING"})
    submit(work)
    assert len(fake.submitted) == 3, "the site took the comment away"
    fake.holds(tmp_path / "runs" / "other", {"10_0": "RUNNING", "10_1": "PENDING", "7": "PENDING"})
    submit(work)
    assert fake.tasks()[3] == "compliance/0 compliance/1", "Slurm counts anew, and these are another run's"
    fake.holds(work.folder.root, {"77": "PENDING"})
    with pytest.raises(UserError, match="job 77 in Slurm's queue says that it is of this review") as caught:
        submit(work)
    assert "scancel" in caught.value.remedy
    (tmp_path / "link").symlink_to(tmp_path / "runs")
    (folder,) = (tmp_path / "runs").iterdir()
    linked = opened([*overrides, f"run.dir={tmp_path / 'link' / folder.name}"])
    fake.holds(folder, {"77": "PENDING"})
    with pytest.raises(UserError, match="job 77"):
        submit(linked)
    assert fake.option(0, "comment") == str(folder.resolve())


def test_what_a_sites_own_sbatch_says_around_the_number_is_passed_over(fake: FakeSlurm, overrides: list[str]) -> None:
    work = opened(overrides)
    fake.says("greeting", "Welcome to the cluster.\nYou have 3 files.\n")
    submit(work)
    assert read_json(work.folder.jobs, list)[0]["jobs"] == {"train": "10", "serve": "20", "report": "30"}
    fake.says("cluster", " was submitted")
    with pytest.raises(UserError, match=r"sbatch does not end with the number of a job.*40 was submitted") as caught:
        submit(work)
    assert "squeue" in caught.value.remedy


def test_a_job_of_another_cluster_is_asked_for_and_cancelled_there(fake: FakeSlurm, overrides: list[str]) -> None:
    fake.says("cluster", ";west")
    work = opened(overrides)
    submit(work)
    assert fake.option(1, "dependency") == "afterany:10"
    fake.holds(work.folder.root, {"10_0": "PENDING", "20": "PENDING", "30": "PENDING"})
    assert "job 40;west  train   1 tasks: compliance/1" in said(work)
    assert any("--clusters=west" in call for call in fake.calls if call.startswith("squeue"))
    assert fake.cancelled == ["--state=PENDING --clusters=west 20 30"]


def test_without_a_serving_job_the_report_waits_for_the_array(fake: FakeSlurm, overrides: list[str]) -> None:
    submit(opened([*overrides, "stages=[train,analyse,report]"]))
    assert fake.option(1, "dependency") == "afterany:10"


def test_two_commands_at_once_submit_one_review_once(fake: FakeSlurm, overrides: list[str]) -> None:
    work, other = opened(overrides), opened(overrides)
    submit(work)
    before = fake.calls
    with work.folder.submitting(), pytest.raises(UserError, match=r"another holdfast is working in .*slurm"):
        submit(other)
    assert fake.calls == before


def test_the_jobs_logs_are_their_owners_alone(fake: FakeSlurm, overrides: list[str]) -> None:
    """They hold the end of a server's log, which may quote a prompt."""
    work, old = opened(overrides), os.umask(0o022)
    try:
        submit(work)
        folder = work.folder.root / "slurm"
        assert folder.stat().st_mode & 0o777 == 0o700
        folder.chmod(0o755)  # as an earlier Holdfast left it
        stands(work, "compliance/0", "done")
        submit(work)
        assert folder.stat().st_mode & 0o777 == 0o700
    finally:
        os.umask(old)


@pytest.mark.parametrize("panel", [False, True])
def test_weights_of_a_judge_that_cannot_be_had_are_told_before_a_job_is_submitted(
    panel: bool, fake: FakeSlurm, overrides: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A compute node may have no way to the Hub: it would be found when all is trained and served."""
    judge = ["panel=none", "+judge@panel.guard=wildguard"] if panel else ["judge=wildguard"]
    key = "panel.guard" if panel else "judge"
    with pytest.raises(UserError) as caught:
        submit(opened([*overrides, *judge, f"{key}.llm.serve=true"]))
    assert f"{key}.llm.path: cannot get allenai/wildguard" in caught.value.what
    assert fake.submitted == []
    submit(opened([*overrides, *judge, f"{key}.llm.serve=true", "stages=[train,generate]"]))  # nobody is judged
    assert len(fake.submitted) == 2
