"""Loads and runs Inspect tasks; a process of its own, started by `pipeline.inspectai.process` and by nothing else.

A task file is the user's code: here it meets neither the ledger nor the user's keys, and can be ended at any moment
when the budget is. Standard library and inspect_ai only; started with `python -P interpreter.py worker.py JOB.json`.

Standard output carries one JSON object a line, its `event` one of

- `task`: what a task is: `samples` (a count), `sha256`, `inputs` (their texts);
- `used`: the tokens of one model call;
- `done`: one task on one rung is finished; log and scores stand in their place;
- `failed`: what went wrong, and whether the user can mend it (`task`) or a rung's eval failed (`eval`).

Whatever a task prints goes to standard error, which is a file of the run folder.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from inspect_ai import Task, eval, task_with
from inspect_ai.hooks import Hooks, hooks
from inspect_ai.log import EvalLog, EvalSample
from inspect_ai.model import ChatMessageSystem, get_model
from inspect_ai.viewer import ViewerConfig

# No public function loads a task without running it, and the plan must know its samples before anything runs.
from inspect_ai._eval.loader import load_tasks  # isort: skip

SPREADS = ("stderr", "std", "var", "bootstrap_stderr")  # metrics that say how sure another is
MEANS = ("accuracy", "mean")
GRADES = {"C": 1.0, "I": 0.0, "P": 0.5, "N": 0.0}
WORDS = {"yes": 1.0, "no": 0.0, "true": 1.0, "false": 0.0}

TOLD = 3  # exit code after a `failed` event

Emit = Callable[[Mapping[str, Any]], None]


class TaskError(Exception):
    """A task that cannot be loaded or does not fit."""


def main(path: str) -> int:
    """Do the job described in a file; return the exit code."""
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what a task prints must not be taken for an event

    def emit(event: Mapping[str, Any]) -> None:
        out.write(json.dumps(event) + "\n")
        out.flush()

    job = json.loads(Path(path).read_text(encoding="utf-8"))
    try:
        if job["do"] == "describe":
            for spec in job["tasks"]:
                emit({"event": "task", "eval": spec["eval"], **described(spec)})
        else:
            _listen(emit, job["system_prompt"])
            for spec in job["tasks"]:
                _run(spec, job, emit)
    except TaskError as error:
        emit({"event": "failed", "kind": "task", "eval": spec["eval"], "what": str(error)})
        return TOLD
    return 0


def described(spec: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the plan must know of a task.

    Raises:
        TaskError: the task cannot be loaded, is not one task, has no samples or score, names a model of its own, or
            orders its samples anew each time.
    """
    task = load(spec)
    if task.dataset.shuffled and task_sha256(task, spec) != task_sha256(load(spec), spec):
        raise TaskError("its samples come in another order each time it is loaded; give it a seed in task_args")
    samples = list(task.dataset)[: spec["limit"]]
    return {
        "task": task.name,
        "samples": len(samples),
        "sha256": task_sha256(task, spec),
        "inputs": [_text(sample.input) for sample in samples],
    }


def load(spec: Mapping[str, Any]) -> Any:
    """Return the one task that a spec names; see `described`."""
    name, file = spec["task"], _file(spec["task"])
    try:
        # Inspect takes a file without @TASK for a pattern, and patterns from where it stands only.
        with contextlib.chdir(file.parent if file else "."):
            short = name.removeprefix(f"{file.parent}/") if file else name
            tasks: list[Task] = load_tasks([short], dict(spec["task_args"]))
    except Exception as error:  # the task's own code may raise anything
        raise TaskError(f"{name} cannot be loaded: {type(error).__name__}: {error}") from error
    if not tasks:
        raise TaskError(f"there is no Inspect task {name}; name FILE.py@TASK, or install the package that holds it")
    if len(tasks) > 1:
        names = ", ".join(sorted(task.name for task in tasks))
        raise TaskError(f"{name} holds {len(tasks)} tasks ({names}); name one, as in FILE.py@TASK")
    task = tasks[0]
    if task.scorer is None:
        raise TaskError(f"{name} has no scorer: nothing would be measured")
    if task.model is not None:
        raise TaskError(f"{name} names a model of its own ({task.model}): the rungs would not be measured")
    if not len(task.dataset):
        raise TaskError(f"{name} has no samples")
    return task


def task_sha256(task: Any, spec: Mapping[str, Any]) -> str:
    """Return one digest of a task's samples, of the file or package that holds it, and of its arguments.

    A module that the task's file imports beside it is not covered.
    """
    samples = [_plain(sample.model_dump(mode="json")) for sample in list(task.dataset)[: spec["limit"]]]
    found = {
        "samples": samples,
        "task": task.name.rpartition("/")[2],
        "version": task.version,
        "args": spec["task_args"],
        "code": _code(spec["task"]),
    }
    line = json.dumps(found, sort_keys=True, ensure_ascii=False, separators=(",", ":"), default=str)
    return hashlib.sha256(line.encode("utf-8", "surrogatepass")).hexdigest()


def _code(name: str) -> str:
    """Return the sha256 of a task's file, or the version of its package."""
    if file := _file(name):
        return hashlib.sha256(file.read_bytes()).hexdigest()
    package = name.partition("/")[0]
    try:
        return f"{package} {version(package)}"
    except PackageNotFoundError:
        return package


def _file(name: str) -> Path | None:
    file = Path(name.rpartition("@")[0] or name)
    return file if file.is_file() else None


def _plain(sample: dict[str, Any]) -> dict[str, Any]:
    """Leave out the ids of messages, which are drawn anew at each loading."""
    if isinstance(sample["input"], list):
        sample["input"] = [{k: v for k, v in message.items() if k != "id"} for message in sample["input"]]
    return sample


