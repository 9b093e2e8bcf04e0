"""What is asked of Slurm, what is refused before, and what the table says; for Slurm itself see test_slurm_real."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from commands import run_main
from finished_run import finish, words
from rich.console import Console
from spoken import REVIEW

from pipeline.budget import Ledger
from pipeline.cluster import slurm
from pipeline.cluster.submit import asked_for, submit
from pipeline.cluster.table import lines, whole
from pipeline.cluster.task import require_trained, status_of
from pipeline.config.compose import load, shipped
from pipeline.errors import UserError
from pipeline.records import Dose, Rung
from pipeline.rungs import row
from pipeline.schema import BudgetConfig
from pipeline.store import RunFolder, SharedJournal, read_json, write_json
from pipeline.workspace import Workspace


def test_a_site_is_told_all_that_its_file_says() -> None:
    slurm = load(["cluster=large_site"]).cluster.slurm
    train, report = asked_for(slurm, slurm.train), asked_for(slurm, slurm.report)
    for option in ("--partition=preemptible", "--account=model-safety", "--gpus-per-node=1", "--time=04:00:00"):
        assert option in train
    assert "--signal=B:USR1@300" in train
    assert {"--requeue", "--kill-on-invalid-dep=yes"} <= set(train)
    assert "--partition=cpu" in report
    assert not any(option.startswith("--gpus") for option in report)
    bare = load(["cluster=slurm"]).cluster.slurm
    assert not any(
        o.startswith(("--partition", "--account", "--qos", "--mem", "--time")) for o in asked_for(bare, bare.train)
    )


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("cluster.kind=lsf", "cluster.kind: 'lsf' is unknown"),
        ("cluster.job=cook", "cluster.job: 'cook' is unknown"),
        ("cluster.job=train", "cluster.task: a job of kind train"),
        ("cluster.task=compliance/0", "cluster.task: a job of kind train"),
        ("cluster.slurm.at_once=0", "cluster.slurm.at_once: 0 must be 1 or more"),
        ("stages=[status]", "run.dir: missing"),
        ("stages=[train,status]", "stages: status stands alone"),
    ],
)
def test_faults_are_told_before_anything_runs(given: str, said: str) -> None:
    with pytest.raises(UserError, match=said.replace("'", ".")):
        load([given])


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("review.gate=true", "review.gate: what submits has no verdict"),
        ("stages=[plan,train,generate,score,analyse,report,publish]", "stages: no job publishes"),
    ],
)
def test_what_no_job_can_do_is_told_before_one_is_submitted(given: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        load(["cluster=slurm", given])


TEMPLATE = [*REVIEW, "cluster=slurm"]
ONE_EACH = ("cluster.slurm.train.gpus=1", "cluster.slurm.serve.gpus=1")
FOUR = ("serve.tensor_parallel_size=2", "serve.data_parallel_size=2", "budget.devices=4", "cluster.slurm.serve.gpus=4")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ((), "cluster.slurm.train.gpus: cluster=slurm asks for no GPU, and serve.device=cuda needs one"),
        (ONE_EACH[:1], "cluster.slurm.serve.gpus: cluster=slurm asks for no GPU"),
        ((*ONE_EACH, "cluster.slurm.serve.gpus=4"), "cluster.slurm.serve.gpus: 4, but serving holds 1"),
        ((*ONE_EACH, *FOUR[:3]), "cluster.slurm.serve.gpus: 1, but serving holds 4"),
        ((*ONE_EACH, *FOUR, "cluster.slurm.train.gpus=4"), "cluster.slurm.train.gpus: 4, but one fine-tune holds 1"),
        ((*ONE_EACH, *FOUR, "budget.training_devices=2"), "cluster.slurm.train.gpus: 1, but one fine-tune holds 2"),
    ],
)
def test_jobs_that_hold_other_gpus_than_they_work_on_are_told(given: Sequence[str], said: str) -> None:
    with pytest.raises(UserError) as caught:
        load([*TEMPLATE, *given])
    assert said in caught.value.what


@pytest.mark.parametrize(
    "given",
    [
        ONE_EACH,
        (*ONE_EACH, *FOUR),
        (*FOUR, "budget.training_devices=2", "cluster.slurm.train.gpus=2"),
        ("stages=[plan]",),
        ("stages=[analyse,report]",),
        ("stages=[train]", *ONE_EACH[:1]),
        ("serve.device=auto",),  # may be a site of CPUs
        ("cluster.slurm.train.extra=['--gres=gpu:h100:1']", "cluster.slurm.serve.extra=['--gpus=1']"),
        ("cluster=large_site",),
    ],
)
def test_jobs_that_hold_what_they_work_on_are_not_complained_of(given: Sequence[str]) -> None:
    assert load([*TEMPLATE, *given]).cluster.kind == "slurm"


def test_a_task_that_is_not_planned_is_told() -> None:
    with pytest.raises(UserError, match="'compliance/7' is not planned; there are compliance/0"):
        load(["cluster.job=train", "cluster.task=compliance/7"])


def test_no_slurm_here_is_told_and_a_search_is_refused(
    tmp_path: Path, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    asked = [*words(tmp_path, tiny_folder), "cluster=slurm"]
    said = run_main(asked, monkeypatch, capfd, 2)
    assert "sbatch is not installed here" in said.err or "squeue is not installed here" in said.err
    (folder,) = (tmp_path / "runs").iterdir()
    assert (folder / "plan.json").exists()
    assert not (folder / "slurm" / "jobs.json").exists()


class FakeQueue:
    """Slurm's answers where a real queue would have to be held in a state: see test_slurm_real for the real one."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.states: dict[str, str] = {}
        self.submitted: list[list[str]] = []
        self.cancelled: list[str] = []
        monkeypatch.setattr(slurm, "sbatch", self.sbatch)
        monkeypatch.setattr(slurm, "queue", lambda jobs, comment: self.states)
        monkeypatch.setattr(slurm, "cancel", self.cancelled.extend)

    def sbatch(self, given: Sequence[str], environment: Mapping[str, str]) -> str:
        self.submitted.append([environment["HOLDFAST_TASKS"], *given])
        return str(10 * len(self.submitted))

    def option(self, place: int, name: str) -> str | None:
        found = [word.partition("=")[2] for word in self.submitted[place] if word.startswith(f"--{name}=")]
        return found[0] if found else None


