"""Faults of `cluster` in a configuration, told with all others before anything runs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from omegaconf import DictConfig

KINDS: Final = ("local", "slurm")
JOBS: Final = ("train", "serve", "report")


def cluster_faults(raw: DictConfig) -> Iterator[str]:
    """Yield each fault as "key: what is wrong"."""
    if "status" in raw.stages:
        if list(raw.stages) != ["status"]:
            yield "stages: status stands alone, as in stages=[status]: it reads a run folder"
        if not raw.run.get("dir"):
            yield "run.dir: missing; stages=[status] needs a run folder, run.dir=FOLDER"
    cluster = raw.cluster
    if cluster.get("kind", "local") not in KINDS:
        yield f"cluster.kind: {cluster.kind!r} is unknown; use one of {', '.join(KINDS)}"
    job, task = cluster.get("job"), cluster.get("task")
    if cluster.get("kind") == "slurm" and job is None:
        yield from _submission_faults(raw)
    if job not in (None, *JOBS):
        yield f"cluster.job: {job!r} is unknown; use one of {', '.join(JOBS)}"
    if (job == "train") != (task is not None):
        yield "cluster.task: a job of kind train, and no other, has one arm and seed, ARM/SEED"
    elif task is not None and task not in _tasks(raw):
        yield f"cluster.task: {task!r} is not planned; there are {', '.join(_tasks(raw))}"
    slurm = cluster.get("slurm") or {}
    for key, least in (("at_once", 1), ("signal_s", 1), ("max_requeues", 0)):
        if slurm.get(key) is not None and slurm[key] < least:
            yield f"cluster.slurm.{key}: {slurm[key]} must be {least} or more"


def _submission_faults(raw: DictConfig) -> Iterator[str]:
    # The command ends when the jobs are submitted: with 0, which the gate's reader takes for `holds`.
    if raw.review.get("gate"):
        yield "review.gate: what submits has no verdict; gate the finished run: stages=[analyse,report] cluster=local"
    if "publish" in raw.stages:
        yield "stages: no job publishes; give stages=[publish] cluster=local when the review is done"
    for kind, stage in (("train", "train"), ("serve", "generate")):
        if stage in raw.stages:
            yield from _gpu_faults(raw, kind)


def _gpu_faults(raw: DictConfig, kind: str) -> Iterator[str]:
    """Yield where a job asks for other GPUs than it works on: the ledger would count others than are held."""
    key, job = f"cluster.slurm.{kind}.gpus", (raw.cluster.get("slurm") or {}).get(kind) or {}
    asked = job.get("gpus", 0)
    if not asked:
        if raw.serve.device == "cuda" and not asks_in_extra(job.get("extra") or []):
            yield f"{key}: cluster=slurm asks for no GPU, and serve.device=cuda needs one"
        return
    if kind == "train":
        held, words = raw.budget.get("training_devices") or 1, "one fine-tune holds {} (budget.training_devices)"
    else:
        held = raw.serve.tensor_parallel_size * raw.serve.data_parallel_size
        words = "serving holds {} (serve.tensor_parallel_size x data_parallel_size)"
    if kind == "serve" and held != raw.budget.devices:
        yield f"budget.devices: {raw.budget.devices}, but {words.format(held)}: the ledger would count others"
    if asked != held:
        yield f"{key}: {asked}, but {words.format(held)}: the rest would be paid for and idle, or be lacking"


def asks_in_extra(options: Iterable[str]) -> bool:
    """Say whether a site's own options ask for GPUs, as in --gres=gpu:h100:4."""
    ways = ("--gres", "--tres", "-G", "--exclusive")  # the last where whole nodes with GPUs are given out
    return any("gpu" in word or word.startswith(ways) for word in options)


def _tasks(raw: DictConfig) -> list[str]:
    return [f"{arm}/{seed}" for arm in raw.get("arms") or {} for seed in raw.seeds]
