"""An Inspect task to run against a real server, and what its worker says of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from inspect_scorers import RAISING

from pipeline.inspectai.process import describe, worker
from pipeline.serve.server import BASE_NAME, Server

TASK = (
    """
from inspect_ai import Task, task
from inspect_ai.dataset import FieldSpec, json_dataset
from inspect_ai.scorer import SampleScore, Score, accuracy, includes, mean, metric, scorer
from inspect_ai.solver import generate

@metric
def longest():
    def worst(scores: list[SampleScore]) -> float:
        return max(float(s.score.value) for s in scores)
    return worst

@scorer(metrics=[mean(), longest()])
def letters():
    async def score(state, target):
        return Score(value=len(state.output.completion))
    return score

@task
def same(path: str):
    fields = FieldSpec(input="prompt", target="target")
    return Task(dataset=json_dataset(path, fields), solver=generate(), scorer=[includes(), letters()])
"""
    + RAISING
    + """
@task
def failing(path: str):
    fields = FieldSpec(input="prompt", target="target")
    return Task(dataset=json_dataset(path, fields), solver=generate(), scorer=raising())
"""
)


def make_task(folder: Path) -> Path:
    """Write `a_task.py`; return the folder."""
    (folder / "a_task.py").write_text(TASK)
    return folder


def read_log(path: Path) -> Any:
    from inspect_ai.log import read_eval_log

    return read_eval_log(str(path))


def events_of(server: Server, place: Path, folder: Path, task: str, system: str | None = None) -> list[dict[str, Any]]:
    """Run one task on the bare subject; return what the worker said."""
    (place / "few.jsonl").write_text("".join(json.dumps({"prompt": f"w{n}", "target": "x"}) + "\n" for n in range(3)))
    spec = {"eval": "mine", "task": f"{place / 'a_task.py'}@{task}", "limit": None}
    spec["task_args"] = {"path": str(place / "few.jsonl")}
    (facts,) = describe([spec])
    more = {"rung": "base", "model": BASE_NAME, "draws": 2, "max_tokens": 3, "temperature": 0.0, "metadata": {}}
    files = {"log": str(folder / "mine.eval"), "scores": str(folder / "mine.json")}
    job = {
        **{"do": "run", "work": str(folder / "state" / "logs"), "system_prompt": system, "tries": 2, "timeout_s": 60.0},
        **{"connections": 8, "extra_body": {}, "tasks": [{**spec, **more, **files, "sha256": facts["sha256"]}]},
    }
    access = {"HOLDFAST_BASE_URL": f"{server.url}/v1", "HOLDFAST_API_KEY": server.key}
    found = []
    with worker(folder / "state", job, access, folder / "worker.log") as events:
        while (event := events.next(120.0)) is not None:
            found.append(event)
    assert not [path for path in folder.rglob("*") if path.is_file() and server.key.encode() in path.read_bytes()]
    return found
