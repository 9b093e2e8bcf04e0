"""Faults of `cluster` in a configuration, told with all others before anything runs."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

from omegaconf import DictConfig

from pipeline.schema.serve import devices_held

KINDS: Final = ("local", "slurm")
JOBS: Final = ("train", "serve", "report")
# Options of sbatch that Holdfast gives itself: with others it would not find its jobs again, or they would not work.
OWN: Final = ("--array", "--clusters", "--comment", "--dependency", "--export", "--no-requeue")
_OWN_SHORT: Final = ("-a", "-M", "-d")
_GPU_OPTIONS: Final = ("--gpus", "--gpus-per-node", "--gpus-per-task")  # on one node, with one task, all the same
_GRES_OPTIONS: Final = ("--gres", "--tres-per-node", "--tres-per-task")  # of anything, as in gpu:h100:4, gres/gpu=4
SIGNAL_MOST_S: Final = 65_535  # sbatch's own limit


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
    yield from _slurm_faults(cluster.get("slurm") or {})


def _slurm_faults(slurm: Any) -> Iterator[str]:
    for key, least in (("at_once", 1), ("signal_s", 1), ("max_requeues", 0)):
        if slurm.get(key) is not None and slurm[key] < least:
            yield f"cluster.slurm.{key}: {slurm[key]} must be {least} or more"
    if slurm.get("signal_s", 1) > SIGNAL_MOST_S:
        yield f"cluster.slurm.signal_s: {slurm['signal_s']} must be {SIGNAL_MOST_S} or less, as sbatch has it"
    for kind in JOBS:
        for word in (slurm.get(kind) or {}).get("extra") or []:
            if own := _own(word):
                yield f"cluster.slurm.{kind}.extra: {word!r}: {own} is for Holdfast to give; leave it out"


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
    job = (raw.cluster.get("slurm") or {}).get(kind) or {}
    key, extra = f"cluster.slurm.{kind}.gpus", list(job.get("extra") or [])
    by_name = gpus_in_extra(extra)
    if job.get("gpus", 0) and by_name:
        yield f"{key}: {job['gpus']}, and {by_name} in extra: asked for twice; set gpus=0 where extra names them"
        return
    asked = job.get("gpus", 0) or by_name
    if not asked:
        if raw.serve.device == "cuda" and not asks_in_extra(extra):
            yield f"{key}: cluster=slurm asks for no GPU, and serve.device=cuda needs one"
        return
    yield from _count_faults(raw, kind, f"cluster.slurm.{kind}.extra" if by_name else key, asked)


def _count_faults(raw: DictConfig, kind: str, key: str, asked: int) -> Iterator[str]:
    if kind == "train":
        held, words = raw.budget.get("training_devices") or 1, "one fine-tune holds {} (budget.training_devices)"
    else:
        held = devices_held(raw.serve)
        words = "serving holds {} (serve.tensor_parallel_size x data_parallel_size)"
    if kind == "serve" and held != raw.budget.devices:
        yield f"budget.devices: {raw.budget.devices}, but {words.format(held)}: the ledger would count others"
    if asked != held:
        yield f"{key}: {asked}, but {words.format(held)}: the rest would be paid for and idle, or be lacking"


def asks_in_extra(options: Iterable[str]) -> bool:
    """Say whether a site's own options ask for GPUs, as in --gres=gpu:h100:4."""
    ways = ("--gres", "--tres", "-G", "--exclusive")  # the last where whole nodes with GPUs are given out
    return any("gpu" in word or word.startswith(ways) for word in options)


def gpus_in_extra(options: Sequence[str]) -> int:
    """Return how many GPUs a site's own options name, e.g. 4 by --gres=gpu:h100:4; 0 where they name no number."""
    found = 0
    for word, following in itertools.zip_longest(options, options[1:], fillvalue=""):
        option, given, value = word.partition("=")
        if option.startswith("-G"):
            option, value = "--gpus", word.removeprefix("-G").lstrip("=") or following
        elif not given:
            value = following
        items = value.split(",") if option in _GPU_OPTIONS else []
        if option in _GRES_OPTIONS:
            items = [item for item in value.split(",") if re.match(r"(gres[:/])?gpu\b", item)]
        found = sum(map(_last_number, items)) or found
    return found


def _last_number(item: str) -> int:
    """Return the count of gpu:h100:4, h100:4, 4 or gres/gpu=4; a name without a number is one."""
    last = re.split("[:=]", item)[-1]
    return int(last) if last.isdigit() else 1


def _own(word: Any) -> str | None:
    """Return the option of `OWN` that a word gives, also cut short as sbatch allows it; None where it gives none."""
    option = str(word).partition("=")[0]
    if option.startswith("--"):
        return next((own for own in OWN if len(option) > 2 and own.startswith(option)), None)
    return option[:2] if option[:2] in _OWN_SHORT else None


def _tasks(raw: DictConfig) -> list[str]:
    return [f"{arm}/{seed}" for arm in raw.get("arms") or {} for seed in raw.seeds]
