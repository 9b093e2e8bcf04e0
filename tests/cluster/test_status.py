"""What is said of each task and job of a run: by `stages=[status]`, and by the measuring that refuses."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from commands import run_main
from fake_slurm import FakeSlurm
from finished_run import finish, words
from rich.console import Console

from pipeline.cluster.queued import Job, Queued
from pipeline.cluster.table import Line, _log, lines, other_jobs, whole
from pipeline.cluster.task import require_trained, status_of
from pipeline.config.compose import load
from pipeline.errors import UserError
from pipeline.files import read_json, write_json
from pipeline.journal import SharedJournal
from pipeline.ledger import Ledger
from pipeline.records import Dose, Rung
from pipeline.rungs import row
from pipeline.schema import BudgetConfig
from pipeline.store import RunFolder
from pipeline.workspace import Workspace

SUBMITTED = {"at": "2026-11-22 10:00:00+00:00", "jobs": {"train": "10", "serve": "20", "report": "30"}}


def opened(overrides: list[str]) -> Workspace:
    return Workspace(load(overrides), Console(file=io.StringIO(), width=300))


def says(folder: RunFolder, task: str, **said: Any) -> None:
    write_json(folder.root / "tasks" / task.replace("/", "-s") / "status.json", said)


def rows(folder: RunFolder) -> list[dict[str, Any]]:
    return list(SharedJournal(folder.ledger, folder.root).rows())


def table(folder: RunFolder, plan: Any, queued: Queued | None = None) -> list[Line]:
    return lines(folder, json.loads(json.dumps(plan)), rows(folder), queued)


def test_the_measuring_trusts_the_tasks_own_word_alone(tmp_path: Path, tiny_folder: Path) -> None:
    work = opened([*words(tmp_path, tiny_folder), "seeds=[0,1]"])
    with pytest.raises(UserError, match=r"2 of 2 tasks are not trained: compliance/0 \(not begun\)"):
        require_trained(work)
    says(work.folder, "compliance/0", state="done")
    says(work.folder, "compliance/1", state="paused")
    with pytest.raises(UserError, match=r"1 of 2 tasks are not trained: compliance/1 \(paused\)"):
        require_trained(work)
    says(work.folder, "compliance/1", state="done")
    require_trained(work)


def test_a_task_that_is_not_trained_is_named_with_its_error_and_its_log(tmp_path: Path, tiny_folder: Path) -> None:
    work = opened([*words(tmp_path, tiny_folder), "seeds=[0,1]"])
    folder = work.folder
    tasks = ["compliance/0", "compliance/1"]
    first = SUBMITTED | {"tasks": tasks}
    write_json(folder.jobs, [first, SUBMITTED | {"tasks": tasks[1:], "jobs": {"train": "40;west"}}])
    for log in ("train-10_0.log", "train-10_1.log", "train-40_0.log"):
        (folder.jobs.parent / log).touch()
    says(folder, "compliance/0", state="failed", detail="UserError")
    with pytest.raises(UserError) as caught:
        require_trained(work)
    assert "compliance/0 (failed: UserError, see slurm/train-10_0.log)" in caught.value.what
    assert "compliance/1 (not begun, see slurm/train-40_0.log)" in caught.value.what, "its set-up failed, maybe"


def test_tasks_on_different_gpus_are_told(tmp_path: Path, tiny_folder: Path) -> None:
    work = opened([*words(tmp_path, tiny_folder), "seeds=[0,1]"])
    for seed, devices in enumerate((["NVIDIA H100"], ["NVIDIA H100"])):
        says(work.folder, f"compliance/{seed}", state="done", devices=devices)
    require_trained(work)
    assert work.console.file.getvalue() == ""  # type: ignore[attr-defined]
    says(work.folder, "compliance/1", state="done", devices=["NVIDIA A100", "NVIDIA H100"])  # requeued on another
    require_trained(work)
    said = work.console.file.getvalue()  # type: ignore[attr-defined]
    assert "different devices: compliance/0 on NVIDIA H100; compliance/1 on NVIDIA A100, NVIDIA H100" in said


def queue(states: Mapping[str, tuple[str, str]]) -> Queued:
    """Return a queue that holds jobs of `SUBMITTED`: JOB or JOB_INDEX to state and reason."""
    kinds = {job: kind for kind, job in SUBMITTED["jobs"].items()}  # type: ignore[attr-defined]
    tasks = ["compliance/0", "compliance/1"]
    found = []
    for name, (state, reason) in states.items():
        number, _, place = name.partition("_")
        found.append(Job(name, number, kinds[number], tasks[int(place)] if place else "", state, reason))
    return Queued([SUBMITTED | {"tasks": tasks}], found)


def test_the_table_shows_each_task_of_a_local_run_and_of_an_array(tmp_path: Path, tiny_folder: Path) -> None:
    folder = RunFolder(finish([*words(tmp_path, tiny_folder), "seeds=[0]"]))
    plan = read_json(folder.plan)
    (local,) = table(folder, plan)
    assert (local.state, local.rungs, local.planned, local.step) == ("done", 2, 2, 2)
    assert local.limit == plan["tasks"][0]["caps"]["device_seconds"]
    task = RunFolder(folder.root, "compliance-s1")
    plan["tasks"].append({**plan["tasks"][0], "seed": 1})
    (_, waiting) = table(folder, plan)
    assert (waiting.state, waiting.rungs, waiting.used) == ("not begun", 0, 0.0)
    assert _log(folder, waiting) is None
    write_json(folder.jobs, [SUBMITTED | {"tasks": ["compliance/1"], "jobs": {"train": "40"}}])
    (folder.jobs.parent / "train-40_0.log").touch()
    assert _log(folder, waiting) == "slurm/train-40_0.log"  # its job may have ended before it could say so
    assert _log(folder, replace(waiting, slurm="PENDING")) is None
    folder.jobs.unlink()
    says(folder, "compliance/1", state="running", start=2, node="n7")
    task.rungs.append([row(Rung("compliance-s1-00001", "compliance", 1, 1, dose=Dose(1, tokens=50)))])
    with Ledger(task.ledger, BudgetConfig(), "cpu").attempt("train", "compliance", 1):
        (_, running) = table(folder, plan, queue({"10_1": ("RUNNING", "None")}))
    assert (running.state, running.step, running.tokens, running.start, running.node) == ("running", 1, 50, 2, "n7")
    assert running.cells()[-1] == "RUNNING"
    assert whole(folder, plan, rows(folder))[-1] == "verdict: none yet"


def test_a_task_that_slurm_does_not_have_any_more_does_not_run(tmp_path: Path, tiny_folder: Path) -> None:
    """Out of memory, out of time, a node's failure: nobody was left to say so."""
    work = opened([*words(tmp_path, tiny_folder), "seeds=[0,1]"])
    folder, plan = work.folder, json.loads(json.dumps(work.plan))
    says(folder, "compliance/0", state="running", detail="")
    says(folder, "compliance/1", state="failed", detail="OutOfMemoryError")
    assert [line.state for line in table(folder, plan)] == ["running", "failed"], "nobody asked Slurm"
    killed, failed = table(folder, plan, queue({"20": ("PENDING", "Dependency")}))
    assert (killed.state, killed.cells()[-1]) == ("killed", "-")
    assert failed.cells()[1] == "failed (OutOfMemoryError)"
    again, _ = table(folder, plan, queue({"10_0": ("PENDING", "BeginTime")}))
    assert (again.state, again.cells()[-1]) == ("killed", "PENDING (BeginTime)")
    ending, _ = table(folder, plan, queue({"10_0": ("COMPLETING", "None")}))
    assert (ending.state, ending.cells()[-1]) == ("running", "COMPLETING")