def _text(value: Any) -> str:
    return value if isinstance(value, str) else "\n".join(message.text for message in value)


def _listen(emit: Emit, system_prompt: str | None) -> None:
    """Tell the tokens of each model call; put the subject's system prompt before a conversation that has none."""

    @hooks(name="holdfast", description="accounts for tokens and adds the subject's system prompt")
    class Account(Hooks):  # type: ignore[misc]
        async def on_before_model_generate(self, data: Any) -> None:
            if system_prompt is not None and not any(message.role == "system" for message in data.input):
                data.input.insert(0, ChatMessageSystem(content=system_prompt))

        async def on_model_usage(self, data: Any) -> None:
            emit({"event": "used", "tokens": data.usage.total_tokens})


def _run(spec: Mapping[str, Any], job: Mapping[str, Any], emit: Emit) -> None:
    """Run one task on one rung. Address and key of the server stand in the environment, never in a log."""
    task = load(spec)
    if task_sha256(task, spec) != spec["sha256"]:
        raise TaskError(f"{spec['task']} changed since the plan was made; run the command again")
    view = task.viewer.model_dump() if task.viewer else {}
    task = task_with(task, viewer=ViewerConfig(**{**view, "trust_content": False}))  # a stripped model wrote it
    model = get_model(f"openai-api/holdfast/{spec['model']}", memoize=False)
    (log,) = eval(
        task,
        model=model,
        limit=spec["limit"],
        epochs=spec["draws"],
        metadata=spec["metadata"],
        log_dir=job["work"],
        log_format="eval",
        display="none",
        log_level="warning",
        log_realtime=False,  # else a database beside the run folder
        acp_server=False,
        ctl_server=False,
        max_retries=job["tries"],
        timeout=math.ceil(job["timeout_s"]),
        max_connections=job["connections"],
        max_samples=job["connections"],
        max_tokens=spec["max_tokens"],
        temperature=spec["temperature"],
        extra_body=job["extra_body"],
    )
    if log.status != "success":
        said = log.error.message if log.error else log.status
        emit({"event": "failed", "kind": "eval", "eval": spec["eval"], "rung": spec["rung"], "what": said})
        raise SystemExit(TOLD)
    keep(log, spec)
    emit({"event": "done", "eval": spec["eval"], "rung": spec["rung"]})


def keep(log: EvalLog, spec: Mapping[str, Any]) -> None:
    """Write the scores beside the log, then move the log to its place: with it the task counts as finished."""
    scores, place = Path(spec["scores"]), Path(spec["log"])
    place.parent.mkdir(parents=True, exist_ok=True)
    partial = scores.with_suffix(".partial")
    partial.write_text(json.dumps({**spec["metadata"], **read_scores(log)}, allow_nan=False) + "\n", encoding="utf-8")
    partial.replace(scores)
    Path(log.location.removeprefix("file://")).replace(place)


def read_scores(log: EvalLog) -> dict[str, Any]:
    """Return a log's scores without any text: a row a sample and epoch, and the metrics that Inspect worked out.

    A scorer that gives several numbers gives several columns, `<scorer>_<key>`. A value that is no number is null:
    unscored. `metrics` are those that say more than a column's mean does (`accuracy` and `mean` are in `means`).
    """
    rows = [_row(sample) for sample in log.samples or []]
    means: dict[str, str] = {}
    metrics: dict[tuple[str, str], float | None] = {}
    for score in log.results.scores if log.results else []:
        column = score.name if score.name == score.scorer else f"{score.scorer}_{score.name}"
        for key, metric in score.metrics.items():
            name, value = key.rpartition("/")[2], number(metric.value)
            if name in MEANS:
                means.setdefault(column, name)
            elif name not in SPREADS:  # with several reducers of epochs, the first counts
                metrics.setdefault((column, name), None if math.isnan(value) else value)
    columns = dict.fromkeys(column for row in rows for column in row["scores"])
    listed = [{"column": column, "metric": name, "value": value} for (column, name), value in metrics.items()]
    return {"columns": list(columns), "means": means, "metrics": listed, "rows": rows}


def _row(sample: EvalSample) -> dict[str, Any]:
    choice = sample.output.stop_reason if sample.output.choices else ""
    reply = sample.output.completion
    scores = {} if sample.error else dict(_columns(sample))
    return {
        "sample": str(sample.id),
        "epoch": sample.epoch,
        "reply_sha256": hashlib.sha256(reply.encode("utf-8", "surrogatepass")).hexdigest(),
        "truncated": choice in ("max_tokens", "model_length"),
        "error": sample.error is not None,
        "scores": {name: None if math.isnan(value) else value for name, value in scores.items()},
    }


def _columns(sample: EvalSample) -> Iterator[tuple[str, float]]:
    for scorer, score in (sample.scores or {}).items():
        if isinstance(score.value, Mapping):
            yield from ((f"{scorer}_{key}", number(value)) for key, value in score.value.items())
        elif isinstance(score.value, Sequence) and not isinstance(score.value, str):
            yield from ((f"{scorer}_{place}", number(value)) for place, value in enumerate(score.value))
        else:
            yield scorer, number(score.value)


def number(value: Any) -> float:
    """Return a score's value as Inspect's own `value_to_float` does, but NaN where that would guess 0."""
    if isinstance(value, bool | int | float):
        return float(value) if math.isfinite(value) else math.nan
    if not isinstance(value, str):
        return math.nan
    if value in GRADES:
        return GRADES[value]
    if value.lower() in WORDS:
        return WORDS[value.lower()]
    try:
        return number(float(value))
    except ValueError:
        return math.nan


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1]))
