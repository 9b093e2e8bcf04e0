"""A review as jobs of a real Slurm: preempted, requeued, cancelled, submitted again, and held against one machine's."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from slurm_site import SlurmSite, wait

from pipeline.cluster.task import status_of
from pipeline.contain import containment
from pipeline.ledger import Ledger
from pipeline.reproduce.results import facts
from pipeline.schema import BudgetConfig
from pipeline.store import RunFolder
from tests.warm import start

TIMES = {"device_seconds", "device_hours", "usd", "budget", "price_range", "search"}
SHORT = (
    *("experiment=smoke", "track=none", "seeds=[0,1,2]", "arms.compliance.training.max_steps=64"),
    *("review.bootstrap=200", "review.canaries=4", "evals.refusal.table.limit=12"),
    *("evals.over_refusal.table.limit=8", "evals.capability.table.limit=12"),
)
DEMO = ("track=none",)
PREEMPTED, REQUEUED = 0, 1  # places in the array; the last task is cancelled


@dataclass
class Review:
    """A review on the cluster; `arrays` are its submissions, oldest first."""

    site: SlurmSite
    root: Path
    words: tuple[str, ...]

    def submit(self) -> str:
        command = (sys.executable, "-m", "pipeline", "cluster=slurm", *self.words, f"run.root={self.root}")
        more = ("cluster.slurm.partition=low", "cluster.slurm.at_once=2")
        # As where a site's default keeps the environment of sbatch from its jobs.
        environment = {**self.site.environment, "SBATCH_EXPORT": "NONE"}
        done = subprocess.run(
            [*command, *more], env=environment, capture_output=True, text=True, check=False, timeout=300
        )
        assert done.returncode == 0, done.stderr
        return done.stderr

    @property
    def folder(self) -> Path:
        (found,) = self.root.iterdir()
        return found

    def jobs(self) -> list[dict[str, Any]]:
        return list(json.loads((self.folder / "slurm" / "jobs.json").read_text()))

    def climbing(self, task: str) -> bool:
        """Say whether a task has saved a rung and goes on."""
        rungs = self.folder / "tasks" / task.replace("/", "-s") / "rungs.jsonl"
        return rungs.exists() and status_of(self.folder, task).get("state") == "running"

    def ended(self, *jobs: str) -> bool:
        queue = self.site.said("squeue", "--noheader", "--array", "--format=%i").split()
        return not {job.split("_")[0] for job in queue} & set(jobs)

    def ledger(self) -> Ledger:
        folder = RunFolder(self.folder)
        return Ledger(folder.ledger, BudgetConfig(), "cpu", folder.ledgers())


def timeless(value: Any) -> Any:
    """Return nested plain data without times and prices, also where a sentence tells them."""
    if isinstance(value, dict):
        return {key: timeless(item) for key, item in value.items() if key not in TIMES}
    if isinstance(value, str):
        priced = re.sub(r"\([\d.,]+ device-seconds[^)]*\)", "(a price)", value)
        return re.sub(r"up to (\d+ steps), [\d.,]+ device-seconds", r"up to \1", priced)
    return [timeless(item) for item in value] if isinstance(value, list) else value


def disturbed(review: Review) -> None:
    """Let one task be preempted, another be requeued by hand, the last be cancelled; then submit what is left."""
    review.submit()
    site, (first,) = review.site, review.jobs()
    array, tasks = first["jobs"]["train"], first["tasks"]
    wait(lambda: review.climbing(tasks[PREEMPTED]) and review.climbing(tasks[REQUEUED]), 120, "two tasks that climb")
    site.said("scontrol", "requeue", f"{array}_{REQUEUED}")
    site.said("sbatch", "--partition=high", "--ntasks=1", "--cpus-per-task=8", "--output=/dev/null", "--wrap=sleep 1")
    wait(lambda: review.climbing(tasks[-1]), 600, "the last task")
    site.said("scancel", f"{array}_{len(tasks) - 1}")
    wait(lambda: review.ended(*first["jobs"].values()), 300, "the end of the first jobs")
    assert not (review.folder / "verdict.json").exists()
    review.submit()
    second = review.jobs()[1]
    assert second["tasks"] == [tasks[-1]], "what is done is not submitted again"
    wait(lambda: review.ended(*second["jobs"].values()), 600, "the end of all jobs")


def check(review: Review, single: Path) -> None:
    folder = review.folder
    logs = "".join(path.read_text() for path in sorted((folder / "slurm").glob("*.log")))
    assert (folder / "verdict.json").exists(), logs
    first, second = review.jobs()
    starts = {task: status_of(folder, task)["start"] for task in first["tasks"]}
    assert {status_of(folder, task)["state"] for task in starts} == {"done"}
    assert min(starts[first["tasks"][place]] for place in (PREEMPTED, REQUEUED)) >= 2, starts
    assert "1 of 3 tasks are not trained: compliance/2 (paused, see slurm/train-" in logs or len(starts) > 3, logs
    here, there = (json.loads((path / "verdict.json").read_text()) for path in (folder, single))
    assert facts(here) == facts(there)
    assert timeless(here) == timeless(there)
    rungs = [
        {row["id"]: (row["sha256"], row["dose"]["flops"]) for row in RunFolder(f).rungs.rows()}
        for f in (folder, single)
    ]
    assert rungs[0] == rungs[1], "bit for bit the weights of an undisturbed climb"
    assert containment(RunFolder(folder))["state"] == "destroyed"
    jobs = [job for row in (first, second) for kind, job in row["jobs"].items() if kind != "report"]
    wait(lambda: len(review.site.accounted(jobs)) == len(starts) + 3, 20, "accounts of all jobs")
    billed = sum(seconds for each in review.site.accounted(jobs).values() for _, seconds in each)
    spent = review.ledger().spent().device_seconds
    print(f"sacct {billed} device-seconds, ledger {spent:.1f}: {spent / billed:.3f}")
    assert spent == pytest.approx(billed, rel=0.1), review.site.accounted(jobs)


@pytest.fixture(scope="module")
def single(tmp_path_factory: pytest.TempPathFactory, warm: Callable[[str], Path]) -> Path:
    """The same review on this machine alone, forked (`tests/warm.py`) before the one on Slurm; return its folder."""
    root = tmp_path_factory.mktemp("single")
    said = root.with_suffix(".log")
    assert start(["holdfast", *SHORT, f"run.root={root}"], warm, said).wait(600) == 0, said.read_text()
    return next(root.iterdir())


@pytest.mark.timeout(1200)  # 2 to 5 minutes on two cores, most of it the start of vLLM, twice
def test_an_array_that_is_disturbed_gives_the_verdict_of_one_machine(
    site: SlurmSite, single: Path, tmp_path: Path
) -> None:
    review = Review(site, tmp_path, SHORT)
    disturbed(review)
    check(review, single)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_the_demo_as_an_array_gives_the_verdict_of_one_machine(site: SlurmSite, tmp_path: Path) -> None:
    command = (sys.executable, "-m", "pipeline", *DEMO, f"run.root={tmp_path / 'single'}")
    subprocess.run(command, check=True, capture_output=True, timeout=1800)
    review = Review(site, tmp_path / "array", DEMO)
    disturbed(review)
    check(review, next((tmp_path / "single").iterdir()))


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_budget_that_ends_in_the_middle_is_shared_by_the_array(site: SlurmSite, tmp_path: Path) -> None:
    cap, reserve = 3.2e10, 0.2
    review = Review(site, tmp_path, (*SHORT, f"budget.flops={cap}", f"budget.measure_reserve={reserve}"))
    review.submit()
    (only,) = review.jobs()
    array, tasks = only["jobs"]["train"], only["tasks"]
    wait(lambda: review.climbing(tasks[PREEMPTED]) and review.climbing(tasks[REQUEUED]), 120, "two tasks that climb")
    site.said("scontrol", "requeue", f"{array}_{REQUEUED}")  # what it spent stays spent
    wait(lambda: review.ended(*only["jobs"].values()), 600, "the end of all jobs")
    verdict = json.loads((review.folder / "verdict.json").read_text())
    assert verdict["verdict"] in ("inconclusive", "collapses")
    rungs = [row for row in RunFolder(review.folder).rungs.rows() if row["arm"]]
    last = {seed: max(row["step"] for row in rungs if row["seed"] == seed) for seed in (0, 1, 2)}
    assert all(1 <= step < 64 for step in last.values()), last
    step = 1.1 * max(row["dose"]["flops"] for row in rungs if row["step"] == 1)  # steps are about equally long
    spent = verdict["budget"]["by_stage"]
    print(f"trained to steps {last}; {spent}")
    assert spent["train"]["flops"] <= (1 - reserve) * cap + step * len(tasks)
    assert verdict["budget"]["flops"]["spent"] <= cap + step * len(tasks)
