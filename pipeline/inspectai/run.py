"""Inspect tasks against the served rungs: one log a rung and task, within the budget, none run twice."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import InstrumentError, UserError
from pipeline.flops import inference_flops
from pipeline.generate.matrix import TRIES
from pipeline.inspectai.process import Events, task_error, worker
from pipeline.inspectai.scores import means_of, read_scores, scores_file
from pipeline.inspectai.task import InspectTask
from pipeline.ledger import HEARTBEAT_S, Allowance
from pipeline.progress import bar_for, left
from pipeline.records import Rung
from pipeline.serve.server import BASE_NAME, Server
from pipeline.subject.subject import Subject
from pipeline.track.tracker import Tracker
from pipeline.workspace import Workspace

CONNECTIONS = 64  # samples under way at once; Inspect's own work a sample is what takes the time


@dataclass(frozen=True)
class Job:
    """One Inspect task to be run on one rung."""

    rung: Rung
    task: InspectTask


def pending(work: Workspace, rungs: Sequence[Rung]) -> list[Job]:
    """Return what has no finished log yet, rung 0 before the adapters: they must not share a batch (docs/LOG.md).

    Controls are left out: they prove the server, not the subject.

    Raises:
        UserError: a log stands there for another task or another adapter than the plan's.
    """
    measured = [rung for rung in rungs if rung.role != "control"]
    ordered = sorted(measured, key=lambda rung: rung.artifact == "adapter")
    jobs = [Job(rung, task) for rung in ordered for task in work.inspect_tasks.values()]
    return [job for job in jobs if not _finished(work, job)]


def log_file(work: Workspace, rung: str, name: str) -> Path:
    """Return where the finished log of an eval on a rung stands."""
    return scores_file(work.folder, rung, name).with_suffix(".eval")


def run_tasks(work: Workspace, server: Server, allowance: Allowance, jobs: Sequence[Job], tracker: Tracker) -> bool:
    """Run the jobs one after the other; each finished one leaves its log and its scores in the run folder.

    Returns:
        Whether all were run; False where the budget ended first. What was under way then is redone another time.

    Raises:
        UserError: a task failed.
        InstrumentError: the server died, or renders conversations otherwise than training did.
    """
    if not jobs:
        return True
    prove_rendering(server, work.subject)
    private = work.folder.root / "inspect"
    private.mkdir(mode=0o700, exist_ok=True)
    state = private / ".work"
    shutil.rmtree(state, ignore_errors=True)  # half-written logs of a command that was killed
    # The key goes by the environment, where neither a file nor a process list shows it.
    access = {"HOLDFAST_BASE_URL": f"{server.url}/v1", "HOLDFAST_API_KEY": server.key}
    try:
        with worker(state, _job(work, jobs, state), access, work.folder.logs / "inspect.log") as events:
            return _follow(work, server, allowance, jobs, tracker, events)
    finally:
        shutil.rmtree(state, ignore_errors=True)


def prove_rendering(server: Server, subject: Subject) -> None:
    """Make sure that the server's chat endpoint sends the model the same tokens as training and `generate` do.

    Raises:
        InstrumentError: it does not, or it did not answer.
    """
    told = [] if subject.system_prompt is None else [{"role": "system", "content": subject.system_prompt}]
    body = {
        "model": BASE_NAME,
        "messages": [*told, {"role": "user", "content": "Hello there"}],
        "max_tokens": 1,
        "temperature": 0.0,
        "return_token_ids": True,
        **_extra_body(subject),
    }
    with server.client() as client:
        response = client.post("/v1/chat/completions", json=body)
    if response.is_error:
        raise InstrumentError(f"the chat endpoint failed: {response.status_code} {response.text[:300]}")
    sent = response.json().get("prompt_token_ids")
    if sent != subject.prompt_ids("Hello there"):
        raise InstrumentError(
            "the server's chat endpoint renders a conversation otherwise than training did; "
            "what Inspect tasks would measure is not the subject as served elsewhere in this run"
        )


def _finished(work: Workspace, job: Job) -> bool:
    """Say whether log and scores stand there; the log is moved in last."""
    log = log_file(work, job.rung.id, job.task.eval)
    if not log.exists():
        return False
    there = read_scores(work.folder, job.rung.id, job.task.eval)
    if there is None:
        return False
    if (there["task_sha256"], there["adapter_sha256"]) != (job.task.sha256, job.rung.sha256):
        raise UserError(
            f"{log}: it belongs to another task or adapter",
            "the run folder was mixed with another; start afresh with run.dir=",
        )
    return True


def _job(work: Workspace, jobs: Sequence[Job], state: Path) -> dict[str, Any]:
    serve = work.config.serve
    return {
        "do": "run",
        "work": str(state / "logs"),
        "system_prompt": work.subject.system_prompt,
        "tries": TRIES,
        "timeout_s": serve.request_timeout_s,
        "connections": min(CONNECTIONS, serve.max_num_seqs),
        "extra_body": _extra_body(work.subject),
        "tasks": [_task(work, job) for job in jobs],
    }


def _task(work: Workspace, job: Job) -> dict[str, Any]:
    rung, task = job.rung, job.task
    return {
        **task.spec(),
        "sha256": task.sha256,
        "rung": rung.id,
        "model": rung.served_as,
        "draws": task.draws,
        "max_tokens": task.max_tokens,
        "temperature": task.temperature,
        "log": str(log_file(work, rung.id, task.eval)),
        "scores": str(scores_file(work.folder, rung.id, task.eval)),
        "metadata": {
            "holdfast": work.config.name,
            "rung": rung.id,
            "arm": rung.arm,
            "seed": rung.seed,
            "step": rung.step,
            "task_sha256": task.sha256,
            "adapter_sha256": rung.sha256,
        },
    }


def _extra_body(subject: Subject) -> dict[str, Any]:
    """Return what vLLM takes beyond OpenAI's request, so that a reply ends and is rendered as everywhere else."""
    kwargs = {"chat_template_kwargs": dict(subject.template_kwargs)} if subject.template_kwargs else {}
    return {"stop_token_ids": list(subject.stop_token_ids), **kwargs}