def test_the_same_command_submits_what_is_neither_done_nor_in_the_queue(
    tmp_path: Path, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue = FakeQueue(monkeypatch)
    overrides = [*words(tmp_path, tiny_folder), "seeds=[0,1,2,3]", "cluster=slurm", "cluster.slurm.at_once=2"]
    work = Workspace(load(overrides), Console(quiet=True))
    submit(work)
    assert [row[0] for row in queue.submitted] == ["compliance/0 compliance/1 compliance/2 compliance/3", "", ""]
    assert queue.option(0, "array") == "0-3%2"
    assert (queue.option(1, "dependency"), queue.option(2, "dependency")) == ("afterany:10", "afterok:20")
    assert {"stages=[train,generate,score]", "cluster.job=serve"} <= set(queue.submitted[1])
    leases = [read_json(path)["limits"] for path in sorted(work.folder.root.glob("tasks/*/lease.json"))]
    assert leases == [task["caps"] for task in work.plan["tasks"]]
    write_json(work.folder.root / "tasks" / "compliance-s0" / "status.json", {"state": "done"})
    write_json(work.folder.root / "tasks" / "compliance-s1" / "status.json", {"state": "preempted"})
    queue.states = {"10_1": "PENDING", "20": "PENDING", "30": "PENDING"}  # 2 and 3 were cancelled
    queue.submitted *= 0
    queue.submitted += [[""]] * 3
    submit(work)
    assert queue.cancelled == ["20", "30"], "they would start before what is submitted now has ended"
    assert queue.submitted[3][0] == "compliance/2 compliance/3"
    assert queue.option(4, "dependency") == "afterany:10:40"
    queue.states = {"50": "RUNNING"}
    with pytest.raises(UserError, match="job 50 of this review is at work"):
        submit(work)
    assert len(queue.submitted) == 6


def test_what_slurm_took_before_it_refused_is_on_record(
    tmp_path: Path, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the same command, its options mended, would train the same tasks a second time beside the first."""
    queue = FakeQueue(monkeypatch)
    work = Workspace(load([*words(tmp_path, tiny_folder), "seeds=[0,1]", "cluster=slurm"]), Console(quiet=True))
    taken = queue.sbatch

    def refuse_serve(given: Sequence[str], environment: Mapping[str, str]) -> str:
        if "cluster.job=serve" in given:
            raise UserError("sbatch: invalid generic resource", "mend cluster.slurm")
        return taken(given, environment)

    monkeypatch.setattr(slurm, "sbatch", refuse_serve)
    with pytest.raises(UserError, match="invalid generic resource"):
        submit(work)
    assert [row["jobs"] for row in read_json(work.folder.jobs)] == [{"train": "10"}]
    monkeypatch.setattr(slurm, "sbatch", taken)
    queue.states = {"10_0": "RUNNING", "10_1": "PENDING"}
    submit(work)
    assert [row[0] for row in queue.submitted[1:]] == ["", ""], "both tasks are in the queue"
    assert queue.option(1, "dependency") == "afterany:10"


def test_without_a_serving_job_the_report_waits_for_the_array(
    tmp_path: Path, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue = FakeQueue(monkeypatch)
    overrides = [*words(tmp_path, tiny_folder), "cluster=slurm", "stages=[train,analyse,report]"]
    submit(Workspace(load(overrides), Console(quiet=True)))
    assert queue.option(1, "dependency") == "afterany:10"


def test_the_measuring_trusts_the_tasks_own_word_alone(tmp_path: Path, tiny_folder: Path) -> None:
    overrides = [*words(tmp_path, tiny_folder), "seeds=[0,1]"]
    work = Workspace(load(overrides), Console(quiet=True))
    with pytest.raises(UserError, match=r"2 of 2 tasks are not trained: compliance/0 \(not begun\)"):
        require_trained(work)
    for seed, state in ((0, "done"), (1, "preempted")):
        write_json(work.folder.root / "tasks" / f"compliance-s{seed}" / "status.json", {"state": state})
    with pytest.raises(UserError, match=r"1 of 2 tasks are not trained: compliance/1 \(preempted\)"):
        require_trained(work)
    write_json(work.folder.root / "tasks" / "compliance-s1" / "status.json", {"state": "done"})
    require_trained(work)


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
    write_json(task.own / "status.json", {"state": "running", "start": 2, "node": "n7"})
    task.rungs.append([row(Rung("compliance-s1-00001", "compliance", 1, 1, dose=Dose(1, tokens=50)))])
    with Ledger(task.ledger, BudgetConfig(), "cpu").attempt("train", "compliance", 1):
        (_, running) = table(folder, plan, {"compliance/1": "RUNNING", "serve": "PENDING"})
    assert (running.state, running.step, running.tokens, running.start, running.node) == ("running", 1, 50, 2, "n7")
    assert running.cells()[-1] == "RUNNING"
    said = whole(folder, plan, ledger_rows(folder), {"serve": "PENDING"})
    assert "job serve: PENDING" in said
    assert said[-1] == "verdict: none yet"


def test_status_prints_and_takes_no_lock(
    tmp_path: Path, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any
) -> None:
    folder = RunFolder(finish(words(tmp_path, tiny_folder)))
    with folder.locked():
        said = run_main(["stages=[status]", f"run.dir={folder.root}"], monkeypatch, capfd).err
    assert "compliance/0" in said
    assert "2/2" in said
    (tmp_path / "squeue").write_text("#!/bin/sh\necho no controller >&2; exit 1\n")
    (tmp_path / "squeue").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    write_json(folder.root / "slurm" / "jobs.json", [{"jobs": {"train": "7"}, "tasks": ["compliance/0"]}])
    said = run_main(["stages=[status]", f"run.dir={folder.root}"], monkeypatch, capfd).err
    assert "compliance/0" in said
    assert "Slurm was not asked: squeue ended with 1: no controller" in said
    assert "there is no run in" in run_main(["stages=[status]", f"run.dir={tmp_path}"], monkeypatch, capfd, 2).err
    assert status_of(folder.root, "compliance/0") == {}


@pytest.mark.parametrize(
    ("signal", "code", "restarts", "requeued", "ended"),
    [
        ("USR1", 75, 0, True, 75),  # told to make room
        ("TERM", 75, 0, False, 75),  # cancelled, or Slurm requeues by itself
        ("USR1", 0, 0, False, 0),  # it had ended
        ("USR1", 75, 3, False, 75),  # too often
        ("", 2, 0, False, 2),  # a mistake of the user's
    ],
)
def test_a_job_is_requeued_only_where_it_made_room(
    tmp_path: Path, signal: str, code: int, restarts: int, requeued: bool, ended: int
) -> None:
    called = tmp_path / "called"
    (tmp_path / "scontrol").write_text(f'#!/bin/sh\necho "$@" > {called}\n')
    (tmp_path / "scontrol").chmod(0o755)
    heard = f"trap 'touch heard; exit {code}' USR1 TERM; touch ready; while :; do sleep 0.05; done"
    work = heard if signal else f"touch ready; exit {code}"
    environment = {
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "HOLDFAST_SLURM": str(shipped("slurm")),
        "HOLDFAST_TASKS": "compliance/0 compliance/1",
        "HOLDFAST_REQUEUES": "3",
        "HOLDFAST_SETUP": "export SITE=ready",
        "SLURM_ARRAY_TASK_ID": "1",
        "SLURM_JOB_ID": "17",
        "SLURM_RESTART_COUNT": str(restarts),
    }
    script = ("bash", str(shipped("slurm") / "train.sbatch"), "bash", "-c", f'echo "$SITE $0" > told; {work}')
    with subprocess.Popen(script, env=environment, cwd=tmp_path) as process:
        while not (tmp_path / "ready").exists():
            assert process.poll() is None or not signal
            time.sleep(0.01)
        if signal:
            process.send_signal({"USR1": 10, "TERM": 15}[signal])
        assert process.wait(20) == ended
    assert (tmp_path / "told").read_text() == "ready cluster.task=compliance/1\n"
    assert (tmp_path / "heard").exists() == bool(signal)
    assert called.exists() == requeued
    if requeued:
        assert called.read_text() == "requeue 17\n"


def ledger_rows(folder: RunFolder) -> list[dict[str, Any]]:
    return list(SharedJournal(folder.ledger, folder.root).rows())


def table(folder: RunFolder, plan: Any, queued: dict[str, str] | None = None) -> Any:
    return lines(folder, json.loads(json.dumps(plan)), ledger_rows(folder), queued or {})