def test_a_job_that_left_the_queue_is_told_until_there_is_a_verdict(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    waits = queue({"20": ("RUNNING", "None"), "30": ("PENDING", "Dependency")})
    assert other_jobs(folder, waits) == ["job serve 20: RUNNING", "job report 30: PENDING (Dependency)"]
    assert other_jobs(folder, queue({"10_0": ("RUNNING", "None")})) == [
        "job serve 20: not in the queue any more, see slurm/serve-20.log",
        "job report 30: not in the queue any more, see slurm/report-30.log",
    ]
    write_json(folder.verdict, {"verdict": "holds"})
    os.utime(folder.verdict, (1e9, 1e9))  # of an earlier submission
    assert len(other_jobs(folder, queue({}))) == 2
    write_json(folder.verdict, {"verdict": "holds"})
    os.utime(folder.verdict, (2e9, 2e9))
    assert other_jobs(folder, queue({})) == []


def test_status_prints_and_takes_no_lock(
    tmp_path: Path, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any
) -> None:
    folder = RunFolder(finish(words(tmp_path, tiny_folder)))
    asked = ["stages=[status]", f"run.dir={folder.root}"]
    with folder.locked():
        said = run_main(asked, monkeypatch, capfd).err
    assert "compliance/0" in said
    assert "2/2" in said
    fake = FakeSlurm(tmp_path / "site", monkeypatch)
    write_json(folder.jobs, [{**SUBMITTED, "tasks": ["compliance/0"]}])
    fake.holds(folder.root, {"20": "PENDING"}, "Priority")
    (folder.jobs.parent / "train-10_0.log").touch()
    says(folder, "compliance/0", state="running")
    said = run_main(asked, monkeypatch, capfd).err
    assert "job serve 20: PENDING (Priority)" in said
    assert "compliance/0 killed: see slurm/train-10_0.log" in said
    assert "job report 30: not in the queue any more, see slurm/report-30.log" in said
    (tmp_path / "site" / "squeue").write_text("#!/bin/sh\necho no controller >&2; exit 1\n")
    said = run_main(asked, monkeypatch, capfd).err
    assert "compliance/0  running" in said
    assert "Slurm was not asked: squeue ended with 1: no controller" in said
    assert "there is no run in" in run_main(["stages=[status]", f"run.dir={tmp_path}"], monkeypatch, capfd, 2).err
    assert status_of(folder.root, "compliance/7") == {}


def test_another_users_run_is_shown_without_what_is_that_users_alone(
    tmp_path: Path, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any
) -> None:
    folder = RunFolder(finish(words(tmp_path, tiny_folder)))
    FakeSlurm(tmp_path / "site", monkeypatch)
    says(folder, "compliance/0", state="failed", detail="UserError")
    real = Path.exists

    def refuse(path: Path) -> bool:
        if path == folder.jobs:
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(Path, "exists", refuse)  # the tests may run as root, whom no mode keeps out
    said = run_main(["stages=[status]", f"run.dir={folder.root}"], monkeypatch, capfd).err
    assert "failed (UserError)" in said
    assert f"Slurm was not asked: {folder.root / 'slurm'} is its owner's alone" in said