def _follow(
    work: Workspace,
    server: Server,
    allowance: Allowance,
    jobs: Sequence[Job],
    tracker: Tracker,
    events: Events,
) -> bool:
    """Account for the worker's calls until it is done or the budget is."""
    attempt, waiting = allowance.attempt, {(job.rung.id, job.task.eval): job for job in jobs}
    dearest = 0.0
    with bar_for(work.console) as bar:
        shown = bar.add_task("inspect", total=len(jobs), what=f"{len(work.inspect_tasks)} tasks", left="")
        while waiting:
            if not server.alive():
                raise InstrumentError(f"the vLLM server died under an Inspect task; its log ends:\n{server.tail()}")
            event = events.next(HEARTBEAT_S)
            if event is None:
                raise InstrumentError(f"the process that runs Inspect tasks ended early:\n{events.tail()}")
            if event.get("event") == "used":
                flops = inference_flops(work.subject.parameters, event["tokens"])
                attempt.tokens += event["tokens"]
                attempt.flops += flops
                dearest = max(dearest, flops)
            elif event.get("event") == "failed":
                raise _failed(event, server, waiting)
            elif event.get("event") == "done":
                job = waiting.pop((event["rung"], event["eval"]))
                _track(work, job, tracker)
                bar.update(shown, advance=1, left=left(work.config.budget, work.ledger))
            attempt.beat()
            if waiting and not allowance.fits(0.0, dearest):
                return False
    return True


def _failed(event: Mapping[str, Any], server: Server, waiting: Mapping[tuple[str, str], Job]) -> Exception:
    """Return a worker's `failed` event as an error: the server's fault, or the task's."""
    if event["kind"] == "task":
        return task_error(event)
    if not server.alive():
        return InstrumentError(f"the vLLM server died under an Inspect task; its log ends:\n{server.tail()}")
    task = waiting[event["rung"], event["eval"]].task.task
    return UserError(
        f"evals.{event['eval']}.task: {task} failed on rung {event['rung']}: {event['what']}",
        "logs/inspect.log in the run folder says more; mend the task and run the same command again: "
        "finished tasks are kept",
    )


def _track(work: Workspace, job: Job, tracker: Tracker) -> None:
    """Give the tracker a rung's means as soon as they are there; numbers only."""
    scores = read_scores(work.folder, job.rung.id, job.task.eval)
    if job.rung.role == "rung" and scores is not None:
        tracker.rung(job.rung.arm, job.rung.seed, job.rung.dose, means_of(job.task, scores))
