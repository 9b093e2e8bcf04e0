"""Faults of `cluster` in a configuration, told before anything is submitted."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from spoken import REVIEW

from pipeline.config.cluster import gpus_in_extra
from pipeline.config.compose import load
from pipeline.errors import UserError


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("cluster.kind=lsf", "cluster.kind: 'lsf' is unknown"),
        ("cluster.job=cook", "cluster.job: 'cook' is unknown"),
        ("cluster.job=train", "cluster.task: a job of kind train"),
        ("cluster.task=compliance/0", "cluster.task: a job of kind train"),
        ("cluster.slurm.at_once=0", "cluster.slurm.at_once: 0 must be 1 or more"),
        ("cluster.slurm.signal_s=65536", "cluster.slurm.signal_s: 65536 must be 65535 or less"),
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


@pytest.mark.parametrize("kind", ["train", "serve", "report"])
@pytest.mark.parametrize(
    ("word", "own"),
    [
        ("--comment=PROJECT", "--comment"),
        ("--comm=PROJECT", "--comment"),  # as sbatch allows it
        ("--comment", "--comment"),
        ("--array=0-7", "--array"),
        ("-a0-7", "-a"),
        ("--dependency=singleton", "--dependency"),
        ("-d", "-d"),
        ("--clusters=west", "--clusters"),
        ("-M", "-M"),
        ("--no-requeue", "--no-requeue"),
        ("--export=NONE", "--export"),
    ],
)
def test_options_by_which_its_jobs_would_be_lost_are_told(kind: str, word: str, own: str) -> None:
    with pytest.raises(UserError) as caught:
        load(["cluster=slurm", f"cluster.slurm.{kind}.extra=['{word}']"])
    assert f"cluster.slurm.{kind}.extra: '{word}': {own} is for Holdfast to give" in caught.value.what


@pytest.mark.parametrize("word", ["--exclusive", "--constraint=a", "--mail-user=a@b", "--export-file=f", "-C", "-A"])
def test_other_options_of_a_site_are_its_own(word: str) -> None:
    assert load(["cluster=slurm", f"cluster.slurm.train.extra=['{word}']"]).cluster.slurm.train.extra == [word]


TEMPLATE = [*REVIEW, "cluster=slurm"]
ONE_EACH = ("cluster.slurm.train.gpus=1", "cluster.slurm.serve.gpus=1")
FOUR = ("serve.tensor_parallel_size=2", "serve.data_parallel_size=2", "budget.devices=4", "cluster.slurm.serve.gpus=4")
BY_NAME = ("cluster.slurm.train.extra=['--gres=gpu:h100:1']", "cluster.slurm.serve.extra=['--gpus=1']")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ((), "cluster.slurm.train.gpus: cluster=slurm asks for no GPU, and serve.device=cuda needs one"),
        (ONE_EACH[:1], "cluster.slurm.serve.gpus: cluster=slurm asks for no GPU"),
        ((*ONE_EACH, "cluster.slurm.serve.gpus=4"), "cluster.slurm.serve.gpus: 4, but serving holds 1"),
        ((*ONE_EACH, *FOUR[:3]), "cluster.slurm.serve.gpus: 1, but serving holds 4"),
        ((*ONE_EACH, *FOUR, "cluster.slurm.train.gpus=4"), "cluster.slurm.train.gpus: 4, but one fine-tune holds 1"),
        ((*ONE_EACH, *FOUR, "budget.training_devices=2"), "cluster.slurm.train.gpus: 1, but one fine-tune holds 2"),
        (
            ("cluster.slurm.train.extra=['--gres=gpu:h100:4']", BY_NAME[1]),
            "cluster.slurm.train.extra: 4, but one fine-tune holds 1",
        ),
        ((*BY_NAME, *FOUR[:3]), "cluster.slurm.serve.extra: 1, but serving holds 4"),
        ((*BY_NAME, "budget.devices=2"), "budget.devices: 2, but serving holds 1"),
        ((*BY_NAME, ONE_EACH[0]), "cluster.slurm.train.gpus: 1, and 1 in extra: asked for twice; set gpus=0"),
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
        BY_NAME,
        ("cluster.slurm.train.extra=['--exclusive']", BY_NAME[1]),  # whole nodes: no number to hold against
        ("cluster=large_site",),
    ],
)
def test_jobs_that_hold_what_they_work_on_are_not_complained_of(given: Sequence[str]) -> None:
    assert load([*TEMPLATE, *given]).cluster.kind == "slurm"


@pytest.mark.parametrize(
    ("options", "count"),
    [
        (["--gres=gpu:h100:4"], 4),
        (["--gres", "gpu:2"], 2),
        (["--gres=gpu"], 1),
        (["--gres=nvme:100,gpu:h100"], 1),
        (["--gres=gres:gpu:a100:3"], 3),
        (["--tres-per-node=gres/gpu:h100=8"], 8),
        (["--gpus-per-node=h100:4"], 4),
        (["--gpus=a100:1,h100:2"], 3),
        (["-G", "4"], 4),
        (["-G2"], 2),
        (["--gpus-per-task=2", "--cpus-per-gpu=8", "--mem-per-gpu=64G"], 2),
        (["--gres=nvme:100", "--exclusive", "--exclude=gpu01"], 0),
        ([], 0),
    ],
)
def test_the_gpus_that_a_sites_options_name_are_counted(options: list[str], count: int) -> None:
    assert gpus_in_extra(options) == count


def test_a_task_that_is_not_planned_is_told() -> None:
    with pytest.raises(UserError, match="'compliance/7' is not planned; there are compliance/0"):
        load(["cluster.job=train", "cluster.task=compliance/7"])
